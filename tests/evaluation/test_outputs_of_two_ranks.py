# SPDX-License-Identifier: Apache-2.0
"""val.py on two ranks writes the files of one process: each once, all pictures, the same scores."""

import csv
import json
import zipfile
from pathlib import Path

import paddle_dnl  # noqa: F401
from paddle_dnl.models.build import build_model

import cv2
import numpy as np
import paddle
import pytest
from PIL import Image
from started_programs import run_program

COUNT = 5  # odd: one rank has a picture less, and the sampler repeats one
CONFIG = """
batch_size: 2
iters: 1
model: {{type: DNLNet, dialect: mmseg, backbone: {{type: ResNet18, output_stride: 16, pretrained: null}}}}
train_dataset: &data
  type: Dataset
  dataset_root: {root}
  train_path: {root}/list.txt
  num_classes: 19
  mode: train
  transforms: [{{type: Normalize}}]
val_dataset: {{<<: *data, train_path: null, val_path: {root}/list.txt, mode: val}}
optimizer: {{type: SGD}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.1}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1, 0.4]}}
"""


def _val(folder: Path, ranks: int, *words: str) -> Path:
    out = folder / f"out{ranks}"
    flags = ["--config", str(folder / "c.yml"), "--model_path", str(folder / "w.pdparams"), "--save_dir", str(out)]
    run_program("val.py", folder, ranks, *flags, "--device", "cpu", "--save_pred", *words)
    return out


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_two_ranks_write_what_one_writes(tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for i in range(COUNT):
        names = f"aachen_{i}_leftImg8bit.png", f"l{i}.png"
        cv2.imwrite(str(tmp_path / names[0]), rng.integers(0, 256, (40, 48, 3)).astype(np.uint8))
        cv2.imwrite(str(tmp_path / names[1]), np.kron(rng.integers(0, 19, (5, 6)), np.ones((8, 8))).astype(np.uint8))
        lines.append(" ".join(names))
    (tmp_path / "list.txt").write_text("\n".join(lines))
    (tmp_path / "c.yml").write_text(CONFIG.format(root=tmp_path))
    paddle.seed(0)
    paddle.save(build_model(str(tmp_path / "c.yml")).state_dict(), str(tmp_path / "w.pdparams"))
    words = ("--save_prob", "uint8", "--cityscapes_submission")
    one, two = (_files(_val(tmp_path, ranks, *words)) for ranks in (1, 2))
    assert set(one) == set(two)
    assert {f"pred/aachen_{i}_leftImg8bit.png" for i in range(COUNT)} <= set(two)
    for name in set(one) - {"scores.json", "cityscapes_submission.zip", "images.csv", "confusion.png"}:
        if name.endswith(("/journal", ".json")) or Path(name).name.startswith("."):
            continue  # the record of our own files holds times
        assert one[name] == two[name], name
    scores = [json.loads(files["scores.json"]) for files in (one, two)]
    errors = [found.pop("expected_calibration_error") for found in scores]
    for found in scores:
        del found["seconds"]
    assert scores[0]["images"] == COUNT
    assert errors[0] == pytest.approx(errors[1], rel=1e-9)  # sums of floats in another order
    assert json.dumps(scores[0]) == json.dumps(scores[1])
    rows = [list(csv.DictReader(files["images.csv"].decode().splitlines())) for files in (one, two)]
    assert len(rows[1]) == COUNT and sorted(map(str, rows[0])) == sorted(map(str, rows[1]))
    archives = [zipfile.ZipFile(tmp_path / f"out{ranks}" / "cityscapes_submission.zip") for ranks in (1, 2)]
    contents = [{name: archive.read(name) for name in archive.namelist()} for archive in archives]
    assert contents[0] == contents[1] and len(archives[1].namelist()) == COUNT


def test_two_ranks_score_masks_as_one_does(tmp_path):
    """`--use_multilabel`: counts are summed over ranks, and each image counts once."""
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        cv2.imwrite(str(tmp_path / f"{i}.png"), rng.integers(0, 256, (40, 48, 3)).astype(np.uint8))
        masks = np.kron(rng.integers(0, 2, (5, 6 * 19)), np.ones((8, 8))).astype(np.uint8)
        masks[:, :3] = 255
        cv2.imwrite(str(tmp_path / f"l{i}.png"), masks)
    (tmp_path / "list.txt").write_text("\n".join(f"{i}.png l{i}.png" for i in range(COUNT)))
    text = CONFIG.format(root=tmp_path).replace("CrossEntropyLoss", "BCELoss")
    (tmp_path / "c.yml").write_text(text)
    paddle.seed(0)
    paddle.save(build_model(str(tmp_path / "c.yml")).state_dict(), str(tmp_path / "w.pdparams"))
    one, two = (_files(_val(tmp_path, ranks, "--use_multilabel")) for ranks in (1, 2))
    names = {"scores.json", "classes.csv", "images.csv", *(f"pred/{i}.png" for i in range(COUNT))}
    assert names <= set(two) and set(one) == set(two) and "confusion.csv" not in two
    for name in names - {"scores.json", "images.csv"}:
        assert one[name] == two[name], name
    scores = [json.loads(files["scores.json"]) for files in (one, two)]
    for found in scores:
        del found["seconds"]
    assert scores[0]["images"] == COUNT and json.dumps(scores[0]) == json.dumps(scores[1])
    rows = [sorted(map(str, csv.DictReader(files["images.csv"].decode().splitlines()))) for files in (one, two)]
    assert len(rows[1]) == COUNT and rows[0] == rows[1]
    # The scores are those of the written masks, by plain counting.
    found, truth = (
        np.stack([np.asarray(Image.open(tmp_path / name.format(i))) for i in range(COUNT)]).reshape(COUNT, 40, 19, 48)
        for name in ("out2/pred/{}.png", "l{}.png")
    )
    both, either = (found == 1) & (truth == 1), ((found == 1) & (truth != 255)) | (truth == 1)
    iou = both.sum((0, 1, 3)) / either.sum((0, 1, 3))
    assert scores[1]["miou"] == pytest.approx(iou.mean(), rel=1e-9)
