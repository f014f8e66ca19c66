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
plugin.replace("DNLNet")
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


def test_importing_the_package_leaves_paddleseg_alone():
    program = (
        "import paddle_dnl; from paddle_dnl import registry; registry.load_components()\n"
        "from paddleseg.cvlibs import manager\n"
        "assert 'DGMN2SETR' not in manager.MODELS.components_dict\n"
        "assert manager.MODELS['DNLNet'].__module__.startswith('paddleseg')\nprint('fine')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("fine"), done.stderr[-2000:]
