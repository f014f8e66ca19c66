# SPDX-License-Identifier: Apache-2.0
"""The plug-in, in a process of its own: PaddleSeg's registries are shared state."""

import subprocess
import sys

PROGRAM = """
import paddle_dnl.paddleseg_plugin as plugin
from paddleseg.cvlibs import manager, SegBuilder
import paddleseg.models

assert "DGMN2SETR" in manager.MODELS.components_dict and "ResNet50" in manager.BACKBONES.components_dict
assert manager.MODELS["DNLNet"].__module__.startswith("paddleseg")

class FakeConfig:
    pass

builder = SegBuilder(FakeConfig())
cfg = {"type": "DNLNet", "num_classes": 3, "backbone": {"type": "ResNet18", "output_stride": 16}}
try:
    builder.build_component({**cfg, "dialect": "mmseg"})
    raise SystemExit("PaddleSeg's own DNLNet has no dialect")
except RuntimeError as error:
    assert "dialect" in str(error)
plugin.replace("DNLNet", "ResNet18")  # newer releases have a ResNet18 for other models
model = builder.build_component({**cfg, "dialect": "mmseg"})
assert type(model).__module__ == "paddle_dnl.models.dnlnet"
try:
    plugin.replace("DNLNett")
    raise SystemExit("accepted")
except Exception as error:
    assert "Did you mean 'DNLNet'" in str(error), error
print("fine")
"""


def test_new_names_are_added_and_others_replaced_on_request():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("fine"), done.stderr[-2000:]


CONFIGURED = """
import sys, numpy, paddle_dnl, paddle
from pathlib import Path
from paddle_dnl import paddleseg_plugin
from paddleseg.cvlibs import Config, SegBuilder, manager

folder = Path(sys.argv[1])
theirs = manager.MODELS["DNLNet"], manager.MODELS["DMNet"]
paddleseg_plugin.replace("DNLNet", "DMNet", "ResNet18")
assert theirs != (manager.MODELS["DNLNet"], manager.MODELS["DMNet"])
models = {}
for name, text in (
    ("fpn", "type: SemanticFPN\\n  backbone: {type: DGMN2_Tiny, output: neck}"),
    ("dmnet", "type: DMNet\\n  backbone: {type: ResNet18, pretrained: PATH}\\n  mid_channels: 8\\n  init: mmseg"),
    ("whole", "type: DMNet\\n  backbone: {type: ResNet18}\\n  mid_channels: 8\\n  pretrained: PATH"),
):
    path = folder / f"{name}.yml"
    path.write_text(
        "batch_size: 1\\niters: 1\\noptimizer: {type: SGD}\\n"
        "lr_scheduler: {type: PolynomialDecay, learning_rate: 0.01}\\n"
        "loss: {types: [{type: CrossEntropyLoss}], coef: [1, 0.4]}\\n"
        "train_dataset: {type: Dataset, dataset_root: /, train_path: /x, num_classes: 5, mode: train, transforms: []}\\n"
        f"model:\\n  num_classes: 5\\n  {text.replace('PATH', str(folder / 'start.pdparams'))}\\n"
    )
    models[name] = SegBuilder(Config(str(path))).model
    models[name].eval()
    assert models[name](paddle.randn([1, 3, 65, 70]))[0].shape == [1, 5, 65, 70]
    state = models[name].state_dict()
    if name == "fpn":
        from paddle_dnl.models.backbones.resnet import ResNet18
        start = ResNet18().state_dict()
    elif name == "dmnet":
        for key, value in start.items():
            assert (state[f"backbone.{key}"].numpy() == value.numpy()).all(), key
        start = state
    else:
        assert all((state[key].numpy() == value.numpy()).all() for key, value in start.items())
    paddle.save(start, str(folder / "start.pdparams"))
print("fine")
"""


def test_paddlesegs_own_configuration_builds_our_models_with_their_start_weights(tmp_path):
    """The text goes through PaddleSeg's Config and builder; `pretrained` must not be dropped on the way."""
    command = [sys.executable, "-c", CONFIGURED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("fine"), done.stderr[-2000:]


def test_importing_the_package_leaves_paddleseg_alone():
    program = (
        "import paddle_dnl; from paddle_dnl import registry; registry.load_components()\n"
        "from paddleseg.cvlibs import manager\n"
        "assert 'DGMN2SETR' not in manager.MODELS.components_dict\n"
        "assert manager.MODELS['DNLNet'].__module__.startswith('paddleseg')\nprint('fine')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("fine"), done.stderr[-2000:]
