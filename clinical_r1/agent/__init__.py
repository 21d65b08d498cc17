"""A diagnostic agent: consultations of several turns in the synthetic clinic, and what each turn is credited with. GRPO, GiGPO
and Tree-GRPO on TRL's trainer. Teaching data, not medical advice.
"""
