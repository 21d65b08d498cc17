"""clinical_r1: multi-objective reinforcement learning for clinical reasoning, as one reproducible paper package.

The paper is *Clinical-R1* (arXiv 2512.00601, PMLR 317): a language model is trained with CRPO, group-relative policy
optimisation whose verifiable reward joins accuracy, faithfulness and comprehensiveness, without human labels.

Text flows one way, one module per arrow::

    question -> prompt -> completion -> parsed record -> rewards -> advantages -> update
                              completion -> verdicts -> measures -> table -> figure

Shape letters used in every docstring:

    P  prompts in a batch             G  completions per prompt (the group)       N = P * G, groups contiguous
    K  objectives (reward functions)  T  tokens of a completion

Everything clinical in this package is teaching material, never medical advice.
"""

__version__ = "0.1.0"
