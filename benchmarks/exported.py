# SPDX-License-Identifier: Apache-2.0
"""Exported DNLNet-R50 at 512x1024: ours as `export.py --format onnx` leaves it and `--backend auto` runs it, the peer's saved
plainly with `paddle.jit.save` and run by Paddle Inference. Both give class numbers.

The exports are made once, in a process of their own, and kept in the temporary folder:
`python benchmarks/exported.py SIDE FOLDER N C H W`.
"""

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHAPE = (1, 3, 512, 1024)
TEMPORARY = Path(tempfile.gettempdir())


def state(side: str) -> str:
    """A digest of what a side's export depends on: the package, or the PaddleSeg that is found, and Paddle."""
    import paddle

    found = hashlib.sha256(paddle.__version__.encode() + Path(__file__).read_bytes())
    theirs = Path(importlib.util.find_spec("paddleseg").origin).parent / "models"
    for path in sorted((ROOT / "paddle_dnl" if side == "ours" else theirs).rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def folder_of(side: str, shape=SHAPE) -> Path:
    """The export of `ours` or `peer` for an input `[1, 3, H, W]`; made when it is not there, in a process of its own."""
    folder = TEMPORARY / f"paddle_dnl_benchmark_export_{side}_{state(side)}_{shape[2]}x{shape[3]}"
    if not (folder / "done").exists():
        words = [side, str(folder), *map(str, shape)]
        subprocess.run([sys.executable, __file__, *words], check=True, stdout=sys.stderr)
    return folder


def _settle_norms(model) -> None:
    """Batch statistics of one small picture in every norm. With those of a new model, 0 and 1, the features grow from block
    to block until rounding alone moves the logits by more than the export allows."""
    import paddle

    norms = [layer for layer in model.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    for norm in norms:
        norm._momentum = 0.0
    model.train()
    with paddle.no_grad():
        model(paddle.randn([2, 3, 128, 256]))


def _settled(side: str):
    """DNLNet-R50; ours with the weights that both sides get."""
    from compared_models import dnlnet_r50

    model = dnlnet_r50(side)
    if side == "ours":
        _settle_norms(model)
        # Random queries make a softmax so sharp that rounding alone, on some processors, moves the logits by 4e-4.
        block = model.head.dnl_block
        for parameter in (block.theta.weight, block.theta.bias):
            parameter.set_value(parameter * 0.01)
    return model


def _export_ours(folder: Path, shape: list[int]) -> None:
    from paddle_dnl.deployment.export.exporter import export_model

    from compared_models import alike

    export_model(alike(_settled, "ours"), folder, input_shape=shape, transforms=[{"type": "Normalize"}], with_onnx=True)


def _export_peer(folder: Path, shape: list[int]) -> None:
    """As PaddleSeg's export.py does: the model, argmax, `paddle.jit.save` with a fixed shape."""
    import paddle
    from compared_models import alike

    class Labels(paddle.nn.Layer):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return paddle.argmax(self.model(x)[0], axis=1)

    model = Labels(alike(_settled, "peer"))
    model.eval()
    traced = paddle.jit.to_static(model, input_spec=[paddle.static.InputSpec(shape, "float32")], full_graph=True)
    paddle.jit.save(traced, str(folder / "model"))


def step(side: str, shape=SHAPE) -> Callable[[], object]:
    """One picture through the exported model."""
    import os

    import numpy as np

    folder = folder_of(side, shape)
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    if side == "ours":
        from paddle_dnl import Predictor

        predictor = Predictor(folder, backend="auto")
        return lambda: predictor.run(x)

    from paddle import inference

    program = next(path for path in (folder / "model.json", folder / "model.pdmodel") if path.exists())
    config = inference.Config(str(program), str(folder / "model.pdiparams"))
    config.disable_gpu()
    # Paddle 3's default, oneDNN, stops at this graph's interpolation.
    config.disable_mkldnn()
    config.set_cpu_math_library_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    config.disable_glog_info()
    predictor = inference.create_predictor(config)
    entry = predictor.get_input_handle(predictor.get_input_names()[0])

    def run():
        entry.copy_from_cpu(x)
        predictor.run()
        return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()

    return run


def main() -> None:
    """Makes the export of one side."""
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    import paddle_dnl  # noqa: F401  first: zlib before paddle

    side, folder, shape = sys.argv[1], Path(sys.argv[2]), list(map(int, sys.argv[3:]))
    folder.mkdir(parents=True, exist_ok=True)
    (_export_ours if side == "ours" else _export_peer)(folder, shape)
    (folder / "done").touch()


if __name__ == "__main__":
    main()
