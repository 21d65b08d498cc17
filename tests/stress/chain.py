"""A whole run in miniature in one process: questions, arms, completions, scores, tables. Each stage says that it begins.

    python tests/stress/chain.py OUT

What a killed chain leaves is what the next one finds: it goes on as `./reproduce.sh` does.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clinical_r1.curation.splits import ensure_splits
from clinical_r1.files import write_text
from clinical_r1.settings import SMOKE, Settings

STAGES = ("questions", "cold_start", "cold_start_crpo", "crpo", "completions", "scores and tables")
RESULTS = (
    *("questions/clinic.*.jsonl", "models/*/seed*/policy/*", "models/*/seed*/log_history.jsonl"),
    *("completions/**/*.jsonl", "scores/**/*.jsonl", "tables/*"),
)


def settings_in(out) -> Settings:
    """Four steps, a checkpoint at each, three arms, six questions."""
    return replace(
        SMOKE,
        out=str(out),
        methods=("baseline", "crpo", "cold_start_crpo"),
        benchmarks=("clinic",),
        n_sft=64,
        n_rl=16,
        n_test=6,
        rl_steps=4,
        eval_batch=2,
        workers=1,
    )


def go_on(settings: Settings, begin: Callable[[str], None] = lambda stage: None) -> None:
    """Every stage that is not done yet, in order."""
    from clinical_r1.artifacts import read_logs
    from clinical_r1.generate import complete_all
    from clinical_r1.score import score_all
    from clinical_r1.tables import build_table1, write_table1
    from clinical_r1.train import train_arm

    begin("questions")
    ensure_splits(settings)
    for arm in ("cold_start", "cold_start_crpo", "crpo"):
        begin(arm)
        train_arm(settings, arm, 0)
    begin("completions")
    complete_all(settings)
    begin("scores and tables")
    table = build_table1(settings, score_all(settings))
    write_table1(table, settings.run_dir / "tables")
    write_text(
        settings.run_dir / "tables" / "steps.csv", read_logs(settings)[["method", "step", "reward"]].to_csv()
    )


def results(settings: Settings) -> dict[str, bytes]:
    """Path -> bytes of everything that is a result: question files, policies and their logs, completions, scores, tables."""
    run = settings.run_dir
    return {
        str(path.relative_to(run)): _without_clock(path)
        for kind in RESULTS
        for path in sorted(run.glob(kind))
    }


def _without_clock(path: Path) -> bytes:
    """A log tells how long a step took, and an adapter's page and configuration where it was made."""
    if path.name == "log_history.jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [
            {key: value for key, value in row.items() if "time" not in key and "per_second" not in key}
            for row in rows
        ]
        return json.dumps(kept).encode()
    data = path.read_bytes()
    return data if path.name not in ("README.md", "adapter_config.json") else b""


def main() -> int:
    go_on(settings_in(Path(sys.argv[1])), lambda stage: print(stage, flush=True))
    print("done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
