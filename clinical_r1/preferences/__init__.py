"""Preferences by a knowledge graph, after reinforcement learning and conversation ("GRPO++-style", ours: DermIQ-VLM, arXiv
2510.01236, names the order of the stages and prints no equation that could be read). Teaching data, not medical advice.
"""
