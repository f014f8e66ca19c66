# SPDX-License-Identifier: Apache-2.0
"""Thirty training steps from our own random starts against mmsegmentation's from its own: the bands of losses overlap.

Eight runs each, on the same batches; tests/reference/from_initialisation.py took mmsegmentation's steps. What this shows
beside the trajectories from equal weights: initial values, dropout and their effect on the first steps.
"""

import json

from paddle_dnl.config import Config
from paddle_dnl.losses import build_losses
from paddle_dnl.models.build import build_model
from paddle_dnl.optim import build_lr_scheduler, build_optimizer

import numpy as np
import paddle
import pytest
from test_golden_models import CONFIGS
from trajectory_cases import START_COMPARED, START_SEEDS, START_STEPS, batch_of_step, start_case, stored, too_far


def _run(seed: int) -> list[float]:
    """Total loss of each step."""
    paddle.seed(seed)
    case = start_case()
    config = Config(CONFIGS / case.config, iters=START_STEPS)
    model = build_model(config)
    criterion = build_losses(config.loss_cfg)
    schedule = build_lr_scheduler(config.lr_scheduler_cfg, config.iters)
    optimizer = build_optimizer(config.optimizer_cfg, model, schedule)
    model.train()
    losses = []
    for step in range(START_STEPS):
        image, label = batch_of_step("from_initialisation", case, step)
        outputs = model(paddle.to_tensor(image.astype("float32")))
        loss = sum(value for _, value in criterion(outputs, paddle.to_tensor(label)))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()
        losses.append(float(loss))
    return losses


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_bands_of_losses_overlap():
    theirs = np.array(json.loads(stored("from_initialisation").read_text())["losses"]).sum(2)
    ours = np.array([_run(seed) for seed in START_SEEDS])
    for step in START_COMPARED:
        a, b = ours[:, step - 1], theirs[:, step - 1]
        print(f"step {step}: {a.mean():.4f} +- {a.std(ddof=1):.4f}, theirs {b.mean():.4f} +- {b.std(ddof=1):.4f}")
    assert not too_far(ours, theirs)
    assert theirs.std(0, ddof=1).max() < 0.2 * theirs.mean(), "bands so wide would show nothing"
