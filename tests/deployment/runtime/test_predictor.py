# SPDX-License-Identifier: Apache-2.0
"""Predictor: classes at the picture's own size, whatever size, batch and preprocessing the export has."""

import os

from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import ConfigError, DataError, ExportError, UsageError
from paddle_dnl.evaluation.inference import infer, restore

import cv2
import numpy as np
import paddle
import pytest
import yaml
from tiny_export import CLASSES, NORMALIZE, ColorNet, blocks, logits_of


def _export(folder, shape=(1, 3, 32, 64), model=None, transforms=None, **more):
    transforms = [dict(NORMALIZE)] if transforms is None else transforms
    export_model(
        model or ColorNet(),
        folder,
        input_shape=shape and list(shape),
        transforms=transforms,
        class_info=CLASSES,
        **more,
    )
    return folder


def _change(folder, **keys):
    path = folder / "deploy.yaml"
    content = yaml.safe_load(path.read_text())
    content["Deploy"] |= keys
    path.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("output_op", ["argmax", "softmax", "none"])
def test_labels_at_the_size_of_the_picture(tmp_path, output_op):
    predictor = Predictor(_export(tmp_path, output_op=output_op))
    assert predictor.classes == CLASSES
    # Fixed 32x64; blocks of 8, 16 and 32 pixels keep their edges when resized there and back.
    for size, seed in ((8, 0), (16, 1), (32, 2)):
        image, label = blocks(4, 8, size, seed)
        found = predictor.predict([image])[0]
        assert found.dtype == np.uint8 and found.shape == label.shape
        if output_op == "argmax" or size == 8:
            np.testing.assert_array_equal(found, label)
        else:
            assert (found == label).mean() > 0.9, "scores are interpolated: edges move by a pixel"


def test_scores_are_resized_as_in_evaluation(tmp_path):
    model = ColorNet(half=True)
    transforms = [{"type": "Resize", "target_size": [64, 32]}, dict(NORMALIZE)]
    predictor = Predictor(_export(tmp_path, model=model, output_op="none", transforms=transforms))
    image = cv2.GaussianBlur(blocks(5, 7, 11)[0], (0, 0), 3)
    tensor, info = predictor.preprocess(image)
    assert tensor.shape == (3, 32, 64) and [name for name, _ in info] == ["resize"]
    model.eval()
    with paddle.no_grad():
        wanted = restore(infer(model, paddle.to_tensor(tensor[None])), info)[0].numpy()
    found = predictor.predict([image])[0]
    assert found.shape == image.shape[:2]
    assert (found == wanted.argmax(0)).mean() > 0.999


@pytest.mark.parametrize(
    "transforms",
    [
        [{"type": "ResizeByLong", "long_size": 64}, {"type": "Padding", "target_size": [64, 64]}],
        [{"type": "Padding", "target_size": [160, 160]}, {"type": "Resize", "target_size": [160, 160]}],
        [{"type": "LimitLong", "max_long": 64}],
    ],
    ids=["long and padding", "padding and resize", "limit"],
)
def test_preprocessing_is_undone(tmp_path, transforms):
    folder = _export(tmp_path, None, ColorNet(), [*transforms, dict(NORMALIZE)])
    for size in (8, 16):
        image, label = blocks(5, 8, size)
        found = Predictor(folder).predict([image])[0]
        assert found.shape == label.shape
        # Pixels beside an edge may mix two colours when the picture is made smaller.
        kernel = np.ones((5, 5), np.uint8)
        inner = cv2.dilate(label, kernel) == cv2.erode(label, kernel)
        np.testing.assert_array_equal(found[inner], label[inner])


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("shape", [(2, 3, 32, 64), (-1, 3, -1, -1)])
def test_batches_of_pictures_of_many_sizes(tmp_path, shape, batch):
    predictor = Predictor(_export(tmp_path, shape, ColorNet()))
    pictures = [blocks(4, 8, size, seed) for seed, size in enumerate((8, 16, 8, 24, 8))]
    found = predictor.predict([image for image, _ in pictures], batch_size=batch)
    for one, (_, label) in zip(found, pictures, strict=True):
        np.testing.assert_array_equal(one, label)
    assert predictor.predict([]) == []
    stacked = np.stack([predictor.preprocess(pictures[0][0])[0]] * 3)
    assert predictor.run(stacked).shape == (3, 32, 64)


def test_files_and_arrays_give_the_same(tmp_path):
    predictor = Predictor(_export(tmp_path / "export") / "deploy.yaml")
    image, label = blocks(4, 8, 16)
    path = tmp_path / "straße 1.png"
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    before = image.copy()
    for found in predictor.predict([path, str(path), image]):
        np.testing.assert_array_equal(found, label)
    np.testing.assert_array_equal(image, before)


def test_grey_arrays_count_as_pictures(tmp_path):
    predictor = Predictor(_export(tmp_path, output_op="none"))
    grey = np.random.default_rng(0).integers(0, 256, (32, 64), dtype=np.uint8)
    wanted = logits_of(np.repeat(grey[..., None], 3, axis=2)).argmax(0)
    for image in (grey, grey[..., None]):
        np.testing.assert_array_equal(predictor.predict([image])[0], wanted)


def test_one_class(tmp_path):
    class One(ColorNet):
        def forward(self, x):
            return [self.conv(x)[:, :1]]

    predictor = Predictor(_export(tmp_path, model=One(), output_op="none"))
    assert predictor.predict([blocks(3, 5, 9)[0]])[0].shape == (27, 45)


@pytest.mark.parametrize(
    "image, text",
    [
        (np.zeros((4, 4, 4), np.uint8), r"\[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (np.zeros(4, np.uint8), r"\[4\]"),
        ("nowhere.png", "nowhere.png"),
    ],
)
def test_images_that_are_none(tmp_path, image, text):
    predictor = Predictor(_export(tmp_path))
    with pytest.raises(DataError, match=text):
        predictor.predict([image])


def test_pictures_that_do_not_pass_the_preprocessing(tmp_path):
    transforms = [{"type": "Padding", "target_size": [40, 40]}, dict(NORMALIZE)]
    predictor = Predictor(_export(tmp_path / "export", (1, 3, 40, 40), transforms=transforms))
    cv2.imwrite(str(tmp_path / "wide.png"), blocks(1, 8, 8)[0])
    with pytest.raises(DataError, match="wide.png: 64x8 pixels do not pass Deploy.transforms"):
        predictor.predict([tmp_path / "wide.png"])


def test_damaged_pictures_are_named(tmp_path):
    predictor = Predictor(_export(tmp_path / "export"))
    for content in (b"", b"\x89PNG\r\n\x1a\n no picture"):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(DataError, match="bad.png"):
            predictor.predict([blocks(4, 8, 8)[0], tmp_path / "bad.png"])


def test_wrong_calls(tmp_path):
    predictor = Predictor(_export(tmp_path))
    with pytest.raises(UsageError, match="expected a list"):
        predictor.predict("street.png")
    with pytest.raises(UsageError, match="batch_size"):
        predictor.predict([], batch_size=0)
    with pytest.raises(UsageError, match="benchmark"):
        predictor.benchmark(blocks(4, 8, 8)[0], repeats=0)
    with pytest.raises(UsageError, match="'tensorrt' is not one of"):
        Predictor(tmp_path, backend="tensorrt")
    with pytest.raises(ExportError, match="Paddle Inference failed"):
        predictor.run(np.zeros((1, 5, 32, 64), np.float32))


def test_benchmark(tmp_path):
    found = Predictor(_export(tmp_path)).benchmark(blocks(4, 8, 8)[0], warmup=1, repeats=9, batch_size=2)
    assert 0 < found["median"] <= found["p90"] <= found["p99"] < 10 and found["mean"] > 0
    assert found["ips"] == pytest.approx(2 / found["median"])


def test_a_file_of_a_terabyte_is_not_read(tmp_path):
    _export(tmp_path)
    os.truncate(tmp_path / "model.pdiparams", 1 << 40)
    with pytest.raises(ExportError, match=r"model\.pdiparams: is larger than 4 GiB"):
        Predictor(tmp_path)


@pytest.mark.parametrize("name", ["graph", "model.pdiparams"])
@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "gone"])
def test_damaged_exports_are_named_before_native_code_sees_them(tmp_path, name, damage):
    _export(tmp_path)
    if name == "graph":
        name = "model.json" if (tmp_path / "model.json").exists() else "model.pdmodel"
    path = tmp_path / name
    content = {"cut": path.read_bytes()[:-40], "empty": b"", "noise": os.urandom(2000)}.get(damage)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match=f"{name}: {'missing' if damage == 'gone' else 'damaged'}"):
        Predictor(tmp_path)


def test_damage_without_digest_is_one_line(tmp_path):
    # As in folders that PaddleSeg exported.
    _export(tmp_path)
    _change(tmp_path, sha256={})
    (tmp_path / "model.pdiparams").write_bytes(b"")
    with pytest.raises(ExportError, match="model.pdiparams: cannot be loaded") as caught:
        Predictor(tmp_path)
    assert "\n" not in str(caught.value)


def test_graphs_of_paddle_3_are_not_given_to_paddle_2(tmp_path, monkeypatch):
    _export(tmp_path)
    (tmp_path / "model.json").write_bytes(b"{}")
    _change(tmp_path, model="model.json", sha256={})
    monkeypatch.setattr(paddle, "__version__", "2.6.2")
    with pytest.raises(ExportError, match="exported by Paddle 3"):
        Predictor(tmp_path)


def test_unknown_transform_names_the_file(tmp_path):
    _export(tmp_path)
    _change(tmp_path, transforms=[{"type": "Normalise"}])
    with pytest.raises(ConfigError, match="deploy.yaml.*Normalise"):
        Predictor(tmp_path)


def test_onednn_only_where_the_export_verified_it(tmp_path):
    predictor = Predictor(_export(tmp_path, model=ColorNet(half=True), output_op="none"))
    image, _ = blocks(4, 8, 8)
    verified = yaml.safe_load((tmp_path / "deploy.yaml").read_text())["Deploy"]["verified"]
    assert verified["mkldnn"]["ok"] is True
    batch = predictor.preprocess(image)[0][None]
    plain = predictor.run(batch)
    np.testing.assert_allclose(Predictor(tmp_path, enable_mkldnn=True).run(batch), plain, atol=1e-3)
    for found, text in (
        ({}, "did not check"),
        ({"mkldnn": {"ok": False, "error": "Unimplemented"}}, "Unimplemented"),
        ({"mkldnn": {"ok": False, "max_relative_difference": 0.0004}}, "0.0004"),
        ({"mkldnn": {"ok": True, "paddle_version": "1.8"}}, "with Paddle 1.8"),
    ):
        _change(tmp_path, verified=found)
        with pytest.raises(UsageError, match=f"--enable_mkldnn: not verified.*{text}"):
            Predictor(tmp_path, enable_mkldnn=True)
    np.testing.assert_array_equal(Predictor(tmp_path).run(batch), plain)


def test_gpu_on_a_cpu_build(tmp_path, monkeypatch):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: False)
    with pytest.raises(UsageError, match="--device gpu"):
        Predictor(_export(tmp_path), device="gpu")


class _Grey300(paddle.nn.Layer):
    """Class round(299 * red / 255) of 300: the logits are -(299 * x - k)^2 without the square of x."""

    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 300, 1)
        k = np.arange(300, dtype=np.float32)
        weight = np.zeros((300, 3, 1, 1), np.float32)
        weight[:, 0, 0, 0] = 2 * 299 * k
        self.conv.weight.set_value(weight)
        self.conv.bias.set_value(-(k**2))

    def forward(self, x):
        return [self.conv(x)]


@pytest.mark.parametrize("output_op", ["argmax", "none"])
def test_more_than_256_classes(tmp_path, output_op):
    steps = [{"type": "Normalize", "mean": [0, 0, 0], "std": [1, 1, 1]}]
    export_model(_Grey300(), tmp_path, input_shape=[1, 3, 16, 24], output_op=output_op, transforms=steps)
    grey = np.kron(np.random.default_rng(0).integers(0, 6, (4, 6)) * 51, np.ones((4, 4), int))
    image = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    label = Predictor(tmp_path).predict([image])[0]
    np.testing.assert_array_equal(label, np.rint(grey * 299 / 255))
    assert label.max() == 299
