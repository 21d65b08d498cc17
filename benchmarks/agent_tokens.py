"""Leaves for a sampled token: forests against chains, with the agent's start. Decides a forest's steps (agent/arms.py).

    python benchmarks/agent_tokens.py [--patients 100] [--start DIR]

A branch begins at a node that is there already, so its first turns cost nothing. Both are played with the same patients, and have
as many rows a patient.
"""

import argparse

from clinical_r1.agent.arms import LEAVES_PER_TOKEN, TREES
from clinical_r1.agent.consultation import Rules, draw_patients
from clinical_r1.agent.experiment import speaker_of
from clinical_r1.agent.forest import chains, forest
from clinical_r1.agent.start import start_path

SEED = 20251208


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=100, help="validation patients (default 100)")
    parser.add_argument("--start", help="folder of a policy; default: the shipped start")
    arguments = parser.parse_args()
    speaker, rules = speaker_of(arguments.start or start_path()), Rules()
    patients = draw_patients("validation", arguments.patients, SEED, rules.menu)
    alone = chains(speaker, patients, rules, TREES.rows, SEED)
    grown = forest(speaker, patients, rules, **vars(TREES), seed=SEED)
    for name, played in (("chains", alone), ("forest", grown)):
        print(
            f"{name:7} {len(played.episodes)} rows, {played.sampled} tokens sampled, {played.trained} trained"
        )
    ratio = grown.leaves_per_token / alone.leaves_per_token
    print(f"leaves for a sampled token, forest / chains: {ratio:.2f}; agent/arms.py takes {LEAVES_PER_TOKEN}")


if __name__ == "__main__":
    main()
