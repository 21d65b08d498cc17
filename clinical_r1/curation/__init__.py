"""Raw benchmarks -> questions that can be trained and tested on. Nothing vanishes: what cannot be used is set aside with the
reason.
"""
