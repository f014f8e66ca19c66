# SPDX-License-Identifier: Apache-2.0
"""Thirty training steps of mmsegmentation's DNL-R50 from eight random starts of its own: the band of losses that ours must meet.

    python tests/reference/from_initialisation.py --check     # what `make parity` runs
    python tests/reference/from_initialisation.py --write

Model, initial values, dropout, losses, optimizer and schedule are those of its configuration; batches are those that
tests/golden/test_from_initialisation.py gives to ours. The same seeds give the same losses but for rounding, which thirty
steps carry apart: the first step is compared closely, the others as a band. Needs the extra `parity`.
"""

import json
import sys

import numpy as np
import torch
from check_or_write import make_parser
from mmengine.logging import MMLogger
from trajectories import MMSeg
from trajectory_cases import (
    FROM_START,
    START_COMPARED,
    START_SEEDS,
    START_STEPS,
    batch_of_step,
    start_case,
    stored,
    too_far,
)

FILE = stored("from_initialisation")


def run(seed: int) -> list[list[float]]:
    """Main and auxiliary loss of each step."""
    torch.manual_seed(seed)
    case = start_case()
    recipe = MMSeg(FROM_START, case, START_STEPS, has_dropout=True)
    recipe.model.init_weights()
    recipe.prepare()
    recipe.model.train()
    losses = []
    for step in range(START_STEPS):
        image, label = batch_of_step("from_initialisation", case, step)
        values = recipe.step(torch.from_numpy(image).float(), torch.from_numpy(label))
        losses.append([float(value.detach()) for value in values])
    return losses


def main() -> int:
    """Exit status 1 when the stored band is not the one found."""
    args = make_parser("Losses of mmsegmentation from its own random starts.").parse_args()
    MMLogger.get_instance("mmengine").setLevel("ERROR")  # lists every tensor that it fills
    found = [run(seed) for seed in START_SEEDS]
    totals = np.array(found).sum(2)
    for step in START_COMPARED:
        column = totals[:, step - 1]
        print(f"step {step}: {column.mean():.4f}, standard deviation {column.std(ddof=1):.4f}")
    if args.write:
        FILE.write_text(json.dumps({"losses": found}) + "\n")
    before = np.array(json.loads(FILE.read_text())["losses"]).sum(2)
    wrong = too_far(totals, before)
    first = np.abs(totals[:, 0] / before[:, 0] - 1).max()
    if first > 1e-4:
        wrong.append(f"the first step differs by {first:.1e}")
    print(f"stored and live mmsegmentation disagree: {wrong}" if wrong else "as stored")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
