# SPDX-License-Identifier: Apache-2.0
"""From labelme files to a predictor with documented commands alone: the worked example of docs/own_data.md."""

import json
import re
from pathlib import Path

import paddle_dnl
from paddle_dnl.cli import configs, export
from paddle_dnl.cli.data import describe_data, import_data, preview_data, split_data
from paddle_dnl.config import Config
from paddle_dnl.config.new_config import MODELS, choose_batch
from paddle_dnl.data.prepare.describe import facts
from paddle_dnl.data.statistics import class_weights, suggest_crop
from paddle_dnl.errors import DataError, UsageError

import annotated
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    annotated.write_labelme(root / "labelme", 24)
    import_data.main([str(root / "labelme"), "--to", str(root / "data"), "--format", "labelme", "--num_workers", "1"])
    split_data.main([str(root / "data"), "--val", "0.25"])
    return root / "data"


def test_describe(data, tmp_path, capsys):
    assert describe_data.main([str(data), "--save_dir", str(tmp_path)]) == 0
    said, page = capsys.readouterr().out, (tmp_path / "describe.html").read_text()
    found = json.loads((tmp_path / "describe.json").read_text())
    assert "train: 18 images, all 64x48, 18 RGB" in said and "val: 6 images" in said
    labels = [np.array(data_label) for data_label in _labels(data, "train")]
    for i, row in enumerate(found["classes"]):
        assert row["pixels"]["train"] == sum(int((label == i).sum()) for label in labels)
        assert row["images"]["train"] == sum(bool((label == i).any()) for label in labels)
    assert [row["name"] for row in found["classes"]] == list(annotated.NAMES) and not found["duplicates"]
    assert page.count("<img") == 12 and not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", page)
    lines = (data / "train.txt").read_text().splitlines()
    (data / "test.txt").write_text(lines[0] + "\n")
    try:
        describe_data.main([str(data)])
    finally:
        (data / "test.txt").unlink()
    assert "is in train too" in capsys.readouterr().out


def test_sizes_of_pictures_in_both_orientations():
    sizes = [{"width": 96, "height": 72, "images": 3}, {"width": 72, "height": 96, "images": 1}]
    split = {"images": 4, "ignored_share": 0, "absent": [], "rare": [], "sizes": sizes, "channels": {"RGB": 4}}
    found = {
        "splits": {"train": split},
        "duplicates": [],
        "suggested_class_weights": None,
        "suggested_crop_size": [64, 64],
    }
    assert facts(found)[0][1] == "4 images, 2 sizes, widths 72 to 96, heights 72 to 96, most often 96x72 (3), 4 RGB"


def _labels(data, split):
    return [Image.open(data / line.split("\t")[1]) for line in (data / f"{split}.txt").read_text().splitlines()]


def test_suggestions():
    assert suggest_crop({(640, 480): 3, (100, 90): 1}) == [640, 480]
    assert suggest_crop({(4000, 3000): 1}) == [768, 768] and suggest_crop({(70, 40): 1}) == [64, 64]

    class Counted:
        pixels, images_with, images, labelled = [900, 90, 10, 0], [10, 10, 5, 0], 10, 1000

    # Frequencies: 0.9, 0.09, 0.02; their median over each, within [0.1, 10].
    assert class_weights(Counted) == [0.1, 1.0, 4.5, 1.0]
    assert choose_batch(10**10, [512, 512], 6000, 100) == 4 and choose_batch(None, [512, 512], 6000, 3) == 3


@pytest.mark.parametrize("model", MODELS)
def test_every_offered_model_reads_back(data, tmp_path, model):
    assert configs.main(["new", "--data", str(data), "--model", model, "--out", str(tmp_path / "my.yml")]) == 0
    config = Config(str(tmp_path / "my.yml"))
    assert config.dic["val_dataset"]["class_names"] == list(annotated.NAMES) and config.model_cfg["num_classes"] == 3
    assert (tmp_path / "my.yml").read_text().count("num_classes") == 2, "once for each dataset, never for the model"
    with pytest.raises(UsageError, match="--model dnlnet: there is none"):
        configs.main(["new", "--data", str(data), "--model", "dnlnet", "--out", str(tmp_path / "b.yml")])
    with pytest.raises(UsageError, match="--data .*none: no such folder"):
        configs.main(["new", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "b.yml")])


def test_worked_example(data, tmp_path):
    config = tmp_path / "my.yml"
    configs.main(["new", "--data", str(data), "--model", "dnlnet_resnet18", "--out", str(config)])
    assert (
        preview_data.main([str(config), "--out", str(tmp_path / "preview.html"), "--samples", "2", "--times", "2"]) == 0
    )
    assert (tmp_path / "preview.html").read_text().count("<img") == 8
    progress = paddle_dnl.train(
        str(config), save_dir=str(tmp_path / "run"), iters=10, batch_size=6, do_eval=True, save_interval=10, seed=0
    )
    weights = str(tmp_path / "run" / "best_model" / "model.pdparams")
    result = paddle_dnl.evaluate(str(config), weights)
    assert result.metrics.miou == pytest.approx(progress.best_miou) and result.metrics.miou > 0.05
    folder = str(tmp_path / "export")
    export.main(
        ["--config", str(config), "--model_path", weights, "--save_dir", folder, "--input_shape", "1", "3", "48", "64"]
    )
    predictor = paddle_dnl.Predictor(folder)
    assert predictor.classes.names == annotated.NAMES
    label = predictor.predict([annotated.picture(3)])[0]
    assert (label == annotated.truth(3)).mean() > 0.3


@pytest.mark.parametrize(
    "dtype, top, wanted", [("uint16", 4000, [0, 4095]), ("float32", 0.9, [0, 1]), ("uint8", 200, None)]
)
def test_five_bands_from_import_to_a_first_step(tmp_path, dtype, top, wanted):
    """The documented commands alone find the number of bands and the scale."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "source" / folder).mkdir(parents=True)
    for i in range(6):
        label = np.kron(rng.integers(0, 2, (4, 4)), np.ones((16, 16), int)).astype(np.uint8)
        image = (rng.uniform(0, top, (64, 64, 5)) * (0.5 + 0.5 * label[..., None])).astype(dtype)
        np.save(tmp_path / "source" / "images" / f"a{i}.npy", np.moveaxis(image, -1, 0) if i % 2 else image)
        Image.fromarray(label).save(tmp_path / "source" / "masks" / f"a{i}.png")
    root, config = tmp_path / "data", tmp_path / "my.yml"
    words = [str(tmp_path / "source"), "--to", str(root), "--format", "masks", "--classes", "ground", "thing"]
    assert import_data.main([*words, "--num_workers", "1"]) == 0
    assert split_data.main([str(root), "--val", "0.34"]) == 0
    assert configs.main(["new", "--data", str(root), "--model", "dnlnet_resnet18", "--out", str(config)]) == 0
    section = Config(str(config)).train_dataset_cfg
    assert section["img_channels"] == 5 and section.get("value_range") == wanted
    progress = paddle_dnl.train(str(config), save_dir=str(tmp_path / "run"), iters=1, batch_size=2, do_eval=True)
    assert progress.iteration == 1


@pytest.mark.parametrize("more", [[], ["--classes", "background", "disc", "box"]], ids=["new", "again"])
def test_nothing_goes_on_from_an_import_that_failed(tmp_path, more):
    source, root = annotated.write_labelme(tmp_path / "source", 3), tmp_path / "data"
    words = [str(source), "--to", str(root), "--format", "labelme", "--num_workers", "1"]
    config = ["new", "--data", str(root), "--out", str(tmp_path / "my.yml")]
    if more:
        import_data.main(words)
        split_data.main([str(root)])
    good = (source / "scene_01.json").read_text()
    (source / "scene_01.json").write_text("{")
    with pytest.raises(DataError, match="1 of 3 samples cannot be imported"):
        import_data.main([*words, *more])
    for program, flags in ((split_data, [str(root)]), (describe_data, [str(root)]), (configs, config)):
        with pytest.raises(
            DataError, match="data: the import from .*source is incomplete; run `paddle-dnl data import`"
        ):
            program.main(flags)
    (source / "scene_01.json").write_text(good)
    import_data.main([*words, *more])
    split_data.main([str(root)])
    describe_data.main([str(root)])


def _written(root, images):
    """A folder with these pictures (name -> array), one class, and the same list for training and validation."""
    lines = []
    for name, image in images.items():
        (root / "images").mkdir(parents=True, exist_ok=True)
        path = root / "images" / name
        np.save(path, image) if name.endswith(".npy") else Image.fromarray(image).save(path)
        Image.fromarray(np.eye(32, dtype=np.uint8)).save(root / f"{name}_mask.png")
        lines.append(f"images/{name}\t{name}_mask.png\n")
    for split in ("train", "val"):
        (root / f"{split}.txt").write_text("".join(lines))
    (root / "classes.txt").write_text("ground\nthing\n")
    return root


def test_one_value_range_is_not_guessed_for_pictures_of_two_depths(tmp_path, caplog):
    ramp = np.arange(1024).reshape(32, 32)
    eight, twelve = (ramp // 4).astype(np.uint8), (ramp * 3 + 900).astype(np.uint16)
    mixed = {f"a{i}.png": eight for i in range(9)} | {"b.png": twelve}
    words = ["new", "--model", "dnlnet_resnet18", "--out", str(tmp_path / "my.yml"), "--data"]
    for images, message in (
        (mixed, "a0.png has 8 bits, .*b.png holds uint16 up to 3969; one value_range"),
        ({"a.npy": eight, "b.npy": ramp / 1023}, "a.npy has 8 bits, .*b.npy holds float64 up to 1;"),
        (
            {"a.npy": ramp / 1023, "b.npy": np.where(ramp > 9, ramp, np.nan)},
            "b.npy: holds NaN or infinity at 10 places",
        ),
    ):
        with pytest.raises(DataError, match=message):
            configs.main([*words, str(_written(tmp_path / f"d{len(message)}", images))])
        assert not (tmp_path / "my.yml").exists()
    root = _written(tmp_path / "same scale", {"a.npy": eight, "b.npy": ramp / 5})
    configs.main([*words, str(root)])
    assert Config(str(tmp_path / "my.yml")).train_dataset_cfg["value_range"] == [0, 255]
    describe_data.main([str(_written(tmp_path / "mixed", mixed))])
    assert re.search("train: pictures of different depths: .*a0.png has 8 bits, .*b.png more", caplog.text)


def test_300_classes_from_import_to_two_steps(tmp_path, capsys):
    """255 is a class then; the importer's other number for ignored pixels goes with the data to every place."""
    source, root, config = tmp_path / "source", tmp_path / "data", tmp_path / "my.yml"
    for folder in ("images", "masks"):
        (source / folder).mkdir(parents=True)
    labels = []
    for seed in range(6):
        label = annotated.truth(seed).astype(np.uint16) + 254
        label[:9, :9], label[-4:, -4:] = 65535, 299
        labels.append(label)
        Image.fromarray(annotated.picture(seed)).save(source / "images" / f"{seed}.png")
        Image.fromarray(label).save(source / "masks" / f"{seed}.png")
    assert import_data.main([str(source), "--to", str(root), "--format", "masks", "--num_workers", "1"]) == 0
    assert split_data.main([str(root), "--val", "0.34"]) == 0
    assert describe_data.main([str(root), "--save_dir", str(tmp_path / "described")]) == 0
    rows = json.loads((tmp_path / "described" / "describe.json").read_text())["classes"]
    held = np.bincount(np.concatenate(labels).ravel())
    assert len(rows) == 300 and all(sum(row["pixels"].values()) == held[i] for i, row in enumerate(rows))
    assert configs.main(["new", "--data", str(root), "--model", "dnlnet_resnet18", "--out", str(config)]) == 0
    assert config.read_text().count("ignore_index: 65535") == 2
    # A configuration by hand need not say it: the number is found beside the lists, as the names are.
    config.write_text(config.read_text().replace("ignore_index: 65535", ""))
    resolved = Config(str(config))
    assert resolved.train_dataset_cfg["ignore_index"] == resolved.val_dataset_cfg["ignore_index"] == 65535
    assert resolved.loss_cfg["types"][0]["ignore_index"] == 65535
    crop = next(step for step in resolved.train_dataset_cfg["transforms"] if step["type"] == "RandomPaddingCrop")
    assert crop["label_padding_value"] == 65535
    capsys.readouterr()
    progress = paddle_dnl.train(str(config), save_dir=str(tmp_path / "run"), iters=2, batch_size=2, do_eval=True)
    share = 100 * 6 * 81 / sum(label.size for label in labels)
    assert progress.iteration == 2 and f"{share:.1f} % of the pixels ignored" in capsys.readouterr().out
    result = paddle_dnl.evaluate(str(config), str(tmp_path / "run" / "iter_2" / "model.pdparams"))
    val = [Path(line.split("\t")[1]).stem for line in (root / "val.txt").read_text().splitlines()]
    counted = np.bincount(np.concatenate([labels[int(name)] for name in val]).ravel(), minlength=300)[:300]
    assert result.confusion.sum(1).tolist() == counted.tolist()
