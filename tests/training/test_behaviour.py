# SPDX-License-Identifier: Apache-2.0
"""What a run does with its numbers: the rate that is applied and logged, the loss that is logged, the mode of evaluation."""

from paddle_dnl.config import Config
from paddle_dnl.evaluation.curves import read_scalars
from paddle_dnl.evaluation.evaluator import evaluate
from paddle_dnl.evaluation.predict import predict
from paddle_dnl.registry import MODELS, build
from paddle_dnl.weights.loading import read_params

import cv2
import numpy as np
import paddle
import pytest
import tiny_training
from paddle import nn

PLAIN = ["model.dropout=0.0", "train_dataset.transforms=[{type: Normalize}]"]
# Each step sees all eight pictures.
WHOLE = [*PLAIN, "batch_size=8"]


def published_rate(iters: int, first=0.05, last=0.0, power=0.9) -> np.ndarray:
    """(first - last) * (1 - t / iters)^power + last, for the steps t = 0 .. iters - 1."""
    return (first - last) * (1 - np.arange(iters) / iters) ** power + last


@pytest.mark.parametrize("warm_up", [0, 3])
def test_the_rate_that_is_applied_and_the_rate_that_is_logged(tmp_path, warm_up):
    """Without gradients, momentum and biases a step multiplies a weight by 1 - rate * decay: the weights tell the rate."""
    iters, decay = 8, 0.5
    opts = [*PLAIN, f"iters={iters}", "loss.coef=[0,0]", "optimizer.momentum=0", f"optimizer.weight_decay={decay}"]
    expected = published_rate(iters)
    if warm_up:
        opts += [f"lr_scheduler.warmup_iters={warm_up}", "lr_scheduler.warmup_start_lr=0.01"]
        rising = 0.01 + (0.05 - 0.01) * np.arange(warm_up) / warm_up
        expected = np.concatenate([rising, published_rate(iters - warm_up)])
    tiny_training.train(tmp_path, opts, save_interval=1, keep_checkpoint_max=iters)
    kernels = [read_params(tmp_path / f"output/iter_{i}/model.pdparams")["conv.weight"] for i in range(1, iters + 1)]
    for i in range(1, iters):
        shrunk = 1 - np.linalg.norm(kernels[i].astype("float64")) / np.linalg.norm(kernels[i - 1].astype("float64"))
        np.testing.assert_allclose(shrunk / decay, expected[i], rtol=2e-4, err_msg=f"step {i + 1}")
    steps, logged = read_scalars(tmp_path / "output")["Train/lr"]
    assert steps == list(range(1, iters + 1))
    np.testing.assert_allclose(logged, expected, rtol=1e-6)


def losses_in_numpy(folder, weights) -> list[float]:
    """Mean cross entropy over all pixels of all pictures, main and auxiliary, of stored weights."""
    net = tiny_training.TinyNet(3, dropout=0.0)
    net.set_state_dict({key: paddle.to_tensor(value) for key, value in weights.items() if key in net.state_dict()})
    pictures = np.stack([cv2.imread(str(folder / f"data/image_{i}.png"))[..., ::-1] for i in range(8)])
    labels = np.stack([cv2.imread(str(folder / f"data/label_{i}.png"), 0) for i in range(8)])
    outputs = net(paddle.to_tensor(((pictures / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2).astype("float32")))
    found = []
    for logits in outputs:
        scores = logits.numpy().astype("float64")
        log_sum = np.log(np.exp(scores).sum(1))
        found.append(float((log_sum - np.take_along_axis(scores, labels[:, None], 1)[:, 0]).mean()))
    return found


def test_the_loss_that_is_logged_is_the_mean_over_the_steps_since_the_last_line(tmp_path):
    tiny_training.write_config(tmp_path)
    still = [*WHOLE, "iters=6", "lr_scheduler.learning_rate=0.0"]
    tiny_training.train(tmp_path, still, save_dir=str(tmp_path / "still"), log_iters=3, save_interval=6)
    main, auxiliary = losses_in_numpy(tmp_path, read_params(tmp_path / "still/iter_6/model.pdparams"))
    found = read_scalars(tmp_path / "still")
    assert found["Train/loss"][0] == [3, 6]
    np.testing.assert_allclose(found["Train/loss"][1], main + 0.4 * auxiliary, rtol=1e-5)
    np.testing.assert_allclose(found["Train/loss_0"][1], main, rtol=1e-5)
    np.testing.assert_allclose(found["Train/loss_1"][1], 0.4 * auxiliary, rtol=1e-5)
    moving = [*WHOLE, "iters=6"]
    tiny_training.train(tmp_path, moving, save_dir=str(tmp_path / "each"), log_iters=1, save_interval=6)
    tiny_training.train(tmp_path, moving, save_dir=str(tmp_path / "four"), log_iters=4, save_interval=6)
    each, four = (read_scalars(tmp_path / name)["Train/loss"] for name in ("each", "four"))
    assert four[0] == [4, 6] and len(set(each[1])) == 6
    np.testing.assert_allclose(four[1], [np.mean(each[1][:4]), np.mean(each[1][4:])], rtol=1e-6)


@MODELS.add_component
class Modal(nn.Layer):
    """Class 0 or 1 by a batch normalisation with known statistics behind a dropout: another picture in each mode."""

    def __init__(self, num_classes=2):
        super().__init__()
        self.dropout, self.norm = nn.Dropout2D(0.9), nn.BatchNorm2D(1)
        self.norm._mean.set_value(np.float32([0.4]))

    def forward(self, x):
        """`[B, 3, H, W]` -> one list entry, `[B, 2, H, W]`."""
        grey = self.norm(self.dropout(x[:, :1]))
        return [paddle.concat([-grey, grey], axis=1)]


def test_an_evaluation_uses_stored_statistics_and_no_dropout(tmp_path):
    """The classes are those of `red > 0.7`, 0.4 in normalised values, though the model comes in training mode."""
    tiny_training.write_config(tmp_path)
    (tmp_path / "data/train.txt").write_text("image_0.png label_0.png\n" * 4)
    config = tmp_path / "config.yml"
    config.write_text(
        config.read_text().replace("TinyNet, num_classes: 3", "Modal").replace("num_classes: 3", "num_classes: 2")
    )
    red = [cv2.imread(str(tmp_path / f"data/image_{i}.png"))[..., 2] for i in range(3)]
    wanted = [((value / 255 - 0.5) / 0.5 > 0.4).astype(int) for value in red]
    for i, value in enumerate(wanted):
        assert 0 < value.mean() < 1
        cv2.imwrite(str(tmp_path / f"data/label_{i}.png"), value.astype("uint8"))
    resolved = Config(config, opts=["loss.coef=[1]"])
    model = Modal()
    for mode in (model.train, model.eval):
        mode()
        dataset = build(resolved.val_dataset_cfg, "dataset")
        result = evaluate(model, dataset, print_detail=False)
        np.testing.assert_array_equal(result.confusion, np.diag([sum((v == k).sum() for v in wanted) for k in (0, 1)]))
        assert model.norm._mean.numpy() == np.float32(0.4)
        predict(model, resolved, str(tmp_path / "data/image_1.png"), str(tmp_path / mode.__name__))
        stored = cv2.imread(str(tmp_path / mode.__name__ / "pseudo_color_prediction/image_1.png"))
        colours = [np.unique(stored[wanted[1] == k], axis=0) for k in (0, 1)]
        assert [len(found) for found in colours] == [1, 1] and (colours[0] != colours[1]).any()
    opts = ["loss.coef=[1]", "lr_scheduler.learning_rate=0.0", "iters=2", "model.type=Modal"]
    progress = tiny_training.train(tmp_path, opts, do_eval=True, save_interval=2)
    stored = read_params(tmp_path / "output/iter_2/model.pdparams")["norm._mean"]
    normalised = [(value / 255 - 0.5) / 0.5 > stored[0] for value in red]
    overlap = [
        sum(((n == k) & (w == k)).sum() for n, w in zip(normalised, wanted, strict=True))
        / sum(((n == k) | (w == k)).sum() for n, w in zip(normalised, wanted, strict=True))
        for k in (0, 1)
    ]
    assert progress.best_miou == pytest.approx(np.mean(overlap), abs=1e-6) and progress.best_miou > 0.1
