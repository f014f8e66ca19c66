# SPDX-License-Identifier: Apache-2.0
"""Pictures that are much larger than the model: tiles at full resolution in place of a squeezed picture."""

from paddle_dnl.cli import infer
from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import DataError, UsageError

import cv2
import numpy as np
import paddle
import pytest
from PIL import Image
from tiny_export import CLASSES, NORMALIZE, ColorNet, blocks

# Squares of three pixels: squeezed into the model's 64x32 nothing of them is left.
PICTURE, LABEL = blocks(50, 60, 3)


def test_a_large_picture_keeps_its_details(exported, caplog):
    predictor = Predictor(exported)
    np.testing.assert_array_equal(predictor.predict([PICTURE])[0], LABEL)
    assert "squeezed" not in caplog.text
    squeezed = Predictor(exported, wrong_size="resize").predict([PICTURE])[0]
    assert (squeezed == LABEL).mean() < 0.7 and "squeezed into 64x32" in caplog.text


def test_scores_are_blended(tmp_path):
    shape, options = [1, 3, 32, 64], {"transforms": [dict(NORMALIZE)], "class_info": CLASSES}
    export_model(ColorNet(), tmp_path, input_shape=shape, output_op="none", **options)
    predictor = Predictor(tmp_path, tile_overlap=0.5)
    np.testing.assert_array_equal(predictor.predict([PICTURE, PICTURE[:32, :64]])[0], LABEL)
    tall = np.ascontiguousarray(np.rot90(PICTURE))
    np.testing.assert_array_equal(predictor.predict([tall[:, :20]])[0], np.rot90(LABEL)[:, :20])


@pytest.mark.parametrize("output_op", ["softmax", "none"])
def test_probabilities_in_tiles_are_those_of_the_whole_picture(tmp_path, output_op):
    """The model sees four pixels around each, a quarter of the overlap of tiles 32 high."""
    model = ColorNet()
    model.conv = paddle.nn.Conv2D(3, 4, 9, padding=4)
    weight = np.random.default_rng(0).normal(0, 0.3, model.conv.weight.shape)
    model.conv.weight.set_value(weight.astype(np.float32))
    export_model(model, tmp_path, input_shape=[1, 3, 32, 64], output_op=output_op, transforms=[dict(NORMALIZE)])
    predictor = Predictor(tmp_path, tile_overlap=0.5)
    assert not isinstance(predictor.preprocess(PICTURE)[0], np.ndarray), "in tiles"
    (found,) = predictor.predict_probabilities([PICTURE])
    pixels = PICTURE[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
    model.eval()
    (whole,) = paddle.nn.functional.softmax(model(paddle.to_tensor(pixels[None]))[0], axis=1).numpy()
    assert found.shape == whole.shape == (4, *LABEL.shape) and whole.max(0).std() > 0.05
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_an_enlarged_picture_is_said_once(exported, caplog):
    predictor = Predictor(exported)  # for 64x32
    predictor.predict([PICTURE[:22, :43], PICTURE[:20, :64]])
    assert "enlarged" not in caplog.text
    predictor.predict([PICTURE[:20, :30], PICTURE[:10, :30]])
    assert caplog.text.count("30x20 pixels are enlarged to 64x32, another scale than in the evaluation") == 1
    assert caplog.text.count("are enlarged") == 1


def test_what_is_a_little_larger_is_resized(exported):
    predictor = Predictor(exported)
    assert isinstance(predictor.preprocess(PICTURE[:48, :96])[0], np.ndarray)
    for pixels in (PICTURE[:49, :64], PICTURE[:32, :97]):
        assert not isinstance(predictor.preprocess(pixels)[0], np.ndarray)
    assert isinstance(Predictor(exported, tile="never").preprocess(PICTURE)[0], np.ndarray)
    with pytest.raises(DataError, match="this model takes 64x32"):
        Predictor(exported, wrong_size="refuse").predict([PICTURE])


def test_transforms_that_change_the_size_keep_their_meaning(tmp_path):
    resize = {"type": "Resize", "target_size": [64, 32]}
    export_model(ColorNet(), tmp_path, input_shape=[1, 3, 32, 64], transforms=[resize, dict(NORMALIZE)])
    assert isinstance(Predictor(tmp_path).preprocess(PICTURE)[0], np.ndarray)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"tile": "always"}, "tile 'always'"), ({"tile_overlap": 0.6}, "0.6"), ({"tile_batch": 0}, "tile_batch")],
)
def test_wrong_settings(exported, options, text):
    with pytest.raises(UsageError, match=text):
        Predictor(exported, **options)


def test_the_program(exported, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE)
    flags = ["--config", str(exported / "deploy.yaml"), "--image_path", str(tmp_path / "a.png")]
    for name, more, equal in (("tiled", [], True), ("squeezed", ["--tile", "never"], False)):
        assert infer.main([*flags, "--save_dir", str(tmp_path / name), *more]) == 0
        assert (np.array(Image.open(tmp_path / name / "a.png")) == LABEL).all() == equal


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_tiles_in_batches(tmp_path, batch, monkeypatch):
    export_model(ColorNet(), tmp_path, input_shape=[-1, 3, 32, 64], transforms=[dict(NORMALIZE)], class_info=CLASSES)
    predictor = Predictor(tmp_path, tile_batch=batch)
    sizes, real = [], predictor._backend.run
    monkeypatch.setattr(predictor._backend, "run", lambda batch: (sizes.append(len(batch)), real(batch))[1])
    np.testing.assert_array_equal(predictor.predict([PICTURE])[0], LABEL)
    assert max(sizes) == min(batch, 4)  # a row has four tiles
