# SPDX-License-Identifier: Apache-2.0
"""Splits: pairs by name, every class in every part, groups in one, the same for the same seed."""

from paddle_dnl.cli.data import split_data
from paddle_dnl.data.prepare.split import assign
from paddle_dnl.errors import DataError, OutputError, UsageError

import numpy as np
import pytest
from PIL import Image

SHARES = {"train": 0.7, "val": 0.2, "test": 0.1}


def test_rare_classes_are_in_every_part():
    rng = np.random.default_rng(0)
    presence = rng.uniform(size=(200, 5)) < (0.9, 0.5, 0.2, 0.05, 0.05)
    presence[:, 4] = False
    presence[rng.permutation(200)[:10], 4] = True
    splits = np.array(assign(presence, [str(i) for i in range(200)], SHARES, 0))
    for split, share in SHARES.items():
        inside = presence[splits == split]
        assert abs(len(inside) - 200 * share) <= 2
        assert (np.abs(inside.sum(0) - presence.sum(0) * share) <= 1.5).all(), (split, inside.sum(0))
    assert assign(presence, [str(i) for i in range(200)], SHARES, 0) == splits.tolist()
    assert assign(presence, [str(i) for i in range(200)], SHARES, 1) != splits.tolist()


def test_many_samples_take_no_time():
    presence = np.random.default_rng(0).uniform(size=(20_000, 30)) < 0.2
    assert len(assign(presence, [str(i) for i in range(20_000)], SHARES, 0)) == 20_000


def _data(root):
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for video in range(5):
        for frame in range(4):
            ending = (".JPG", ".jpeg", ".png")[frame % 3]
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / f"images/v{video} f{frame}{ending}")
            label = np.full((4, 4), frame % 2, np.uint8)
            label[0] = 2 if video == frame else 0
            Image.fromarray(label).save(root / f"labels/v{video} f{frame}.png")
    (root / "images/.DS_Store").write_bytes(b"x")
    (root / "images/._v0 f0.JPG").write_bytes(b"x")


def test_lists_by_name_and_group(tmp_path):
    _data(tmp_path)
    assert split_data.main([str(tmp_path), "--val", "0.2", "--test", "0.2", "--group-by", r"^(v\d)"]) == 0
    videos, count = [], 0
    for split in ("train", "val", "test"):
        lines = (tmp_path / f"{split}.txt").read_text().splitlines()
        count += len(lines)
        for line in lines:
            image, label = line.split("\t")
            assert (tmp_path / image).stem == (tmp_path / label).stem and (tmp_path / label).is_file()
        videos.append({line.split("/")[1][:2] for line in lines})
    assert count == 20 and not videos[0] & videos[1] and not videos[1] & videos[2] and all(videos)
    from paddle_dnl.data.datasets import Dataset

    dataset = Dataset("val", str(tmp_path), [], 3, val_path=str(tmp_path / "val.txt"))
    assert dataset[0]["label"].shape == (1, 4, 4)


def test_what_cannot_be_split(tmp_path):
    _data(tmp_path)
    (tmp_path / "labels/v0 f0.png").unlink()
    with pytest.raises(DataError, match="1 of 20 labels are missing, first that of .*v0 f0.JPG"):
        split_data.main([str(tmp_path)])
    (tmp_path / "images/v0 f0.JPG").unlink()
    for arguments, message in (
        (["--val", "0.6", "--test", "0.4"], "leave something to train on"),
        (["--group-by", "("], "is no regular expression"),
        (["--group-by", "w"], "finds nothing in 'v0 f1'"),
        (["--group-by", "v"], "1 groups cannot be dealt out to 2 splits"),
    ):
        with pytest.raises(UsageError, match=message):
            split_data.main([str(tmp_path), *arguments])
    assert not list(tmp_path.glob("*.txt"))


def test_a_list_of_an_earlier_split_does_not_stay_beside_the_new_ones(tmp_path, caplog):
    _data(tmp_path)
    split_data.main([str(tmp_path), "--test", "0.2"])
    lists = {path: path.read_text() for path in tmp_path.glob("*.txt")}
    with pytest.raises(
        OutputError, match=r"test.txt: lists \d pictures, such as images/v.*, that are now in .*--test again"
    ):
        split_data.main([str(tmp_path), "--seed", "3"])
    with pytest.raises(OutputError, match="val.txt: lists .* give --val again"):
        split_data.main([str(tmp_path), "--val", "0", "--test", "0.2", "--seed", "3"])
    assert {path: path.read_text() for path in tmp_path.glob("*.txt")} == lists
    split_data.main([str(tmp_path), "--test", "0.2", "--seed", "3"])
    (tmp_path / "test.txt").unlink()
    (tmp_path / "test.txt").write_text("images/v0 f0.JPG\tlabels/v0 f0.png\n")
    split_data.main([str(tmp_path)])
    assert "test.txt: lists 1 pictures, such as images/v0 f0.JPG, that are now in" in caplog.text
    assert (tmp_path / "test.txt").read_text() == "images/v0 f0.JPG\tlabels/v0 f0.png\n"
    caplog.clear()
    (tmp_path / "test.txt").write_text("elsewhere/a.jpg elsewhere/a.png\n")
    split_data.main([str(tmp_path)])
    assert "test.txt" not in caplog.text
