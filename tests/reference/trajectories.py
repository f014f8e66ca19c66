# SPDX-License-Identifier: Apache-2.0
"""Ten training steps of published recipes in PyTorch: stores their losses, or checks that the stored ones still come out.

    python tests/reference/trajectories.py --check     # what `make parity` runs
    python tests/reference/trajectories.py --write     # after a change of tests/helpers/trajectory_cases.py

Needs the extra `parity`. OpenMMLab's DNL runs in mmsegmentation itself, with its own configuration files, parameter
groups, schedule and losses; the authors' DNL runs in tests/reference/official_dnl.py. Each model is first compared
with the golden outputs of the original. Steps are taken in float64 and, to know the noise, in float32.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import golden_seeds  # noqa: E402
import numpy as np  # noqa: E402
import official_dnl  # noqa: E402
import torch  # noqa: E402
from check_or_write import make_parser  # noqa: E402
from originals import mmseg_configs  # noqa: E402
from trajectory_cases import (  # noqa: E402
    CASES,
    CLASSES,
    GOLDEN,
    STEPS,
    Case,
    batch_of_step,
    golden_weights,
    movement,
    start_weights,
    stored,
)

_DTYPES = {"float64": torch.float64, "float32": torch.float32}
_MMSEG_CONFIGS = {
    "mmseg_dnl_r50_769x769_80k": "dnlnet/dnl_r50-d8_4xb2-80k_cityscapes-769x769.py",
    "mmseg_dnl_r50_512x1024_40k": "dnlnet/dnl_r50-d8_4xb2-40k_cityscapes-512x1024.py",
}
_WITHOUT_DECAY = ("nlm.ctb.conv_query.", "nlm.ctb.conv_key.")
# Of float64 losses of two runs of the same program, on whatever processor and number of threads.
_SAME = 1e-7


# ---- OpenMMLab's --------------------------------------------------------------------------------------


class MMSeg:
    """A recipe of mmsegmentation over `steps` steps: model, optimizer and schedule from its own configuration.

    Dropout is off unless `has_dropout`, so that a step can be compared number by number.
    """

    def __init__(self, name: str, case: Case, steps: int = STEPS, has_dropout: bool = False):
        self.steps = steps
        from mmengine.config import Config

        self.config = config = Config.fromfile(mmseg_configs() / _MMSEG_CONFIGS[name])
        from mmseg.registry import MODELS

        model = config.model
        model.pretrained = model.data_preprocessor = None
        for part in (model.backbone, model.decode_head, model.auxiliary_head):
            part.norm_cfg = {"type": "BN", "requires_grad": True}  # one process: the same as SyncBN
        for head in (model.decode_head, model.auxiliary_head):
            head.dropout_ratio = head.dropout_ratio if has_dropout else 0
            head.loss_decode.avg_non_ignore = False  # the default, said aloud
        self.model = MODELS.build(model)

    def logits(self, image):
        """Evaluation output at the size of the image."""
        self.model.eval()
        features = self.model.extract_feat(image)
        logits = self.model.decode_head(features)
        align = self.model.decode_head.align_corners
        return torch.nn.functional.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=align)

    def prepare(self):
        """Optimizer and schedule."""
        from mmengine.logging import MMLogger
        from mmengine.optim import build_optim_wrapper
        from mmengine.registry import PARAM_SCHEDULERS

        MMLogger.get_current_instance().setLevel("WARNING")
        # The 80k 769x769 configuration says `wd_mult`, which mmengine and mmcv do not read: everything decays, as it ran.
        self.wrapper = build_optim_wrapper(self.model, self.config.optim_wrapper)
        (schedule,) = self.config.param_scheduler
        # mmengine reaches the last rate one step early; mmcv, with which the published weights were trained, does not.
        schedule.end = self.steps + 1
        self.schedule = PARAM_SCHEDULERS.build({**schedule, "optimizer": self.wrapper})

    def step(self, image, label):
        """One step; main and auxiliary loss."""
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in label]
        found = self.model.loss(image, samples)
        values = [found["decode.loss_ce"], found["aux.loss_ce"]]
        self.wrapper.update_params(sum(values))
        self.schedule.step()
        return values

    def rate(self) -> float:
        """Learning rate of the next step."""
        return self.wrapper.optimizer.param_groups[0]["lr"]


# ---- the authors' -------------------------------------------------------------------------------------


class Official:
    """A recipe of the authors: SGD, poly schedule to zero, OHEM and class weights."""

    def __init__(self, name: str, case: Case):
        self.no_decay = "nowd" in name
        whiten, temperature = ("ln_nostd", None) if self.no_decay else ("channel", 0.05)
        self.model = official_dnl.OfficialDNL(CLASSES, whiten, temperature)
        (option,) = case.opts
        self.least_per_image = int(option.partition("min_kept_per_image=")[2])
        self.taken = 0

    def logits(self, image):
        """Evaluation output at the size of the image."""
        self.model.eval()
        return self.model(image)[0]

    def prepare(self):
        """Optimizer with the authors' two groups."""
        free, decayed = [], []
        for key, parameter in self.model.named_parameters():
            (free if self.no_decay and key.startswith(_WITHOUT_DECAY) else decayed).append(parameter)
        groups = [{"params": decayed, "weight_decay": 5e-4}]
        if free:
            groups.append({"params": free, "weight_decay": 0.0})
        self.optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)

    def step(self, image, label):
        """One step; main and auxiliary loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        values = official_dnl.losses(self.model(image), label, self.least_per_image * len(image))
        self.optimizer.zero_grad()
        sum(values).backward()
        self.optimizer.step()
        self.taken += 1
        return values

    def rate(self) -> float:
        """Learning rate of the next step."""
        return 0.01 * (1 - self.taken / STEPS) ** 0.9


# ---- steps --------------------------------------------------------------------------------------------


def _build(name: str, case: Case, dtype) -> MMSeg | Official:
    recipe = (MMSeg if case.source == "mmseg" else Official)(name, case)
    recipe.model.to(dtype)
    return recipe


def _load(recipe, state: dict[str, np.ndarray]) -> None:
    recipe.model.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in state.items()}, strict=True)


def _check_function(recipe, case: Case) -> None:
    """Evaluation logits against the golden outputs of the original implementation."""
    _load(recipe, golden_weights(case))
    meta = json.loads((GOLDEN / case.spec / "spec.json").read_text())["meta"]
    expected = np.load(GOLDEN / case.spec / "out.npz")["logits_sub4"]
    image = torch.from_numpy(golden_seeds.seeded_input(case.spec, meta["input_shape"])).double()
    with torch.no_grad():
        found = recipe.logits(image).numpy()[:, :, ::4, ::4]
    error = np.abs(found - expected).max() / np.abs(expected).max()
    if not error < 1e-6:
        raise SystemExit(f"{case.spec}: not the original's function, logits differ by {error:.1e} of the largest")


def _steps(name: str, case: Case, precision: str) -> dict:
    """Losses and rates of all steps, and how far each parameter has moved in the end."""
    recipe = _build(name, case, _DTYPES[precision])
    if precision == "float64":
        _check_function(recipe, case)
    start = start_weights(case)
    _load(recipe, start)
    recipe.prepare()
    recipe.model.train()
    losses, rates = [], []
    for step in range(STEPS):
        image, label = batch_of_step(name, case, step)
        rates.append(recipe.rate())
        values = recipe.step(torch.from_numpy(image).to(_DTYPES[precision]), torch.from_numpy(label))
        losses.append([float(value.detach()) for value in values])
    moved = {key: movement(start[key], p.detach().numpy()) for key, p in recipe.model.named_parameters()}
    return {"losses": losses, "rates": rates, "moved": moved}


def _compute(name: str) -> dict:
    exact, single = (_steps(name, CASES[name], precision) for precision in _DTYPES)
    return {**exact, "losses_float32": single["losses"], "moved_float32": single["moved"]}


def _compare(name: str, found: dict) -> str:
    """Why the stored numbers are not those of this run; empty if they are."""
    expected = json.loads(stored(name).read_text())
    for key in ("losses", "rates"):
        error = np.abs(np.array(found[key]) / np.array(expected[key]) - 1)
        if not error.max() <= _SAME:
            return f"{key} differ by {error.max():.1e}, first at step {int(error.reshape(STEPS, -1).max(1).argmax())}"
    if list(found["moved"]) != list(expected["moved"]):
        return "other parameters"
    for name, (moved, _) in expected["moved"].items():
        if not abs(found["moved"][name][0] - moved) <= 1e-4 * moved + 1e-9:
            return f"{name} has moved by {found['moved'][name][0]}, not by {moved}"
    return ""


def main() -> int:
    """Exit status 1 when a stored trajectory is not the one found."""
    parser = make_parser("Training trajectories of the original implementations.")
    parser.add_argument("--case", choices=CASES, nargs="+", default=list(CASES))
    args = parser.parse_args()
    wrong = 0
    for name in args.case:
        found = _compute(name)
        totals = " ".join(f"{sum(values):.4f}" for values in found["losses"])
        noise = np.abs(np.sum(found["losses_float32"], 1) / np.sum(found["losses"], 1) - 1)
        print(f"{name}: {totals}; float32 off by up to {noise.max():.1e}")
        if args.write:
            stored(name).parent.mkdir(exist_ok=True)
            stored(name).write_text(json.dumps(found, indent=1) + "\n")
        elif reason := _compare(name, found):
            print(f"{name}: stored and live PyTorch disagree: {reason}")
            wrong += 1
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
