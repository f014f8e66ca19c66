# SPDX-License-Identifier: Apache-2.0
"""No program writes over a file that it reads, or over one that it did not write; each may be run again into its own folder.

Issue 19, items 1 to 3. Each program runs in this process through its `main`; what was there before is compared byte by byte.
"""

import os
import shutil
from pathlib import Path

from paddle_dnl.cli import configs, convert, export, infer, predict, val
from paddle_dnl.cli import train as train_program
from paddle_dnl.cli.analysis import report
from paddle_dnl.cli.data import create_list, describe_data, import_data, preview_data, split_data
from paddle_dnl.errors import CheckpointError, OutputError, PaddleDnlError, UsageError
from paddle_dnl.files.outputs import JOURNAL
from paddle_dnl.models.build import build_model

import cv2
import numpy as np
import paddle
import pytest
import tiny_export
import tiny_training

QUICKSTART = Path(__file__).resolve().parents[2] / "configs/quickstart/dnlnet_resnet18_mini_cityscapes.yml"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for our journals."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (JOURNAL, ".paddle_dnl_lock")
    }


def _kept(folder: Path, before: dict[str, bytes]) -> None:
    """All that was there is there, unchanged, and nothing half written is left."""
    after = contents(folder)
    assert {name: after.get(name) for name in before} == before
    assert not [name for name in after if ".tmp-" in name]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An exported model, a trained checkpoint and pictures, all made once."""
    root = tmp_path_factory.mktemp("made")
    tiny_export.export_color_net(root / "export")
    tiny_training.train(root / "run", opts=["iters=2"], save_interval=2, do_eval=True)
    (root / "photos").mkdir()
    for number in range(2):
        picture, _ = tiny_export.blocks(4, 8, 8, seed=number)
        cv2.imwrite(str(root / "photos" / f"street_{number}.png"), picture)
    return root


@pytest.fixture
def work(made, tmp_path):
    """A fresh copy."""
    shutil.copytree(made, tmp_path / "w")
    config = tmp_path / "w" / "run" / "config.yml"
    config.write_text(config.read_text().replace(str(made), str(tmp_path / "w")))
    return tmp_path / "w"


def _infer(work, image_path, save_dir, *more):
    words = ["--config", str(work / "export"), "--image_path", str(image_path), "--save_dir", str(save_dir), *more]
    return infer.main(words)


def _predict(work, image_path, save_dir):
    weights = work / "run" / "output" / "iter_2" / "model.pdparams"
    words = ["--config", str(work / "run" / "config.yml"), "--model_path", str(weights)]
    return predict.main([*words, "--image_path", str(image_path), "--save_dir", str(save_dir)])


def _train(work, *more):
    words = ["--config", str(work / "run" / "config.yml"), "--save_interval", "2", "--iters", "4", "--do_eval"]
    return train_program.main([*words, *more])


# ---------------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize("way", ["folder", "dot", "list", "link"])
def test_infer_does_not_write_over_its_pictures(work, monkeypatch, way):
    photos = work / "photos"
    image_path, save_dir = {
        "folder": (photos, photos),
        "dot": ("street_0.png", "."),
        "list": (photos / "list.txt", photos),
        "link": (photos, work / "link"),
    }[way]
    (photos / "list.txt").write_text("street_0.png\nstreet_1.png\n")
    (work / "link").symlink_to(photos)
    monkeypatch.chdir(photos)
    before = contents(work)
    refused = {"folder": "is the folder of pictures", "link": "is the folder of pictures"}
    text = refused.get(way, "street_0.png: would be overwritten, and is an input")
    with pytest.raises((OutputError, UsageError), match=text):
        _infer(work, image_path, save_dir)
    assert contents(work) == before


def test_results_of_an_earlier_run_may_be_inputs_but_not_outputs(work):
    """They are ours, so only the comparison with the inputs protects them."""
    _infer(work, work / "photos", work / "out")
    before = contents(work)
    with pytest.raises(OutputError, match="is an input"):
        _infer(work, work / "out" / "added_prediction" / "*.png", work / "out" / "added_prediction")
    assert contents(work) == before


def test_infer_does_not_write_over_its_video(work):
    folder = work / "added_prediction"
    folder.mkdir()
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (64, 32))
    for _ in range(3):
        writer.write(np.full((32, 64, 3), 90, np.uint8))
    writer.release()
    before = contents(work)
    with pytest.raises(OutputError, match="clip.mp4: would be overwritten, and is an input"):
        _infer(work, folder / "clip.mp4", work)
    assert contents(work) == before


@pytest.mark.parametrize("name", ["model.pdparams", "copy.pdparams"])
def test_convert_does_not_write_over_its_input(work, name):
    weights = work / "run" / "output" / "iter_2" / "model.pdparams"
    output = weights.with_name(name)
    if output != weights:
        output.symlink_to(weights)
    before = contents(work)
    words = ["--source", "paddleseg", "--input", str(weights), "--config", str(work / "run" / "config.yml")]
    with pytest.raises(OutputError, match=f"{name}: would be overwritten, and is an input"):
        convert.main([*words, "--output", str(output)])
    assert contents(work) == before


@pytest.mark.parametrize("name", ["model.safetensors", "deploy.safetensors", "model.pdparams"])
def test_convert_beside_an_export_leaves_it_whole(work, name):
    """Its report once was model.json, which is the graph."""
    before = contents(work / "export")
    config, weights = str(QUICKSTART), str(work / "weights.pdparams")
    paddle.save(build_model(config).state_dict(), weights)
    words = ["--source", "paddleseg", "--input", weights, "--config", config]
    assert convert.main([*words, "--output", str(work / "export" / name)]) == 0
    _kept(work / "export", before)


# ---------------------------------------------------------------------------------- files of other programs


_FOREIGN = {
    "infer": ("out/street_1.png", lambda work: _infer(work, work / "photos", work / "out")),
    "infer, overlay": ("out/added_prediction/street_1.png", lambda work: _infer(work, work / "photos", work / "out")),
    "predict": (
        "out/pseudo_color_prediction/street_1.png",
        lambda work: _predict(work, work / "photos", work / "out"),
    ),
    "predict, overlay": (
        "out/added_prediction/street_1.png",
        lambda work: _predict(work, work / "photos", work / "out"),
    ),
    "lists": ("data/train.txt", lambda work: _lists(work)),
}


def _lists(work):
    for split in ("train", "val"):
        for kind in ("images", "annotations"):
            folder = work / "data" / kind / split
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / ("a.jpg" if kind == "images" else "a.png")), np.zeros((8, 8), np.uint8))
    return create_list.main([str(work / "data"), "--separator", ","])


@pytest.mark.parametrize("program", _FOREIGN)
def test_files_of_others_stay_and_own_ones_are_written_again(work, program):
    name, run = _FOREIGN[program]
    path = work / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"an afternoon's work")
    before = contents(work)
    with pytest.raises(OutputError, match=f"{path.name}: exists and was not written by this program"):
        run(work)
    assert {name: contents(work)[name] for name in before} == before
    assert path.read_bytes() == b"an afternoon's work"
    path.unlink()
    assert run(work) == 0 and run(work) == 0
    path.write_bytes(path.read_bytes() + b"corrected by hand")
    with pytest.raises(OutputError, match="or was changed since"):
        run(work)


@pytest.mark.parametrize("name", ["model.json", "model.pdiparams", "deploy.yaml"])
def test_export_keeps_files_of_others(work, name):
    weights = work / "run" / "output" / "iter_2" / "model.pdparams"
    words = ["--config", str(work / "run" / "config.yml"), "--model_path", str(weights)]
    words += ["--input_shape", "1", "3", "24", "24", "--save_dir", str(work / "new")]
    (work / "new").mkdir()
    (work / "new" / name).write_bytes(b"theirs")
    before = contents(work)
    with pytest.raises(OutputError, match=f"{name}: exists and was not written"):
        export.main(words)
    assert contents(work) == before
    (work / "new" / name).unlink()
    (work / "new" / "notes.txt").write_text("theirs")
    for _ in range(2):
        assert export.main(words) == 0
    assert (work / "new" / "notes.txt").read_text() == "theirs"
    assert not list((work / "new").glob(".tmp-*"))


def test_the_report_keeps_files_of_others(work):
    tiny_training.train(work / "run", opts=["iters=2"], save_dir=str(work / "vdl"), do_eval=True, use_vdl=True)
    words = ["--run_dir", str(work / "vdl"), "--save_dir", str(work / "out")]
    (work / "out").mkdir()
    (work / "out" / "report.html").write_text("<p>theirs</p>")
    before = contents(work)
    with pytest.raises(OutputError, match="report.html: exists"):
        report.main(words)
    assert contents(work) == before
    (work / "out" / "report.html").unlink()
    assert report.main(words) == 0 and report.main(words) == 0


# ------------------------------------------------------------------------------------------------ training


def test_training_keeps_what_is_not_its_own(work):
    out = work / "fresh"
    for name in (".tmp-theirs/thesis.txt", ".old-iter_9/thesis.txt", "config.yml", ".lock", "notes/todo.txt"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(f"theirs: {name}")
    before = contents(out)
    for more in ([], ["--resume_model", "auto", "--iters", "6"]):
        assert _train(work, "--save_dir", str(out), *more) == 0
        _kept_names = {name: data for name, data in contents(out).items() if name in before}
        assert _kept_names == before
    assert "batch_size: 2" in (out / "resolved_config.yml").read_text()


@pytest.mark.parametrize("name", ["best_model", "iter_4", "iter_100"])
def test_training_refuses_checkpoints_of_others_before_its_first_step(work, name):
    out = work / "fresh"
    (out / name).mkdir(parents=True)
    (out / name / "model.pdparams").write_bytes(b"of PaddleSeg")
    before = contents(out)
    with pytest.raises(CheckpointError, match=f"{name}: exists and was not written by this program"):
        _train(work, "--save_dir", str(out))
    assert contents(out) == before


def test_training_keeps_other_files_in_its_checkpoints_and_does_not_rotate_others(work):
    out = work / "run" / "output"
    (out / "iter_2" / "notes.txt").write_text("good one")
    (out / "iter_1").mkdir()
    (out / "iter_1" / "model.pdparams").write_bytes(b"of PaddleSeg")
    words = ["--save_dir", str(out), "--resume_model", str(out / "iter_2"), "--keep_checkpoint_max", "1"]
    assert _train(work, *words) == 0
    assert (out / "iter_1" / "model.pdparams").read_bytes() == b"of PaddleSeg"
    assert os.listdir(out / "iter_2") == ["notes.txt"]
    assert (out / "iter_4" / "model.pdparams").is_file()


def test_a_refused_resume_changes_nothing(work, capsys):
    """The run of the folder keeps its configuration when another one is refused there."""
    out = work / "run" / "output"
    before = contents(out)
    for flags in (["--iters", "1"], ["--opts", "optimizer.type=AdamW"]):
        with pytest.raises(PaddleDnlError):
            _train(work, "--save_dir", str(out), "--resume_model", str(out / "iter_2"), *flags)
        assert contents(out) == before, flags


@pytest.mark.parametrize("name", [".paddle_dnl_lock", ".paddle_dnl_outputs", "scalars.csv"])
@pytest.mark.parametrize("kind", ["link", "file", "pipe"])
def test_training_does_not_write_into_what_has_a_name_of_its_records(work, name, kind):
    """The lock and the journal are added to without a check of their content, so a link may lead anywhere."""
    out = work / "fresh"
    out.mkdir()
    (work / "thesis.txt").write_text("an afternoon's work\n")
    if kind == "link":
        (out / name).symlink_to(work / "thesis.txt")
    elif kind == "file":
        os.link(work / "thesis.txt", out / name)
    else:
        os.mkfifo(out / name)
    if (name, kind) == (".paddle_dnl_outputs", "file"):  # lines that are no entry are passed over
        assert _train(work, "--save_dir", str(out)) == 0
        assert (work / "thesis.txt").read_text().startswith("an afternoon's work\n")
        return
    with pytest.raises((PaddleDnlError, OSError), match=name):
        _train(work, "--save_dir", str(out))
    assert (work / "thesis.txt").read_text() == "an afternoon's work\n"
    assert not list(out.glob("iter_*"))


def test_a_run_that_reads_its_own_config_does_not_change_it(work):
    out = work / "run" / "output"
    config = out / "config.yml"
    before = config.read_bytes()
    words = ["--config", str(config), "--save_dir", str(out), "--save_interval", "2", "--resume_model", "auto"]
    assert train_program.main([*words, "--iters", "4", "--learning_rate", "0.01"]) == 0
    assert config.read_bytes() == before
    assert "learning_rate: 0.01" in (out / "resolved_config.yml").read_text()


# ------------------------------------------------------------------------------ data that we wrote is data all the same


@pytest.fixture
def own_data(tmp_path):
    """A dataset whose every file is ours, so that only the comparison with what is read protects it."""
    source, data = tmp_path / "source", tmp_path / "data"
    for number in range(6):
        label = np.arange(64, dtype=np.uint8).reshape(8, 8) // 16 % 2 + number % 2
        for folder, values in (("images", label * 90), ("labels", label)):
            (source / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(source / folder / f"{number}.png"), values)
    assert import_data.main([str(source), "--to", str(data), "--format", "masks", "--num_workers", "1"]) == 0
    assert split_data.main([str(data)]) == 0
    assert configs.main(["new", "--data", str(data), "--out", str(data / "own.yml")]) == 0
    return data


@pytest.mark.parametrize("name", ["images/0.png", "labels/0.png", "train.txt"])
def test_a_page_does_not_replace_the_data_that_it_shows(own_data, name):
    before = contents(own_data)
    with pytest.raises(OutputError, match="would be overwritten, and is an input"):
        preview_data.main([str(own_data / "own.yml"), "--out", str(own_data / name), "--samples", "1", "--times", "1"])
    assert contents(own_data) == before


def test_a_configuration_does_not_replace_a_list_of_its_data(own_data):
    os.link(own_data / "train.txt", own_data / "other.yml")
    before = contents(own_data)
    with pytest.raises(OutputError, match="other.yml: would be overwritten, and is an input"):
        configs.main(["new", "--data", str(own_data), "--out", str(own_data / "other.yml")])
    assert contents(own_data) == before


def test_a_description_does_not_replace_the_data(own_data):
    (own_data / "train.txt").write_text("describe.html\tlabels/0.png\n")
    os.link(own_data / "images" / "0.png", own_data / "describe.html")
    before = contents(own_data)
    with pytest.raises(OutputError, match="describe.html: would be overwritten, and is an input"):
        describe_data.main([str(own_data), "--save_dir", str(own_data), "--num_workers", "1"])
    assert contents(own_data) == before


def test_an_evaluation_does_not_replace_the_labels_that_it_reads(work):
    """Predictions of an earlier evaluation as labels, as in self-training."""
    weights = work / "run" / "output" / "iter_2" / "model.pdparams"
    words = ["--config", str(work / "run" / "config.yml"), "--model_path", str(weights)]
    words += ["--save_dir", str(work / "scores"), "--save_pred"]
    assert val.main(words) == 0
    images = sorted((work / "run" / "data").glob("image_*.png"))[:3]
    lines = [f"{image} {work / 'scores' / 'pred' / image.name}\n" for image in images]
    (work / "pseudo.txt").write_text("".join(lines))
    before = contents(work)
    with pytest.raises(OutputError, match="pred/image_0.png: would be overwritten, and is an input"):
        val.main([*words, "--opts", f"val_dataset.val_path={work / 'pseudo.txt'}"])
    assert contents(work) == before


@pytest.mark.parametrize("name", ["val.txt", "train.txt"])
def test_lists_are_all_compared_before_the_first_is_written(own_data, name):
    for split in ("train", "val"):
        (own_data / f"{split}.txt").unlink()
    (own_data / name).write_text("by hand")
    before = contents(own_data)
    with pytest.raises(OutputError, match=f"{name}: exists and was not written"):
        split_data.main([str(own_data)])
    assert contents(own_data) == before
