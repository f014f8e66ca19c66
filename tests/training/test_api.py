# SPDX-License-Identifier: Apache-2.0
"""`train`, `evaluate` and `predict` on objects, with the arguments and the results of `paddleseg.core`, and on configurations."""

import paddle_dnl
from paddle_dnl.data.transforms import Normalize
from paddle_dnl.errors import CheckpointError, DataError, UsageError
from paddle_dnl.losses import CrossEntropyLoss
from paddle_dnl.weights.loading import read_params

import numpy as np
import paddle
import pytest
from paddleseg import transforms as their_transforms
from paddleseg.core import infer as their_infer
from paddleseg.datasets import Dataset as TheirDataset
from PIL import Image
from tiny_training import TinyNet, weights, write_config
from tiny_training import train as train_tiny


def parts(folder, schedule=None):
    """The pieces of the tiny training as a program makes them, with PaddleSeg's datasets."""
    paddle.seed(7)
    model = TinyNet(3)
    rate = paddle.optimizer.lr.PolynomialDecay(0.05, 10, 0, 0.9) if schedule is None else schedule
    optimizer = paddle.optimizer.Momentum(rate, 0.9, parameters=model.parameters(), weight_decay=1e-4)
    data = folder / "data"
    training, validation = (
        TheirDataset(
            mode=mode,
            dataset_root=str(data),
            transforms=[their_transforms.Normalize()],
            num_classes=3,
            **{f"{mode}_path": str(data / f"{mode}.txt")},
        )
        for mode in ("train", "val")
    )
    losses = {"types": [CrossEntropyLoss()], "coef": [1, 0.4]}
    return {
        "model": model,
        "train_dataset": training,
        "val_dataset": validation,
        "optimizer": optimizer,
        "losses": losses,
    }


@pytest.fixture
def folder(tmp_path):
    write_config(tmp_path)
    return tmp_path


FLAGS = {"batch_size": 2, "save_interval": 5, "log_iters": 1, "seed": 7}


def test_objects_train_as_a_configuration_does(folder):
    """Bit for bit the weights of the same recipe as a file, with our datasets."""
    opts = ["train_dataset.transforms=[{type: Normalize}]"]
    configured = train_tiny(folder, opts, save_dir=str(folder / "a"), do_eval=True)
    done = paddle_dnl.train(**parts(folder), save_dir=folder / "b", iters=10, **FLAGS)
    assert (done.iteration, done.best_miou) == (configured.iteration, configured.best_miou)
    one, other = weights(folder / "a/iter_10"), weights(folder / "b/iter_10")
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert (folder / "b/best_model/model.pdparams").is_file()


@pytest.mark.parametrize("schedule", [None, 0.03], ids=["schedule", "number"])
def test_a_stopped_run_goes_on_exactly(folder, schedule):
    paddle_dnl.train(**parts(folder, schedule), save_dir=folder / "whole", iters=10, **FLAGS)
    paddle_dnl.train(**parts(folder, schedule), save_dir=folder / "halves", iters=5, **FLAGS)
    done = paddle_dnl.train(
        **parts(folder, schedule), save_dir=folder / "halves", iters=10, resume_model="auto", **FLAGS
    )
    assert done.iteration == 10
    one, other = weights(folder / "whole/iter_10"), weights(folder / "halves/iter_10")
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    other_model = parts(folder) | {"model": paddle.nn.Conv2D(3, 3, 1)}
    other_model["optimizer"] = paddle.optimizer.SGD(0.1, parameters=other_model["model"].parameters())
    with pytest.raises(CheckpointError, match="model.type"):
        paddle_dnl.train(**other_model, save_dir=folder / "halves", iters=12, resume_model="auto", **FLAGS)


def test_scores_are_those_of_paddleseg(folder):
    """Unpacked like the tuple of `paddleseg.core.evaluate`, from counts of PaddleSeg's own inference."""
    given = parts(folder)
    model, dataset = given["model"], given["val_dataset"]
    settings = {"aug_eval": True, "scales": [0.75, 1.0], "flip_horizontal": True}
    miou, acc, class_iou, class_precision, kappa = paddle_dnl.evaluate(model, dataset, print_detail=False, **settings)
    confusion = np.zeros((3, 3))
    model.eval()
    for i in range(len(dataset)):
        sample = dataset[i]
        image = paddle.to_tensor(sample["img"][None])
        pred, _ = their_infer.aug_inference(model, image, sample["trans_info"], [0.75, 1.0], True)
        np.add.at(confusion, (sample["label"].ravel(), pred.numpy().ravel()), 1)
    right, truth, found = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    np.testing.assert_allclose(class_iou, right / (truth + found - right))
    np.testing.assert_allclose(class_precision, right / found)
    assert miou == pytest.approx(np.mean(class_iou)) and acc == pytest.approx(right.sum() / confusion.sum())
    chance = (truth * found).sum() / confusion.sum() ** 2
    assert kappa == pytest.approx((acc - chance) / (1 - chance))


def test_objects_predict_as_a_configuration_does(folder):
    train_tiny(folder)
    trained = folder / "output/iter_10/model.pdparams"
    model = TinyNet(3)
    files = sorted((folder / "data").glob("image_*.png"))
    one = paddle_dnl.predict(folder / "config.yml", trained, image_list=folder / "data/val.txt", save_dir=folder / "a")
    mine = [Normalize()]
    two = paddle_dnl.predict(model, trained, mine, files, image_dir=folder / "data", save_dir=folder / "b")
    theirs = their_transforms.Compose([their_transforms.Normalize()])
    flips = {"aug_pred": True, "scales": [0.5, 1.0], "flip_horizontal": True}
    for name, transforms in (("c", mine), ("d", theirs)):
        paddle_dnl.predict(model, None, transforms, files[:2], save_dir=folder / name, custom_color=[9, 8, 7], **flips)
    assert (one, two) == (3, 8)
    np.testing.assert_array_equal(model.conv.weight.numpy(), read_params(trained)["conv.weight"])

    def labels(name, i):
        picture = Image.open(folder / name / f"pseudo_color_prediction/image_{i}.png")
        return np.asarray(picture), picture.getpalette()[:6]

    for i in range(3):
        np.testing.assert_array_equal(labels("a", i)[0], labels("b", i)[0])
    assert labels("b", 0)[1] == [128, 0, 0, 0, 128, 0] and labels("c", 0)[1] == [9, 8, 7, 0, 128, 0]
    for i in range(2):
        np.testing.assert_array_equal(labels("c", i)[0], labels("d", i)[0])
        assert (labels("c", i)[0] != labels("b", i)[0]).any(), "scales and flips changed nothing"


def test_what_does_not_fit_is_one_line(folder):
    given = parts(folder)
    wrong = [
        (
            lambda: paddle_dnl.train(**{**given, "optimizer": None}),
            "optimizer must be a paddle.optimizer.Optimizer, got None",
        ),
        (lambda: paddle_dnl.train(**{**given, "losses": CrossEntropyLoss()}), "losses must be {'types'"),
        (lambda: paddle_dnl.train(**{**given, "losses": {"types": [abs, abs], "coef": [1]}}), "2 types for 1 coef"),
        (lambda: paddle_dnl.train(**given, iters=-1), "iters must be a positive integer, got -1"),
        (lambda: paddle_dnl.train(**given, seed=-1), "seed: expected a whole number from 0 to 4294967295, got -1"),
        (lambda: paddle_dnl.train(folder / "config.yml", seed=2**32), "seed: expected a whole number"),
        (lambda: paddle_dnl.train(folder / "config.yml", seed=1.0), "seed: expected a whole number"),
        (lambda: paddle_dnl.train(**given, save_interva=1), "unknown option save_interva"),
        (lambda: paddle_dnl.train(**given, opts=["iters=3"]), "opts: not beside a layer"),
        (
            lambda: paddle_dnl.train(folder / "config.yml", given["train_dataset"]),
            "train_dataset: not beside a configuration",
        ),
        (lambda: paddle_dnl.evaluate(given["model"]), "a layer is evaluated on an eval_dataset"),
        (lambda: paddle_dnl.evaluate(folder / "config.yml"), "model_path is missing"),
        (lambda: paddle_dnl.predict(given["model"], image_list=["a.png"]), "a layer needs transforms"),
        (lambda: paddle_dnl.predict(folder / "config.yml", "m.pdparams"), "image_list is missing"),
        (lambda: paddle_dnl.predict(folder / "config.yml", "m.pdparams", ["a.png"]), r"Name the images: image_list=\["),
    ]
    for call, message in wrong:
        with pytest.raises(UsageError, match=message):
            call()
    with pytest.raises(DataError, match="would both be stored as 1; give image_dir"):
        paddle_dnl.predict(given["model"], None, [Normalize()], ["a/1.png", "b/1.jpg"])
