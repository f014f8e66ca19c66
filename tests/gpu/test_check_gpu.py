# SPDX-License-Identifier: Apache-2.0
"""`paddle-dnl check-gpu` on a CPU: the whole program, and its verdicts on figures that are wrong."""

import json
import time

from paddle_dnl.cli import check_gpu
from paddle_dnl.errors import UsageError
from paddle_dnl.gpu import check
from paddle_dnl.gpu.check import Checks, Outcome, table, verdict

import pytest


def layouts(*losses: list[float]) -> dict:
    """What the probe `channels_last` gives."""
    times = {"forward": 1.0, "backward": 2.0, "optimizer": 0.5}
    return {name: times | {"losses": found, "in_use": name == "NHWC"}
            for name, found in zip(("NCHW", "NHWC"), losses, strict=True)}  # fmt: skip


class FakeBench:
    """A bench whose programs give stored figures.

    Args:
        losses: by the name of the training; others end as that in fp32 does.
        probes: by name.
    """

    place, steps, crop = "gpu", 10, 64

    def __init__(self, folder, losses=None, probes=None):
        self.folder, self._losses, self._probes = folder, losses or {}, probes or {}
        self.config = folder / "config.yml"
        self.weights = folder / "model.pdparams"
        (folder / "export").mkdir()

    def train(self, name, *flags, launch=()):
        falling = [5.0 - 0.1 * step for step in range(self.steps)]
        return self._losses.get(name, falling[5:] if name == "resumed" else falling)

    def program(self, name, module, *words):
        return ""

    def probe(self, name, **settings):
        default = {
            "device": {"cards": 2, "name": "a card"},
            "attention_ways": {"streaming float32": {"difference": 1e-6, "milliseconds": 1.0}, "finite": True},
            "logits": {"largest_logit": 655.04, "difference": 0.01, "same_class": 1.0},
            "exported": {"agreement": 1.0},
            "stages": {"ours": {"forward": 1.0}, "paddleseg": {"skipped": "not installed"}},
            "channels_last": layouts([5.0, 4.0], [5.01, 4.1]),
        }
        return self._probes.get(name, default[name])


def outcomes(folder, **figures) -> dict[str, Outcome]:
    return {outcome.name: outcome for outcome in Checks(FakeBench(folder, **figures)).run()}


def test_all_checks_pass_on_figures_as_they_should_be(tmp_path):
    found = outcomes(tmp_path)
    assert {outcome.status for outcome in found.values()} == {"PASS"}, found
    assert "1/100 of float16's range" in found["logits"].text and "2 cards against one" in found["cards"].text
    assert found["channels last"].text.startswith("step 3.5 ms in NCHW, 3.5 ms in NHWC")
    assert verdict(list(found.values())) == f"PASS: {len(found)} passed, 0 failed, 0 skipped"


@pytest.mark.parametrize("name, figures, text", [
    ("train fp32", {"losses": {"fp32": [1.0] * 10}}, "does not fall"),
    ("train fp16 O1", {"losses": {"fp16_O1": [5.0] * 10}}, "must be within 10%"),
    ("train bf16 O2", {"losses": {"bf16_O2": [3.0] * 10}}, "must be within 10%"),
    ("cards", {"losses": {"cards": [4.3] * 10}}, "must be within 2%"),
    ("resume", {"losses": {"resumed": [4.7] * 5}}, "must be within 2%"),
    ("attention", {"probes": {"attention_ways": {"flash float16": {"difference": 0.1, "milliseconds": 1}, "finite": True}}},
     "differs from plain by 0.1"),
    ("attention", {"probes": {"attention_ways": {"finite": False}}}, "NaN"),
    ("logits", {"probes": {"logits": {"largest_logit": 1.0, "difference": 0.5, "same_class": 0.9}}}, "90.00%"),
    ("export", {"probes": {"exported": {"agreement": 0.99}}}, "99.000%"),
    ("tensorrt", {"probes": {"exported": {"agreement": 0.99}}}, "99.000%"),
    ("channels last", {"probes": {"channels_last": layouts([5.0, 4.0], [5.2, 4.0])}}, "the first loss in NHWC is +4.00%"),
    ("channels last", {"probes": {"channels_last": layouts([5.0, 4.0], [5.0, 4.6])}}, "the last loss in NHWC is +15.00%"),
    ("channels last", {"probes": {"channels_last": layouts([5.0, 4.0], [5.0, float("nan")])}}, "last loss in NHWC is +nan%"),
])  # fmt: skip
def test_a_figure_beyond_its_limit_fails_its_check(tmp_path, name, figures, text):
    found = outcomes(tmp_path, **figures)
    assert found[name].status == "FAIL" and text in found[name].text
    assert verdict(list(found.values())).startswith("FAIL")
    assert f"| {name} | FAIL |" in table(list(found.values()))


def test_what_cannot_be_compared_is_skipped_and_no_pass(tmp_path):
    found = outcomes(tmp_path, losses={"fp32": [1.0] * 10}, probes={"device": {"cards": 1}})
    assert found["train fp16 O1"].status == found["cards"].status == "SKIP"


@pytest.mark.parametrize("flags, text", [
    (["--steps", "3"], "--steps must be at least 4"), (["--crop", "100"], "multiple of 32"),
    (["--only", "exprt"], "'exprt' is none of .* Did you mean 'export'"),
])  # fmt: skip
def test_wrong_flags(flags, text, tmp_path):
    with pytest.raises(UsageError, match=text):
        check_gpu.main([*flags, "--device", "cpu", "--crop", "64", *flags, "--save_dir", str(tmp_path / "new")])


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UsageError, match="not an empty folder"):
        check_gpu.main(["--device", "cpu", "--save_dir", str(tmp_path)])


def test_results_of_real_trainings_one_of_them_beyond_its_limit(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check, "PRECISION_LIMIT", -1.0)
    status = check_gpu.main(["--device", "cpu", "--steps", "4", "--crop", "64", "--save_dir", str(tmp_path / "out"),
                             "--only", "train fp16 O1"])  # fmt: skip
    results = {row["name"]: row for row in json.loads((tmp_path / "out/results.json").read_text())}
    assert status == 1 and capsys.readouterr().out.rstrip().endswith("FAIL: 2 passed, 1 failed, 0 skipped")
    assert results["train fp32"]["status"] == "PASS" and len(results["train fp32"]["figures"]["losses"]) == 4
    assert "must be within" in results["train fp16 O1"]["text"]
    assert "float32" in (tmp_path / "out/fp16_O1.log").read_text(), "a CPU computes fp16 in float32 and says so"


@pytest.mark.parametrize("body, problem", [
    ("print('begun', flush=True); time.sleep(60)", "not done in 3 s: begun"),
    ("time.sleep(60)", "not done in 3 s: no output"),
    ("print('begun'); sys.exit('it broke')", "exit status 1: it broke"),
    ("print('\\xff'); sys.stdout.flush(); os.write(1, b'\\xff\\n'); os.abort()", "exit status -6: \ufffd"),
    # A child that goes on, and holds the streams of its parent.
    ("subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); sys.exit(3)", "exit status 3: no output"),
])  # fmt: skip
def test_a_program_that_fails_or_is_late_is_named_with_its_last_line(tmp_path, monkeypatch, body, problem):
    (tmp_path / "program.py").write_text(f"import os, subprocess, sys, time\n{body}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    bench = check.Bench(tmp_path, "cpu", steps=4, crop=64, time_limit=3)
    began = time.monotonic()
    with pytest.raises(check._Failed) as caught:
        bench.program("trial", "program")
    assert str(caught.value) == f"trial: {problem}" and time.monotonic() - began < 30
    assert (tmp_path / "trial.log").read_text(errors="replace").count("begun") == body.count("begun")
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.slow
def test_the_whole_program_on_a_cpu(tmp_path):
    assert check_gpu.main(["--device", "cpu", "--steps", "6", "--crop", "64", "--save_dir", str(tmp_path / "out")]) == 0
    results = {row["name"]: row for row in json.loads((tmp_path / "out/results.json").read_text())}
    assert [name for name, row in results.items() if row["status"] == "SKIP"] == ["tensorrt"]
    assert results["resume"]["figures"]["distance"] == pytest.approx(0, abs=1e-6)
    assert set(results["stages fp32"]["figures"]["ours"]) == {"forward", "backward", "optimizer"}
    ways = results["channels last"]["figures"]
    assert ways["NCHW"]["losses"] == ways["NHWC"]["losses"] and not ways["NHWC"]["in_use"], (
        "a CPU computes both in NCHW"
    )
