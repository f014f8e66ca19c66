# SPDX-License-Identifier: Apache-2.0
"""Exports decided by trying: backends that crash or hang, free sizes, models that are random in evaluation."""

import os

from paddle_dnl.cli import export as program
from paddle_dnl.deployment.export import trial
from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.export.randomness import differing_layer
from paddle_dnl.deployment.export.shapes import FreeSizeError
from paddle_dnl.deployment.export.verify import RandomModelError
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.deployment.runtime.selection import make_backend
from paddle_dnl.errors import ExportError, UsageError
from paddle_dnl.registry import MODELS

import numpy as np
import paddle
import pytest
import tiny_training
from paddle import nn
from tiny_export import NORMALIZE, ColorNet

# The program of the other process, with a backend that ends it or never ends.
DYING = """
import os, signal, time
from paddle_dnl.deployment.export import trial

class Backend(trial.PaddleBackend):
    def run(self, batch):
        if self.mkldnn == {when}:
            {what}
        return super().run(batch)

    def __init__(self, files, options):
        self.mkldnn = options.enable_mkldnn
        super().__init__(files, options)

trial.PaddleBackend = Backend
trial.main()
"""


def _replace_process(monkeypatch, folder, when, what):
    (folder / "dying_trial.py").write_text(DYING.format(when=when, what=what))
    monkeypatch.setattr(trial, "__name__", "dying_trial")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def _export(model, folder, shape=(1, 3, 12, 20), **more):
    return export_model(model, folder, input_shape=shape and list(shape), transforms=[dict(NORMALIZE)], **more)


@pytest.mark.parametrize("what, why", [
    ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
    ("os._exit(3)", "ended with status 3"),
    ("time.sleep(60)", "not done within 4 s"),
])  # fmt: skip
def test_what_dies_in_onednn_is_not_verified_there(tmp_path, monkeypatch, what, why):
    _replace_process(monkeypatch, tmp_path, True, what)
    monkeypatch.setattr(trial, "LIMIT_SECONDS", 4)
    report = _export(ColorNet(), tmp_path / "out")
    assert report.comparison.ok and not report.mkldnn.ok and why in report.mkldnn.error
    files = read_deploy_config(tmp_path / "out")
    assert why in files.verified["mkldnn"]["error"] and sorted(os.listdir(tmp_path)) == ["dying_trial.py", "out"]
    with pytest.raises(UsageError, match="--enable_mkldnn: not verified"):
        make_backend("paddle", files, BackendOptions(enable_mkldnn=True))
    Predictor(tmp_path / "out").close()


def test_a_graph_that_kills_its_process_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    _replace_process(monkeypatch, tmp_path, False, "os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(ExportError, match="the static graph of ColorNet .*cannot be run .*SIGSEGV"):
        _export(ColorNet(), tmp_path / "out")
    assert os.listdir(tmp_path) == ["dying_trial.py"]


@MODELS.add_component
class OneSize(nn.Layer):
    """Its graph remembers the size with which it was made: pixels of another one are moved."""

    def __init__(self, num_classes=3, known=None):
        super().__init__()
        self.cls = nn.Conv2D(3, num_classes, 1)
        self.known = known

    def forward(self, x):
        height, width = x.shape[2:] if self.known is None or paddle.in_dynamic_mode() else self.known
        return [nn.functional.interpolate(self.cls(x), [height, width])]


class Multiples(OneSize):
    """Halves and doubles, so that odd sizes do not meet."""

    def forward(self, x):
        return [self.cls(x) + nn.functional.interpolate(nn.functional.max_pool2d(self.cls(x), 32), scale_factor=32)]


def test_free_sizes_are_decided_by_trying(tmp_path, capfd):
    with pytest.raises(FreeSizeError, match="OneSize has no graph for every size: .*expected"):
        _export(OneSize(known=(97, 161)), tmp_path / "out", None)  # the first of the two sizes
    with pytest.raises(FreeSizeError, match="nothing was written"):
        _export(OneSize(known=(97, 161)), tmp_path / "out", (1, 3, -1, 161))
    assert os.listdir(tmp_path) == []
    report = _export(Multiples(), tmp_path / "out", None)
    assert report.comparison.ok and "does not accept every size (ValueError" in capfd.readouterr().out
    with pytest.raises(ExportError, match=r"--input_shape 1 3 33 64: Multiples refuses it: ValueError"):
        _export(Multiples(), tmp_path / "odd", (1, 3, 33, 64))


def test_the_program_names_the_command_for_one_size(tmp_path):
    config = tiny_training.write_config(tmp_path)
    text = config.read_text().replace("{type: TinyNet, num_classes: 3}", "{type: OneSize, known: [97, 161]}")
    config.write_text(
        text.replace(
            "    - {type: RandomH", "    - {type: RandomPaddingCrop, crop_size: [96, 64]}\n    - {type: RandomH"
        )
    )
    paddle.save(OneSize().state_dict(), str(tmp_path / "w.pdparams"))
    given = ["--config", str(config), "--model_path", str(tmp_path / "w.pdparams"), "--save_dir", str(tmp_path / "o")]
    with pytest.raises(ExportError) as refused:
        program.main(given)
    assert str(refused.value).endswith(f"paddle-dnl export {' '.join(given)} --input_shape 1 3 64 96")
    with pytest.raises(ExportError, match="--input_shape 4 3 64 96$"):
        program.main([*given, "--input_shape", "4", "3", "-1", "-1"])
    channels = [*given, "--input_shape", "1", "4", "64", "96"]
    with pytest.raises(ExportError, match="--input_shape 1 4 64 96|has 4 channels") as refused:
        program.main(channels)
    assert len(str(refused.value).splitlines()) == 1
    config.write_text(config.read_text().replace(", known: [97, 161]", ""))
    assert program.main(given) == 0
    assert read_deploy_config(tmp_path / "o").input_shape == [-1, 3, -1, -1]


class Noise(nn.Layer):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return x + self.size * paddle.rand(x.shape)


@MODELS.add_component
class Random(nn.Layer):
    """As models with a non-negative matrix factorisation of random start, in evaluation too."""

    def __init__(self, num_classes=3, size=0.5):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2D(3, num_classes, 1), Noise(size))

    def forward(self, x):
        return [self.body(x)]


class RandomAndWrong(Random):
    def forward(self, x):
        y = Random.forward(self, x)[0]
        return [y if paddle.in_dynamic_mode() else 3 * y]


def test_a_model_that_is_random_in_evaluation_is_named(tmp_path):
    with pytest.raises(RandomModelError, match=r"Random is random in evaluation, in body.1 \(Noise\).*--allow_random"):
        _export(Random(), tmp_path / "out")
    assert os.listdir(tmp_path) == []
    report = _export(Random(), tmp_path / "out", allow_random=True)
    assert report.comparison.ok and report.comparison.random_spread > 0.05
    verified = read_deploy_config(tmp_path / "out").verified["paddle"]
    assert verified["random_spread"] == report.comparison.random_spread >= verified["max_relative_difference"] / 2
    with pytest.raises(ExportError, match="does not compute what the model computes"):
        _export(RandomAndWrong(size=0.01), tmp_path / "wrong", allow_random=True)
    assert not (tmp_path / "wrong").exists()


class Amplifying(nn.Layer):
    """A change of rounding in the static graph, `shift`, and a step that makes it large, as a choice of the maximum does."""

    def __init__(self, shift, amplitude=0.05):
        super().__init__()
        self.conv, self.shift, self.amplitude = nn.Conv2D(3, 3, 1), shift, amplitude

    def forward(self, x):
        y = self.conv(x)
        y = y if paddle.in_dynamic_mode() else y * (1 + self.shift)
        return [y + self.amplitude * paddle.sin(1e6 * y)]


def test_a_model_that_amplifies_rounding_is_compared_within_it(tmp_path, caplog):
    report = _export(Amplifying(1e-6), tmp_path / "out")
    assert report.comparison.ok and report.comparison.max_relative_difference > 1e-3
    assert "Amplifying amplifies rounding: where a picture changes by 1e-05" in caplog.text
    with pytest.raises(ExportError, match="does not compute what the model computes"):
        _export(Amplifying(0.5), tmp_path / "wrong")
    with pytest.raises(ExportError, match="does not compute what the model computes"):
        _export(Amplifying(1e-3, amplitude=0), tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


class NormalisedParameter(nn.Layer):
    """As PaddleSeg's GINet: Paddle Inference cannot fold the constants of this graph (3.3.1)."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2D(3, 4, 1), nn.BatchNorm1D(4)
        self.nodes = self.create_parameter([8, 4])

    def forward(self, x):
        return [self.conv(x) + self.norm(self.nodes).sum(0).reshape([1, 4, 1, 1])]


def test_a_graph_whose_constants_cannot_be_folded_runs(tmp_path):
    model = NormalisedParameter()
    model.eval()
    report = _export(model, tmp_path / "out", output_op="none")
    assert report.comparison.ok and report.comparison.max_relative_difference < 1e-5


def test_the_flag_reaches_the_export(tmp_path):
    config = tiny_training.write_config(tmp_path)
    config.write_text(config.read_text().replace("TinyNet", "Random"))
    paddle.save(Random().state_dict(), str(tmp_path / "w.pdparams"))
    given = ["--config", str(config), "--model_path", str(tmp_path / "w.pdparams"), "--save_dir", str(tmp_path / "o")]
    with pytest.raises(ExportError, match="random in evaluation"):
        program.main(given)
    assert program.main([*given, "--allow_random"]) == 0


def test_a_deterministic_model_has_no_differing_layer():
    model = ColorNet()
    model.eval()
    assert differing_layer(model, np.zeros([1, 3, 8, 8], np.float32)) is None
