# SPDX-License-Identifier: Apache-2.0
"""Datasets: pairs by name, both separators, odd files, and errors that name the file."""

import os

from paddle_dnl.data.checking.check import check_dataset
from paddle_dnl.data.datasets import ADE20K, Cityscapes, Dataset
from paddle_dnl.data.images.image_files import find_images
from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.data.images.list_files import read_list
from paddle_dnl.data.images.reading import read_label
from paddle_dnl.data.pascal import PascalContext, PascalContext59, PascalVOC
from paddle_dnl.data.prepare.file_lists import split_folders, write_lists
from paddle_dnl.errors import DataError

import cv2
import numpy as np
import paddle
import pytest
from paddle.io.dataloader.collate import default_collate_fn
from PIL import Image

RNG = np.random.default_rng(0)


def _image(path, size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
    return path


def _label(path, values=(0, 1, 2, 255), size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    label = RNG.choice(values, size).astype(np.uint8)
    label.flat[: len(values)] = values
    Image.fromarray(label).save(path)
    return label


def _dataset(root, lines, mode="train", **settings):
    (root / f"{mode}.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    settings = {"num_classes": 3, f"{mode}_path": str(root / f"{mode}.txt"), **settings}
    return Dataset(mode, str(root), [], **settings)


LISTS = {
    "blank": (b"a.png b.png\n", " "),
    "comma": (b"a.png,b.png\n", ","),
    "comma in a list said to be blank": (b"a.png,b.png\n", " "),
    "blank in a list said to be comma": (b"a.png b.png\n", ","),
    "tab": (b"a.png\tb.png\n", " "),
    "windows": (b"\xef\xbb\xbfa.png b.png\r\n\r\n", " "),
    "no last newline": (b"\n\n  a.png   \xc2\xa0b.png".replace(b"\xc2\xa0", b""), ","),
}


@pytest.mark.parametrize("name", [n for n in LISTS if n != "no last newline"])
def test_lists_of_all_kinds(tmp_path, name):
    content, separator = LISTS[name]
    _image(tmp_path / "a.png")
    label = _label(tmp_path / "b.png")
    dataset = _dataset(tmp_path, content, separator=separator)
    assert len(dataset) == 1
    np.testing.assert_array_equal(dataset[0]["label"], label)


def test_blanks_in_names(tmp_path):
    _image(tmp_path / "my street/a 1.png")
    _label(tmp_path / "my labels/a 1.png")
    dataset = _dataset(tmp_path, "my street/a 1.png,my labels/a 1.png\n", separator=" ")
    assert dataset[0]["img"].shape == (3, 6, 8)
    with pytest.raises(DataError, match="line 1.*use a comma"):
        _dataset(tmp_path, "my street/a 1.png my labels/a 1.png\n")


def test_names_in_other_encodings(tmp_path):
    name = "街道.png".encode("gbk")
    os.rename(_image(tmp_path / "a.png"), os.path.join(os.fsencode(tmp_path), name))
    _label(tmp_path / "b.png")
    dataset = _dataset(tmp_path, name + b" b.png\n")
    assert dataset[0]["img"].shape == (3, 6, 8)


def test_bad_lists(tmp_path):
    with pytest.raises(DataError, match="lists no files"):
        _dataset(tmp_path, b"\n \n")
    with pytest.raises(DataError, match="train.txt, line 2: expected"):
        _dataset(tmp_path, b"a.png b.png\nonly.png\n")
    with pytest.raises(DataError, match="none.txt: cannot be read"):
        read_list(tmp_path / "none.txt", tmp_path)
    with pytest.raises(DataError, match="separator between image and label must not be empty"):
        read_list(tmp_path / "train.txt", tmp_path, separator="")
    with pytest.raises(DataError, match="not a folder"):
        Dataset("train", str(tmp_path / "no"), [], 3, train_path="x")
    with pytest.raises(DataError, match="needs val_path"):
        Dataset("val", str(tmp_path), [], 3)
    with pytest.raises(DataError, match="mode must be one of train, val, test"):
        Dataset("trian", str(tmp_path), [], 3)


def test_one_column_for_test_mode(tmp_path):
    _image(tmp_path / "a b.png")
    dataset = _dataset(tmp_path, "a b.png\n", mode="test")
    assert "label" not in dataset[0] and len(dataset) == 1


@pytest.mark.paddleseg
def test_validation_keeps_labels_and_notes_sizes(tmp_path):
    from paddleseg.transforms import Resize

    _image(tmp_path / "a.png")
    label = _label(tmp_path / "b.png")
    (tmp_path / "l.txt").write_text("a.png b.png")
    dataset = Dataset("val", str(tmp_path), [Resize([16, 12])], 3, val_path=str(tmp_path / "l.txt"))
    sample = dataset[0]
    assert sample["img"].shape == (3, 12, 16)
    np.testing.assert_array_equal(sample["label"], label[None])
    assert [(name, tuple(size)) for name, size in sample["trans_info"]] == [("resize", (6, 8))]


def _cityscapes(root, stems=("a_000000_000019", "a_000001_000019", "a_000002_000019")):
    for i, stem in enumerate(stems):
        _image(root / f"leftImg8bit/train/a/{stem}_leftImg8bit.png")
        Image.fromarray(np.full((6, 8), i, np.uint8)).save(
            _made(root / f"gtFine/train/a/{stem}_gtFine_labelTrainIds.png")
        )


def _made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_cityscapes_pairs_by_name(tmp_path):
    _cityscapes(tmp_path)
    dataset = Cityscapes([], str(tmp_path), "train")
    assert [int(dataset[i]["label"][0, 0]) for i in range(3)] == [0, 1, 2]
    (tmp_path / "gtFine/train/a/a_000001_000019_gtFine_labelTrainIds.png").unlink()
    with pytest.raises(DataError, match="1 of 3 train labels.*a_000001.*convert-cityscapes --cityscapes_path"):
        Cityscapes([], str(tmp_path), "train")
    with pytest.raises(DataError, match="no images"):
        Cityscapes([], str(tmp_path), "val")


def test_ade20k_drops_the_zero_label(tmp_path):
    _image(tmp_path / "images/training/x.jpg")
    stored = _label(tmp_path / "annotations/training/x.png", (0, 1, 150))
    sample = ADE20K([], str(tmp_path), "train")[0]
    np.testing.assert_array_equal(sample["label"], np.where(stored == 0, 255, stored.astype(int) - 1))
    (tmp_path / "annotations/training/x.png").unlink()
    with pytest.raises(DataError, match="1 of 1 train labels"):
        ADE20K([], str(tmp_path), "train")


def test_pascal_voc(tmp_path):
    root = tmp_path / "VOC2012"
    for name, folder in (("a", "SegmentationClass"), ("b", "SegmentationClassAug")):
        _image(root / f"JPEGImages/{name}.jpg")
        _label(root / f"{folder}/{name}.png", (0, 20, 255))
    sets = root / "ImageSets/Segmentation"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("a\n")
    assert len(PascalVOC([], str(tmp_path), "train")) == 1
    with pytest.raises(DataError, match="aug.txt.*voc-augment"):
        PascalVOC([], str(tmp_path), "trainaug")
    (sets / "aug.txt").write_text("b\n")
    assert len(PascalVOC([], str(tmp_path), "trainaug")) == 2
    with pytest.raises(DataError, match="VOCdevkit"):
        PascalVOC([], str(tmp_path / "elsewhere"))


def test_pascal_context_with_and_without_background(tmp_path):
    _image(tmp_path / "JPEGImages/a.jpg")
    stored = _label(tmp_path / "Context/a.png", (0, 1, 59, 255))
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train_context.txt").write_text("a")
    np.testing.assert_array_equal(PascalContext([], str(tmp_path))[0]["label"], stored)
    without = np.where((stored == 0) | (stored == 255), 255, stored.astype(int) - 1)
    np.testing.assert_array_equal(PascalContext59([], str(tmp_path))[0]["label"], without)


# ------------------------------------------------------------------------------------ odd and broken files


def test_images_of_all_kinds(tmp_path):
    rgb = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    cases = {
        "grey.png": Image.fromarray(rgb[..., 0]),
        "palette.png": Image.fromarray(rgb).quantize(16),
        "alpha.png": Image.fromarray(np.dstack([rgb, rgb[..., :1]])),
        "cmyk.jpg": Image.fromarray(rgb).convert("CMYK"),
        "deep.png": Image.fromarray(rgb[..., 0].astype(np.uint16) * 257),
        "wide.bmp": Image.fromarray(rgb),
    }
    for name, picture in cases.items():
        picture.save(tmp_path / name)
        found = ImageFormat().read(tmp_path / name)
        assert found.shape == (6, 8, 3) and found.dtype == np.uint8, name
    np.testing.assert_array_equal(ImageFormat().read(tmp_path / "wide.bmp"), rgb[..., ::-1])
    turned = Image.fromarray(rgb)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert ImageFormat().read(tmp_path / "turned.jpg").shape == (8, 6, 3)


@pytest.mark.parametrize("content, message", [
    (b"", "is empty"), (b"hello", "is not a readable"), (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "is not a readable"),
])  # fmt: skip
def test_broken_files_are_named(tmp_path, content, message):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    for read in (ImageFormat().read, read_label):
        with pytest.raises(DataError, match=f"broken.png.*{message}"):
            read(path)
    with pytest.raises(DataError, match="none.png: cannot be read"):
        ImageFormat().read(tmp_path / "none.png")


def test_truncated_label_is_named(tmp_path):
    _label(tmp_path / "b.png", size=(60, 80))
    content = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="b.png: is not a readable label"):
        read_label(tmp_path / "b.png")


@pytest.mark.parametrize("dtype", [np.uint16, np.int32], ids=["16 bit", "32 bit"])
def test_wide_labels_reach_the_model_as_they_are(tmp_path, dtype):
    """Paddle reads uint16 as bfloat16: class 2 would become 2.8e-45."""
    label = RNG.integers(0, 3, (6, 8)).astype(dtype)
    Image.fromarray(label).save(tmp_path / "b.tif")
    _image(tmp_path / "a.png")
    dataset = _dataset(tmp_path, "a.png b.tif\n")
    check_dataset(dataset, cache_dir=tmp_path / "cache")
    assert dataset[0]["label"].dtype == np.uint8
    (batch,) = paddle.io.DataLoader(dataset, batch_size=1, collate_fn=lambda s: default_collate_fn(s)["label"])
    np.testing.assert_array_equal(batch.astype("int64").numpy()[0], label)
    label[0, 0] = 300
    Image.fromarray(label).save(tmp_path / "b.tif")
    with pytest.raises(DataError, match="b.tif: holds 300"):
        check_dataset(dataset, cache_dir=tmp_path / "cache")


def test_labels_with_fractions_are_refused(tmp_path):
    Image.fromarray(np.full((6, 8), 0.5, np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(DataError, match="b.tif: holds float32"):
        read_label(tmp_path / "b.tif")


def test_coloured_label_is_refused_and_palette_read_by_index(tmp_path):
    _image(tmp_path / "rgb.png")
    with pytest.raises(DataError, match="rgb.png: has 3 channels"):
        read_label(tmp_path / "rgb.png")
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
    picture.putpalette([255 - i for i in range(256) for _ in range(3)])
    picture.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_label(tmp_path / "palette.png").ravel(), np.arange(48))


# ------------------------------------------------------------------------------------ check


def test_check_names_files_and_values(tmp_path):
    for i in range(4):
        _image(tmp_path / f"a{i}.png")
        _label(tmp_path / f"b{i}.png", (0, 1, 2, 255))
    dataset = _dataset(tmp_path, "".join(f"a{i}.png b{i}.png\n" for i in range(4)))
    cache = tmp_path / "cache"
    check_dataset(dataset, "train_dataset", cache)
    assert len(list(cache.glob("*.json"))) == 1
    _label(tmp_path / "b2.png", (0, 89))
    _label(tmp_path / "b3.png", size=(7, 8))
    for workers in (0, 2):
        with pytest.raises(DataError) as caught:
            check_dataset(dataset, "train_dataset", cache, workers)
        text = str(caught.value)
        assert "train_dataset: 2 of 4" in text and "b2.png: holds 89" in text and "0 to 2, or 255" in text
        assert "b3.png: is 8x7" in text and "a3.png is 8x6" in text
    (tmp_path / "a1.png").unlink()
    with pytest.raises(DataError, match="a1.png: cannot be read"):
        check_dataset(dataset, "train_dataset", cache)


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_check_finds_images_that_end_too_early(tmp_path, ending, share):
    """OpenCV makes a picture of half a JPEG without a word."""
    image = _image(tmp_path / f"a{ending}", size=(60, 80))
    _label(tmp_path / "b.png", size=(60, 80))
    dataset = _dataset(tmp_path, f"a{ending} b.png\n")
    check_dataset(dataset, "train_dataset", tmp_path / "cache")
    image.write_bytes(image.read_bytes()[: int(image.stat().st_size * share)])
    with pytest.raises(DataError, match=f"1 of 1 samples.*\n.*a{ending}: is "):
        check_dataset(dataset, "train_dataset", tmp_path / "cache")


def test_check_counts_all_problems_and_shows_five(tmp_path):
    lines = ""
    for i in range(7):
        _image(tmp_path / f"a{i}.png")
        _label(tmp_path / f"b{i}.png", (0, 50))
        lines += f"a{i}.png b{i}.png\n"
    dataset = _dataset(tmp_path, lines)
    for message in ("holds 50", "cannot be read"):
        with pytest.raises(DataError, match="7 of 7") as caught:
            check_dataset(dataset, "train_dataset", tmp_path / "cache")
        assert str(caught.value).count(message) == 5 and "and 2 more" in str(caught.value)
        for i in range(7):
            (tmp_path / f"b{i}.png").unlink(missing_ok=True)
    assert not (tmp_path / "cache").exists()


def test_check_lives_without_its_notes(tmp_path, monkeypatch):
    _image(tmp_path / "a.png")
    _label(tmp_path / "b.png")
    dataset = _dataset(tmp_path, "a.png b.png\n")
    (tmp_path / "file").write_text("in the way")
    check_dataset(dataset, cache_dir=tmp_path / "file" / "cache")
    monkeypatch.setenv("SEG_HOME", str(tmp_path / "home"))
    check_dataset(dataset)
    assert len(list((tmp_path / "home/tmp/checked_datasets").glob("*.json"))) == 1


def test_second_check_reads_nothing(tmp_path, monkeypatch):
    _image(tmp_path / "a.png")
    _label(tmp_path / "b.png")
    dataset = _dataset(tmp_path, "a.png b.png\n")
    check_dataset(dataset, "train_dataset", tmp_path / "cache")
    monkeypatch.setattr("paddle_dnl.data.base_dataset.read_label", lambda *a: pytest.fail("read again"))
    check_dataset(dataset, "train_dataset", tmp_path / "cache")


# ------------------------------------------------------------------------------------ lists and image paths


def test_lists_are_written_with_the_asked_separator(tmp_path):
    _image(tmp_path / "images/train/x/a.jpg")
    _label(tmp_path / "labels/train/x/a.png")
    _image(tmp_path / "images/test/b.jpg")
    splits = split_folders("images", "labels", ("train", "val", "test"))
    settings = {"splits": splits, "image_end": ".jpg", "label_end": ".png"}
    assert write_lists(tmp_path, separator=",", **settings) == {"train": 1, "test": 1}
    assert (tmp_path / "train.txt").read_text() == "images/train/x/a.jpg,labels/train/x/a.png\n"
    assert (tmp_path / "test.txt").read_text() == "images/test/b.jpg\n"
    _image(tmp_path / "images/train/c.jpg")
    with pytest.raises(DataError, match="1 labels are missing.*c.png"):
        write_lists(tmp_path, **settings)
    _label(tmp_path / "labels/train/c.png")
    _image(tmp_path / "images/train/d e.jpg")
    _label(tmp_path / "labels/train/d e.png")
    with pytest.raises(DataError, match="holds the separator ' '"):
        write_lists(tmp_path, **settings)


def test_image_paths(tmp_path):
    for name in ("one/a.png", "two/a.jpg", "b.bmp"):
        _image(tmp_path / name)
    (tmp_path / "notes.md").write_text("x")
    assert [str(n) for _, n in find_images(tmp_path)] == ["b.bmp", "one/a.png", "two/a.jpg"]
    assert find_images(tmp_path / "b.bmp") == [(tmp_path / "b.bmp", find_images(tmp_path / "b.bmp")[0][1])]
    (tmp_path / "list.txt").write_text("one/a.png label.png\n\ntwo/a.jpg,x\n")
    assert [str(n) for _, n in find_images(tmp_path / "list.txt")] == ["one/a.png", "two/a.jpg"]
    assert len(find_images(str(tmp_path / "*" / "*.png"))) == 1
    _image(tmp_path / "b.png")
    with pytest.raises(DataError, match="both be stored as b.png"):
        find_images(tmp_path)
    for path, message in (("nothing", "no such image"), ("*.gif", "no images there")):
        with pytest.raises(DataError, match=message):
            find_images(str(tmp_path / path))
    (tmp_path / "list.txt").write_text("gone.png\n")
    with pytest.raises(DataError, match="gone.png.*names no file"):
        find_images(tmp_path / "list.txt")
