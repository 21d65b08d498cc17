"""`python -m clinical_r1.agent show` tells a consultation turn by turn, `start` rebuilds what the agent starts from, `outside`
lets the patients of AgentClinic and mediQ answer from their facts.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from clinical_r1.agent.consultation import Rules, draw_patients
from clinical_r1.clinic.cases import phrase
from clinical_r1.files import DATA_VARIABLE, write_text

MOST_SHOWN = 10_000  # patients are drawn one after the other: a later one would be waited for


def main(argv=None) -> int:
    """A consultation told turn by turn; the start rebuilt; real cases as patients."""
    parser = argparse.ArgumentParser(prog="python -m clinical_r1.agent", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="a consultation with one patient, as a reference policy holds it")
    show.add_argument("--policy", default="expert", choices=("guess", "random_inquiry", "greedy", "expert"))
    show.add_argument("--index", type=int, default=0, help="number of the validation patient (default 0)")
    show.add_argument("--open", action="store_true", help="all findings on offer, none named")
    start = commands.add_parser("start", help="rebuild the start (minutes on one core)")
    start.add_argument("--out", required=True, help="folder to write the model and its tokenizer to")
    start.add_argument("--steps", type=int, help="training steps, in one phase; default: the shipped start's")
    outside = commands.add_parser("outside", help="how much of real cases' facts reference players uncover")
    outside.add_argument("folder", nargs="?", help=f"folder of the files; default: {DATA_VARIABLE}")
    outside.add_argument("--horizon", type=int, default=20, help="requests of a consultation (default 20)")
    outside.add_argument("--seed", type=int, default=0)
    outside.add_argument("--to", help="folder to write both tables to, as CSV")
    arguments = parser.parse_args(argv)
    return {"show": _show, "start": _start, "outside": _outside}[arguments.command](parser, arguments)


def _show(parser, arguments) -> int:
    from clinical_r1.agent import policies

    if not 0 <= arguments.index < MOST_SHOWN:
        parser.error(f"--index: got {arguments.index}; expected 0 to {MOST_SHOWN - 1}.")
    rules = Rules(menu=None) if arguments.open else Rules()
    patient = draw_patients("validation", arguments.index + 1, 0, rules.menu)[-1]
    print(f"Complaint: {', '.join(phrase(finding, True) for finding in patient.complaint)}.")
    print(f"On offer: {', '.join(f'{verb} {words}' for words, (_, verb) in patient.menu.items())}.")
    played = policies.play(
        patient, rules, policies.POLICIES[arguments.policy], np.random.default_rng(arguments.index)
    )
    for step in played.turns:
        likely = "  ".join(f"{name} {p:.2f}" for name, p in step.posterior.items())
        print(
            f"\n{likely}\n> {step.text}\n  {step.observation.text or f'reward {step.observation.reward:g}'}"
        )
    print(f"\nThe patient has: {patient.gold}. Teaching material, not medical advice.")
    return 0


def _start(parser, arguments) -> int:
    from clinical_r1.agent.start import PHASES, train_start

    if arguments.steps is not None and arguments.steps < 1:
        parser.error(f"--steps: got {arguments.steps}; expected 1 or more.")
    phases = PHASES if arguments.steps is None else ((arguments.steps, PHASES[0][1]),)
    train_start(arguments.out, phases)
    return 0


def _outside(parser, arguments) -> int:
    from clinical_r1.agent.outside import outside_table, reading_table

    folder = arguments.folder or os.environ.get(DATA_VARIABLE)
    if not folder:
        parser.error(f"no folder: name one that holds agentclinic/ or mediq/, or set {DATA_VARIABLE}.")
    if arguments.seed < 0:
        parser.error(f"--seed: got {arguments.seed}; expected 0 or more.")
    try:
        tables = {
            "agent_reading": reading_table(folder),
            "agent_outside": outside_table(folder, arguments.horizon, arguments.seed),
        }
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    for name, table in tables.items():
        print(f"{table.to_string(index=False)}\n")
        if arguments.to:
            write_text(Path(arguments.to) / f"{name}.csv", table.to_csv(index=False, float_format="%.6f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
