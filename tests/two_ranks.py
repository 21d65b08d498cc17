"""Log-probabilities on two processes, one of which cannot share now and then; test_exactness.py compares what they did.

    accelerate launch --multi_gpu --num_processes 2 tests/two_ranks.py FOLDER

Leaves FOLDER/<process>.json: for every call the share of stock's tokens, the reasons said, and the distance to stock.
"""

import json
import sys
from pathlib import Path

import torch
import trl
from prefix_cases import RAGGED, P, R, batch_of, loss_inputs, model_of, trainer_of

from clinical_r1.speed import prefix
from clinical_r1.speed.prefix import SharedPrefixMixin
from clinical_r1.speed.prefix_attention import CannotShare


def call(made, ids, mask):
    """[share of stock's tokens, largest difference from stock, last reason]"""
    with torch.no_grad():
        ours, _, _ = made._get_per_token_logps_and_entropies(made.model_wrapped, ids, mask, R)
        stock, _, _ = trl.GRPOTrainer._get_per_token_logps_and_entropies(made, made.model, ids, mask, R)
    there = mask[:, P:].bool()
    tokens = made._metrics["train"]["shared_prefix/tokens"][-1]
    return [tokens, (ours - stock)[there].abs().max().item(), (made._prefix_reasons or [None])[-1]]


def main():
    folder = Path(sys.argv[1])
    options = {"shared_prefix_threshold": 0}
    made = trainer_of(folder / "run", model_of(), beta=0.0, options=options)
    rank = made.accelerator.process_index
    made.model_wrapped = made.accelerator.prepare_model(made.model)
    ids, mask = batch_of(*RAGGED, seed=rank)
    found = {"processes": made.accelerator.num_processes, "calls": {"as they are": call(made, ids, mask)}}
    holes = mask.clone()
    if rank == 1:
        holes[0, P + 1] = 0  # no layout for it
    found["calls"]["a batch of one cannot be packed"] = call(made, ids, holes)
    packed = SharedPrefixMixin._packed_logps

    def fails(self, *args):
        if rank == 1:
            raise CannotShare("a window is shorter than a row")
        return packed(self, *args)

    SharedPrefixMixin._packed_logps = fails
    found["calls"]["one fails on the way"] = call(made, ids, mask)
    SharedPrefixMixin._packed_logps = packed
    costs = SharedPrefixMixin._costs
    SharedPrefixMixin._costs = lambda self, *args: (1.0, 2.0 - rank)
    made.shared_prefix_threshold = 0.8
    found["calls"]["it pays for one only"] = call(made, ids, mask)
    SharedPrefixMixin._costs, made.shared_prefix_threshold = costs, 0
    found["calls"]["again"] = call(made, ids, mask)
    made.model.train()
    loss = made.compute_loss(made.model_wrapped, loss_inputs())
    loss.backward()
    found["gradient"] = sum(p.grad.sum().item() for p in made.model.parameters())

    prefix.VERIFIED_FAMILIES = ()
    for case in ("a new family", "a new family that differs on one"):
        made._prefix_models.clear()
        if case.endswith("one") and rank == 0:
            SharedPrefixMixin._packed_logps = lambda self, *args: (packed(self, *args)[0] * 1.01, None)
        found["calls"][case] = call(made, ids, mask)
        found["calls"][f"{case}, again"] = call(made, ids, mask)
    SharedPrefixMixin._packed_logps = packed
    made._prefix_models.clear()
    made.shared_prefix_measure, made.shared_prefix_threshold = True, 1.0
    prefix.seconds_in_turn = lambda runs, device: [
        1.0,
        0.5 + rank,
    ]  # shared: faster on one, slower on the other
    found["calls"]["measured"] = call(made, ids, mask)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
