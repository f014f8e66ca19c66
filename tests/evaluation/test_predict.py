# SPDX-License-Identifier: Apache-2.0
"""predict.py decides as val.py does, under every setting that a test_config may hold."""

import inspect
from types import SimpleNamespace

import paddle_dnl  # noqa: F401
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.evaluation.evaluator import evaluate
from paddle_dnl.evaluation.inference import infer, infer_augmented, restore
from paddle_dnl.evaluation.options import InferenceOptions
from paddle_dnl.evaluation.predict import FOLDERS, predict, predict_images
from paddle_dnl.registry import build

import cv2
import numpy as np
import paddle
import pytest
from PIL import Image

CONFIG = SimpleNamespace(
    val_dataset_cfg={"type": "Cityscapes", "transforms": [{"type": "Resize", "target_size": [24, 16]}]},
    model_cfg={"num_classes": 19},
)


class Grains(paddle.nn.Layer):
    """Logits that change from pixel to pixel, so that each way of resizing them gives other classes."""

    def __init__(self):
        super().__init__()
        paddle.seed(0)
        self.conv = paddle.nn.Conv2D(3, 19, 1)

    def forward(self, x):
        return [self.conv(x)]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "grains.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8))
    return path


def _labels(picture, folder, **settings) -> np.ndarray:
    assert predict(Grains(), CONFIG, str(picture), str(folder), **settings) == 1
    return np.asarray(Image.open(folder / "pseudo_color_prediction" / "grains.png"))


def _prepared(picture) -> paddle.Tensor:
    """As PaddleSeg prepares it: RGB, then the transforms."""
    rgb = cv2.cvtColor(cv2.imread(str(picture)).astype(np.float32), cv2.COLOR_BGR2RGB)
    return paddle.to_tensor(cv2.resize(rgb, (24, 16), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)[None])


BACK = [("resize", (40, 61))]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    "augmented", [{}, {"scales": (0.5, 1.5), "average": "logits"}, {"scales": 2.0, "average": "softmax"}]
)
def test_logits_are_restored_as_in_an_evaluation(augmented, align_corners, picture, tmp_path):
    found = _labels(picture, tmp_path, aug_eval=bool(augmented), align_corners=align_corners, **augmented)
    image = _prepared(picture)
    expected = {}
    for align in (False, True):
        if augmented:
            scales = augmented["scales"] if isinstance(augmented["scales"], tuple) else (augmented["scales"],)
            settings = {"scales": scales, "average": augmented["average"], "align_corners": align}
            scores = infer_augmented(Grains(), image, BACK, InferenceOptions(**settings))
        else:
            scores = restore(infer(Grains(), image), BACK, align)
        expected[align] = paddle.argmax(scores, axis=1).numpy()[0]
    np.testing.assert_array_equal(found, expected[align_corners])
    assert (expected[False] != expected[True]).any()


SETTINGS = {
    "plain": {},
    "softmax": {"aug_eval": True, "scales": [0.5, 0.75, 1.5], "flip_horizontal": True, "average": "softmax"},
    "official": {"aug_eval": True, "scales": [0.5, 1.5], "flip_horizontal": True, "average": "official"},
    "logits": {"aug_eval": True, "scales": [0.75, 1.0], "flip_vertical": True, "align_corners": True},
    "windows": {"aug_eval": True, "scales": [0.5, 1.25], "average": "softmax", "is_slide": True, "crop_size": [24, 24],
                "stride": [16, 16]},
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_that_fits_pictures_to_a_frame_predicts_what_its_evaluation_counts(name, picture, tmp_path):
    """The published rows of OpenMMLab and DGMN2 make each scale from the original picture, in both programs."""
    steps = [{"type": "ToUint8"}, {"type": "ResizeToFit", "frame": [51, 40]}, {"type": "Normalize"}]
    config = SimpleNamespace(
        val_dataset_cfg={"type": "Dataset", "num_classes": 19, "transforms": steps}, model_cfg={"num_classes": 19}
    )
    folder = picture.parent
    cv2.imwrite(str(folder / "label.png"), np.zeros((40, 61), np.uint8))
    (folder / "val.txt").write_text("grains.png label.png")
    paths = {"dataset_root": str(folder), "val_path": str(folder / "val.txt"), "mode": "val"}
    dataset = build({**config.val_dataset_cfg, **paths}, "dataset")
    counted = []
    observe = lambda index, scores, is_probability, pred, label: counted.append(pred)  # noqa: E731
    evaluate(Grains(), dataset, print_detail=False, observe=observe, **SETTINGS[name])
    predict(Grains(), config, str(picture), str(tmp_path), **SETTINGS[name])
    found = np.asarray(Image.open(tmp_path / "pseudo_color_prediction" / "grains.png"))
    np.testing.assert_array_equal(found, counted[0])


def test_takes_every_setting_of_an_evaluation():
    """`test_config` is handed to both as keyword arguments."""
    of_the_run = {
        "model",
        "dataset",
        "batch_size",
        "num_workers",
        "auc_roc",
        "print_detail",
        "stop",
        "observe",
        "scored",
    }
    assert set(inspect.signature(evaluate).parameters) - of_the_run <= set(inspect.signature(predict_images).parameters)


def test_probabilities_and_grey_pictures(picture, tmp_path):
    label = _labels(picture, tmp_path / "a", save_prob="float16")
    probabilities = np.load(tmp_path / "a" / "probabilities" / "grains.npz")["probabilities"]
    wanted = paddle.nn.functional.softmax(restore(infer(Grains(), _prepared(picture)), BACK, False), axis=1).numpy()[0]
    np.testing.assert_allclose(probabilities, wanted, atol=1e-3)
    assert (wanted.argmax(0) == label).all()

    class GreyGrains(Grains):
        def __init__(self):
            super().__init__()
            self.conv = paddle.nn.Conv2D(1, 19, 1)

    grey = SimpleNamespace(val_dataset_cfg={"type": "Dataset", "img_channels": 1}, model_cfg={"num_classes": 19})
    assert predict(GreyGrains(), grey, str(picture), str(tmp_path / "b")) == 1
    assert np.asarray(Image.open(tmp_path / "b" / "pseudo_color_prediction" / "grains.png")).shape == (40, 61)


def test_overlays_keep_the_ending_of_their_picture(picture, tmp_path):
    """As PaddleSeg's predict.py names them; labels are PNGs."""
    (tmp_path / "in/sub").mkdir(parents=True)
    for ending in (".jpg", ".bmp", ".PNG", ".webp"):
        cv2.imwrite(str(tmp_path / f"in/sub/x{ending[1:]}{ending}"), cv2.imread(str(picture)))
    predict(Grains(), CONFIG, str(tmp_path / "in"), str(tmp_path / "out"))
    names = {folder: {p.name for p in (tmp_path / "out" / folder / "sub").iterdir()} for folder in FOLDERS[:2]}
    assert names["added_prediction"] == {"xjpg.jpg", "xbmp.bmp", "xPNG.PNG", "xwebp.png"}
    assert names["pseudo_color_prediction"] == {"xjpg.png", "xbmp.png", "xPNG.png", "xwebp.png"}
    assert cv2.imread(str(tmp_path / "out/added_prediction/sub/xjpg.jpg")).shape == (40, 61, 3)


@pytest.mark.parametrize("place", ["out", "sub/out"])
def test_results_are_not_taken_for_pictures(picture, tmp_path, place):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture.read_bytes())
    with pytest.raises(UsageError, match="--save_dir .*in: is the folder of pictures"):
        predict(Grains(), CONFIG, str(folder), str(folder))
    assert [path.name for path in folder.iterdir()] == ["a.png"]
    assert predict(Grains(), CONFIG, str(folder), str(folder / place)) == 1  # as `--image_path . --save_dir out`
    before = sorted(folder.rglob("*"))
    with pytest.raises(
        UsageError, match="--save_dir .*out: lies in the folder of pictures .*png would be taken for one"
    ):
        predict(Grains(), CONFIG, str(folder), str(folder / place))
    assert sorted(folder.rglob("*")) == before
    assert predict(Grains(), CONFIG, str(folder / "*.png"), str(folder / place)) == 1
    for target in (
        folder / ".out",
        tmp_path / "in2",
    ):  # hidden folders are not searched; a similar name is another folder
        (folder / "again").mkdir(exist_ok=True)
        (folder / "again" / "b.png").write_bytes(picture.read_bytes())
        assert predict(Grains(), CONFIG, str(folder / "again"), str(target)) == 1


def test_truncated_jpegs_are_refused_or_skipped(picture, tmp_path, caplog):
    (tmp_path / "in").mkdir()
    content = cv2.imencode(".jpg", cv2.imread(str(picture)))[1].tobytes()
    (tmp_path / "in/whole.jpg").write_bytes(content)
    (tmp_path / "in/cut.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut.jpg: is a damaged JPEG"):
        predict(Grains(), CONFIG, str(tmp_path / "in"), str(tmp_path / "out"))
    assert predict(Grains(), CONFIG, str(tmp_path / "in"), str(tmp_path / "out"), skip_bad_samples=True) == 1
    assert "cut.jpg: is a damaged JPEG" in caplog.text
    assert [p.name for p in (tmp_path / "out" / FOLDERS[0]).glob("*.png")] == ["whole.png"]
