"""The same result, sooner: each prompt is encoded once per group, in training and in rollouts. Knows torch and TRL only."""
