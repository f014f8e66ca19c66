# SPDX-License-Identifier: Apache-2.0
"""`val.py --exported`: the scores of an exported folder are those of its checkpoint, by every backend, whole and by windows."""

import json

from paddle_dnl.cli import export, val
from paddle_dnl.deployment.export import graphs
from paddle_dnl.errors import DataError, ExportError, UsageError

import paddle
import pytest
from tiny_onnx import tiny_net_file
from tiny_training import CONFIG, TinyNet, make_data

WINDOWS = ["--is_slide", "--crop_size", "24", "24", "--stride", "16", "16"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A configuration with pictures of 48x48, a checkpoint, and its exports: output_op and size -> folder."""
    place = tmp_path_factory.mktemp("exported")
    make_data(place / "data", size=48)
    config = place / "config.yml"
    config.write_text(CONFIG.format(data=place / "data"))
    paddle.seed(1)
    model = TinyNet(3)
    paddle.save(model.state_dict(), str(place / "m.pdparams"))
    given = ["--config", str(config), "--model_path", str(place / "m.pdparams")]
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "require_converter", lambda: None)
        patch.setattr(graphs, "convert", lambda files: tiny_net_file(files, model))
        for output_op, side in (("none", 48), ("none", 24), ("argmax", 48), ("softmax", 48)):
            folders[output_op, side] = place / f"{output_op}{side}"
            words = ["--save_dir", str(folders[output_op, side]), "--output_op", output_op]
            words += ["--format", "onnx"] if output_op == "none" else []
            batch = "2" if output_op == "argmax" else "1"
            assert export.main([*given, *words, "--input_shape", batch, "3", str(side), str(side)]) == 0
    return given, folders


def _scores(words, folder, capsys) -> tuple[dict, str, list[str]]:
    """scores.json without what tells of the model and the time, confusion.csv, and the lines with scores."""
    capsys.readouterr()
    assert val.main([*words, "--device", "cpu", "--save_dir", str(folder)]) == 0
    said = capsys.readouterr().out
    scores = json.loads((folder / "scores.json").read_text())
    for name in ("seconds", "settings", "model_path", "exported", "backend", "backend_precision"):
        scores.pop(name, None)
    lines = [line.split("] ", 2)[-1] for line in said.splitlines() if "[EVAL]" in line and "files are in" not in line]
    return scores, (folder / "confusion.csv").read_text(), lines


@pytest.mark.parametrize("how, side", [([], 48), (WINDOWS, 24)], ids=["whole", "windows"])
def test_every_backend_scores_what_the_checkpoint_scores(made, tmp_path, capsys, how, side):
    given, folders = made
    flags = [*how, "--auc_roc"]
    wanted, confusion, lines = _scores([*given, *flags], tmp_path / "checkpoint", capsys)
    assert 0 < wanted["miou"] < 1 and len(lines) > 4
    for backend in ("paddle", "onnxruntime", "openvino"):
        words = [*given[:2], "--exported", str(folders["none", side]), "--backend", backend, *flags]
        found, their_confusion, their_lines = _scores(words, tmp_path / backend, capsys)
        assert their_confusion == confusion and their_lines == lines, backend
        _require_close(found, wanted)


def _require_close(found: dict, wanted: dict) -> None:
    """Equal but for rounding, also within the table of classes."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if name == "classes":
            for one, other in zip(found[name], value, strict=True):
                assert one == pytest.approx(other, abs=1e-6)
        else:
            assert found[name] == pytest.approx(value, abs=1e-6) if isinstance(value, float) else found[name] == value


@pytest.mark.parametrize("output_op", ["argmax", "softmax"])
def test_graphs_that_give_classes_or_probabilities(made, tmp_path, capsys, output_op):
    given, folders = made
    wanted, confusion, lines = _scores(given, tmp_path / "checkpoint", capsys)
    words = [*given[:2], "--exported", str(folders[output_op, 48]), "--save_pred"]
    found, their_confusion, their_lines = _scores(words, tmp_path / "out", capsys)
    assert their_confusion == confusion and their_lines == lines
    if output_op == "argmax":
        assert found.pop("expected_calibration_error") is None and wanted.pop("expected_calibration_error") > 0
    _require_close(found, wanted)
    assert len(list((tmp_path / "out/pred").rglob("*.png"))) == 3
    about = json.loads((tmp_path / "out/scores.json").read_text())
    assert about["exported"] == str(folders[output_op, 48]) and about["backend"] == "paddle"


def test_a_fixed_batch_is_filled_up_and_deployed_transforms_are_used(made, tmp_path, capsys):
    """Batches of two, of which the last has one picture; the configuration's own transforms are others."""
    given, folders = made
    wanted, confusion, _ = _scores(given, tmp_path / "checkpoint", capsys)
    words = [*given[:2], "--exported", str(folders["argmax", 48]), "--batch_size", "2"]
    other = ["--opts", "val_dataset.transforms=[{type: Normalize, mean: [0.1,0.1,0.1]}]"]
    assert _scores([*words, *other], tmp_path / "out", capsys)[1] == confusion
    changed = _scores([*given, *other], tmp_path / "changed", capsys)
    assert changed[1] != confusion, "these transforms would be noticed"


@pytest.mark.parametrize("output_op, side, flags, message", [
    ("none", 24, [], "takes 24x24 only, and this evaluation gives it 48x48; use windows, --is_slide --crop_size 24 24"),
    ("none", 24, ["--is_slide", "--crop_size", "32", "24", "--stride", "9", "9"], "--crop_size 32 24: .* takes 24x24 only; give"),
    ("none", 48, ["--scales", "0.5"], "this evaluation gives it 24x24"),
    ("argmax", 48, WINDOWS, "--is_slide needs logits, and .* gives classes; export the model with --output_op none"),
    ("argmax", 48, ["--auc_roc"], "--auc_roc needs logits"),
    ("argmax", 48, ["--save_dir", "out", "--save_prob"], "--save_prob needs logits"),
    ("none", 48, ["--use_multilabel", "--opts", "loss.types=[{type: BCELoss}]"], "one class per pixel"),
    ("none", 48, ["--opts", *(f"{name}.num_classes=4" for name in ("model", "train_dataset", "val_dataset"))], "has 3 classes"),
    ("none", 48, ["--model_path", "m"], "--model_path and --exported: give one of them"),
    ("none", 48, ["--precision", "bf16"], "bf16 on a CPU needs the backend openvino"),
    ("none", 48, ["--backend", "onnxruntime", "--precision", "int8"], "has no int8 model"),
])  # fmt: skip
def test_refusals(made, tmp_path, monkeypatch, output_op, side, flags, message):
    given, folders = made
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, DataError, ExportError), match=message):
        val.main([*given[:2], "--exported", str(folders[output_op, side]), "--device", "cpu", *flags])


@pytest.mark.parametrize("flags, message", [
    ([], "--model_path is required"),
    (["--model_path", "m", "--backend", "openvino"], "--backend openvino: is for --exported"),
    (["--model_path", "m", "--precision", "int8"], "--precision int8: is for --exported"),
])  # fmt: skip
def test_flags_of_exported_folders_are_refused_for_checkpoints(made, flags, message):
    with pytest.raises(UsageError, match=message):
        val.main([*made[0][:2], *flags])
