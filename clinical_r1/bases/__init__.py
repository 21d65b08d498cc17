"""Where a real base model comes from: the Hub at a pinned revision, a folder, or a GGUF file that is converted once; and the
numbers that this machine computes it in. Whatever serves instead of what the settings name is said.
"""
