# SPDX-License-Identifier: Apache-2.0
"""`--data_format NHWC` through the programs: what reaches Paddle, and where it does nothing."""

from paddle_dnl.cli import predict, train, val
from paddle_dnl.errors import UsageError
from paddle_dnl.gpu.check import Bench
from paddle_dnl.log import logger
from paddle_dnl.training import amp
from paddle_dnl.training.records.run_records import SCALARS, read_table

import paddle
import pytest
from paddle.base import core

VIEWS = "FLAGS_use_stride_kernel"


def train_losses(bench: Bench, name: str, data_format: str) -> list[float]:
    words = ["--config", str(bench.config), "--save_dir", str(bench.folder / name), "--iters", "2", "--log_iters", "1"]
    words += ["--seed", "1", "--device", "cpu", "--do_eval", "--use_ema", "--data_format", data_format]
    assert train.main(words) == 0
    return list(read_table(bench.folder / name / SCALARS)["Train/loss"].values())


def test_the_flag_reaches_paddles_tuning_in_each_program_and_is_off_after_it(tmp_path, monkeypatch):
    bench = Bench(tmp_path, "cpu", steps=2, crop=64, time_limit=60)
    bench.prepare()
    switches, real = [], paddle.incubate.autotune.set_config
    record = lambda config: switches.append(config["layout"]["enable"]) or real(config)  # noqa: E731
    monkeypatch.setattr(paddle.incubate.autotune, "set_config", record)

    def switched() -> int:
        """Calls of a backbone with the tuning since the last question."""
        assert switches == [True, False] * (len(switches) // 2)
        assert paddle.get_flags(VIEWS)[VIEWS] and not core.use_layout_autotune()
        count = len(switches) // 2
        switches.clear()
        return count

    plain = train_losses(bench, "plain", "NCHW")
    assert switched() == 0, "off by default"
    lines = []
    monkeypatch.setattr(logger, "warning", lines.append)
    assert train_losses(bench, "cpu", "NHWC") == plain and switched() == 0
    assert lines == ["--data_format NHWC: cpu is no GPU with tensor cores; computing in NCHW"]
    # From here on the programs take this machine for one that has channels-last.
    monkeypatch.setattr(amp, "_nhwc_obstacle", lambda *_: None)
    assert train_losses(bench, "other", "NHWC") == plain
    assert switched() >= 2 + 2 * 2, "two steps, two images of the model and two of its average"

    model = ["--model_path", str(tmp_path / "other/iter_2/model.pdparams"), "--device", "cpu", "--data_format", "NHWC"]
    assert val.main(["--config", str(bench.config), *model]) == 0
    assert switched() >= 2
    image = next((tmp_path / "data").rglob("leftImg8bit/val/*/*.png"))
    words = [
        "--config",
        str(bench.config),
        "--image_path",
        str(image),
        "--save_dir",
        str(tmp_path / "predicted"),
        *model,
    ]
    assert predict.main(words) == 0
    assert switched() >= 1


def test_an_exported_folder_has_no_data_format(tmp_path):
    with pytest.raises(UsageError, match="--data_format NHWC: is not for --exported"):
        val.main(["--config", "c.yml", "--exported", str(tmp_path), "--data_format", "NHWC"])
