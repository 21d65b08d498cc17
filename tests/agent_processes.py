"""One step of an agent on scripted episodes, in one process or in several; tests/agent/test_two_processes.py compares them.

    python tests/agent_processes.py FOLDER CASE [CASE ...]
    accelerate launch --multi_gpu --num_processes 2 tests/agent_processes.py FOLDER CASE ...

Each case leaves FOLDER/CASE.json: the rows with their advantages, the log, and a digest of the trained weights.
"""

import argparse
import gc
import hashlib
import os
from pathlib import Path

import torch
from agent_cases import OPTIONS, PRICED, ScriptedRollout, patients, trainer_of

from clinical_r1.agent.forest import Shape
from clinical_r1.agent.trainer import build_agent_trainer_class
from clinical_r1.files import write_json

CASES = ("anchor", "tree+anchor")
ROWS = 12  # two groups of six, one a process where there are two


def trainer_class():
    class Kept(build_agent_trainer_class()):
        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            self.rows = []
            for row, mask, values in zip(
                inputs, output["completion_mask"], output["advantages"], strict=True
            ):
                kept = values[mask.bool()].tolist()
                self.rows.append(
                    {"id": row["episode"].id, "process": self.accelerator.process_index, "advantages": kept}
                )
            return output

    return Kept


def main():
    from accelerate.utils import gather_object

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="+", choices=CASES)
    args = parser.parse_args()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    for case in args.cases:
        shape = Shape(2, 2, 1, 3) if "tree" in case else None
        made = trainer_of(
            args.folder / "run", ScriptedRollout(patients(), PRICED, shape), kind=trainer_class(),
            options={"estimator": case, "shared_prefix_threshold": 0, **OPTIONS},
            per_device_train_batch_size=ROWS // processes,
        )  # fmt: skip
        made.train()
        weights = [value.detach() for value in made.model.parameters()]
        digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in weights)).hexdigest()
        found = {
            "processes": made.accelerator.num_processes,
            "rows": gather_object(made.rows),
            "digests": gather_object([digest]),
            "weights": [value.double().sum().item() for value in weights],
            "log": made.state.log_history[0],
            "table": list(made._logs["advantages"]),
        }
        if made.accelerator.is_main_process:
            write_json(args.folder / f"{case}.json", found)
        del made
    if processes > 1:
        gc.collect()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
