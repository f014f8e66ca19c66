# SPDX-License-Identifier: Apache-2.0
"""Ten training steps that this project and the original implementations both take: what they start from and see.

Used by tests/reference/trajectories.py, which takes the steps in PyTorch and stores the losses, and by
tests/golden/test_trajectories.py, which takes them here. NumPy only, so that neither needs the other's framework.
"""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path

import golden_seeds
import numpy as np

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden"
STEPS = 10
BATCH, CLASSES = 2, 19
# Runs that both begin from their own random weights, on the same batches.
START_SEEDS, START_STEPS, START_SIZE = range(8), 30, (33, 33)
START_COMPARED = (1, 10, 30)
# A random network with batch statistics doubles a rounding error many times over ten steps, a trained one does not. With
# short residual branches (OpenMMLab starts them at zero) and small classifiers, float32 stays within 1e-4 of float64.
_CALMER = ((r"layer\d\.\d+\.bn3\.weight", 0.2), (r"(.*conv_seg|nlm\.bottleneck\.3|dsn\.2)\.weight", 0.1))
# Labels come in blocks of this many pixels, so that there is something to learn.
BLOCK = 8


@dataclass(frozen=True)
class Case:
    """One recipe.

    Args:
        spec: golden case whose names and shapes the start weights have.
        source: whose weights they are, as `convert_state_dict` calls it.
        config: our configuration, under configs/.
        size: height and width of the images.
        opts: overrides of our configuration; the original gets the same.
    """

    spec: str
    source: str
    config: str
    size: tuple[int, int] = (65, 65)
    opts: tuple[str, ...] = ()


# 100 000 pixels per image are more than a small image has: with 1000 the mining of hard pixels has a choice.
_FEW_KEPT = ("loss.types.0.min_kept_per_image=1000",)
_OFFICIAL = "dnlnet/official/dnl_{}_resnet101_cityscapes_769x769_60k.yml"

CASES = {
    "mmseg_dnl_r50_769x769_80k": Case(
        "mmseg_dnl_r50_cityscapes_769x769", "mmseg", "dnlnet/mmseg/dnl_r50-d8_769x769_80k_cityscapes.yml"
    ),
    "mmseg_dnl_r50_512x1024_40k": Case(
        "mmseg_dnl_r50_cityscapes_512x1024", "mmseg", "dnlnet/mmseg/dnl_r50-d8_512x1024_40k_cityscapes.yml", (64, 96)
    ),
    "official_dnl_temp_in_r101": Case(
        "official_dnl_temp_in_r101_cityscapes", "official_dnl", _OFFICIAL.format("temp_in"), opts=_FEW_KEPT
    ),
    "official_dnl_nowd_ln_r101": Case(
        "official_dnl_nowd_ln_r101_cityscapes", "official_dnl", _OFFICIAL.format("nowd_ln"), opts=_FEW_KEPT
    ),
}


# The recipe of the runs from initialisation; the weights are not those of `spec`.
FROM_START = "mmseg_dnl_r50_512x1024_40k"


def golden_weights(case: Case) -> dict[str, np.ndarray]:
    """The original's state dict of the golden case, regenerated from names."""
    spec = json.loads((GOLDEN / case.spec / "spec.json").read_text())
    return golden_seeds.seeded_state(spec["spec"])


def start_weights(case: Case) -> dict[str, np.ndarray]:
    """The state dict before the first step: that of the golden case, made calmer."""
    state = golden_weights(case)
    for key in state:
        for pattern, factor in _CALMER:
            if re.fullmatch(rf"(backbone\.)?{pattern}", key):
                state[key] = state[key] * np.float32(factor)
    return state


def movement(start: np.ndarray, end: np.ndarray) -> list[float]:
    """How far a parameter has moved, and by what share of itself it has grown; weight decay shows in the second."""
    start = start.astype("float64")
    change = end.astype("float64") - start
    size = float((start**2).sum())
    return [float(np.linalg.norm(change)), float((change * start).sum()) / size if size else 0.0]


def batch_of_step(name: str, case: Case, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Images `[B, 3, H, W]` in float32 and labels `[B, H, W]` in int64, 255 = ignore, others at each step.

    A class shifts the mean of its pixels, so that the loss can fall.
    """
    height, width = case.size
    key = f"trajectory:{name}:{step}"
    coarse = golden_seeds.seeded_label(key, (BATCH, -(-height // BLOCK), -(-width // BLOCK)), CLASSES)
    label = coarse.repeat(BLOCK, 1).repeat(BLOCK, 2)[:, :height, :width]
    colours = golden_seeds.seeded_input("trajectory:colours", (256, 3))
    noise = golden_seeds.seeded_input(key, (BATCH, 3, height, width))
    return noise + colours[label].transpose(0, 3, 1, 2), np.ascontiguousarray(label)


def stored(name: str) -> Path:
    """File of the original's numbers."""
    return GOLDEN / "trajectories" / f"{name}.json"


def start_case() -> Case:
    """The recipe of the runs from initialisation, on pictures small enough for 480 steps."""
    return dataclasses.replace(CASES[FROM_START], size=START_SIZE)


def too_far(ours: np.ndarray, theirs: np.ndarray) -> list[str]:
    """Compared steps at which the mean losses of two sets of runs, `[seeds, steps]`, lie over 2 standard errors apart."""
    found = []
    for step in START_COMPARED:
        a, b = ours[:, step - 1], theirs[:, step - 1]
        error = np.hypot(a.std(ddof=1) / len(a) ** 0.5, b.std(ddof=1) / len(b) ** 0.5)
        if not abs(a.mean() - b.mean()) <= 2 * error:
            found.append(f"step {step}: {a.mean():.4f} and {b.mean():.4f}, standard error {error:.4f}")
    return found
