# SPDX-License-Identifier: Apache-2.0
"""Losses against NumPy in float64, values and gradients, and against paddleseg where it runs."""

from paddle_dnl import losses
from paddle_dnl.errors import ConfigError
from paddle_dnl.losses import CrossEntropyLoss, Losses, MixedLoss, OhemCrossEntropyLoss, build_losses

import numpy as np
import paddle
import pytest

rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(2, 4, 5, 6)).astype("float32") * 2
LABEL = rng.integers(0, 4, (2, 5, 6))
FULL, DRAW = LABEL.copy(), rng.random(LABEL.shape)
LABEL[DRAW < 0.2] = 255
VALID = LABEL != 255
WEIGHT = np.array([0.5, 2.0, 1.0, 3.0])
W = list(WEIGHT)

# Values of PaddleSeg 2.8.0 on Paddle 2.6.2: loss, share of ignored pixels, arguments, value.
PADDLESEG = [
    ("CrossEntropyLoss", 0.2, {}, 2.2943037),
    ("CrossEntropyLoss", 0.2, {"avg_non_ignore": False}, 1.8354429),
    ("CrossEntropyLoss", 0.2, {"weight": W}, 2.2844958),
    ("CrossEntropyLoss", 0.0, {"weight": W, "avg_non_ignore": False}, 2.4156702),
    ("CrossEntropyLoss", 0.2, {"top_k_percent_pixels": 0.35}, 3.8645332),
    ("CrossEntropyLoss", 0.2, {"top_k_percent_pixels": 0.35, "weight": W}, 3.3538947),
    ("CrossEntropyLoss", 0.8, {"top_k_percent_pixels": 0.7}, 0.9454468),
    ("CrossEntropyLoss", 0.8, {"top_k_percent_pixels": 0.7, "weight": W}, 1.7918211),
    ("CrossEntropyLoss", 0.2, {"top_k_percent_pixels": 0.55}, 3.0484390),
    ("OhemCrossEntropyLoss", 0.2, {"thresh": 0.7, "min_kept": 10000}, 2.2942748),
    ("OhemCrossEntropyLoss", 0.2, {"thresh": 0.7, "min_kept": 5}, 2.5350993),
    ("OhemCrossEntropyLoss", 0.2, {"thresh": 0.05, "min_kept": 20}, 4.0389295),
    ("OhemCrossEntropyLoss", 0.2, {"thresh": 0.3, "min_kept": 1}, 2.9946806),
    ("OhemCrossEntropyLoss", 0.2, {"thresh": 0.3, "min_kept": 0}, 2.2942748),
    ("OhemCrossEntropyLoss", 0.0, {"thresh": 0.3, "min_kept": 0}, 2.4653337),
    ("OhemCrossEntropyLoss", 1.0, {"thresh": 0.3, "min_kept": 3}, 0.0),
]


def _nll(logits=LOGITS, label=LABEL):
    """Negative log-likelihood of each pixel, 0 where ignored."""
    x = logits.astype(np.float64)
    log_p = x - x.max(1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
    inside = np.where(label == 255, 0, label)
    return np.where(label == 255, 0, -np.take_along_axis(log_p, inside[:, None], 1)[:, 0])


def _value(loss, logits=LOGITS, label=LABEL):
    return float(loss(paddle.to_tensor(logits), paddle.to_tensor(label)))


def test_plain():
    np.testing.assert_allclose(_value(CrossEntropyLoss()), _nll().sum() / VALID.sum(), rtol=1e-6)


def test_over_all_pixels():
    np.testing.assert_allclose(_value(CrossEntropyLoss(avg_non_ignore=False)), _nll().mean(), rtol=1e-6)


@pytest.mark.parametrize("avg_non_ignore", [True, False])
def test_weighted_mean(avg_non_ignore):
    weights = np.where(VALID, WEIGHT[np.where(VALID, LABEL, 0)], 0)
    wanted = (_nll() * weights).sum() / weights.sum()
    loss = CrossEntropyLoss(weight=W, avg_non_ignore=avg_non_ignore)
    np.testing.assert_allclose(_value(loss), wanted, rtol=1e-6)


def test_hardest_share():
    count = int(0.3 * LABEL.size)
    wanted = np.sort(_nll().ravel())[::-1][:count].mean()
    np.testing.assert_allclose(_value(CrossEntropyLoss(top_k_percent_pixels=0.3)), wanted, rtol=1e-6)
    weights = np.where(VALID, WEIGHT[np.where(VALID, LABEL, 0)], 0).ravel()
    order = np.argsort(-(_nll().ravel() * weights))[:count]
    wanted = (_nll().ravel() * weights)[order].mean() / weights[order].mean()
    np.testing.assert_allclose(
        _value(CrossEntropyLoss(weight=list(WEIGHT), top_k_percent_pixels=0.3)), wanted, rtol=1e-6
    )


@pytest.mark.parametrize("settings", [{}, {"avg_non_ignore": False}, {"weight": list(WEIGHT)}])
def test_gradient_by_formula(settings):
    logits = paddle.to_tensor(LOGITS, stop_gradient=False)
    CrossEntropyLoss(**settings)(logits, paddle.to_tensor(LABEL)).backward()
    p = np.exp(LOGITS.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    one_hot = np.moveaxis(np.eye(4)[np.where(VALID, LABEL, 0)], -1, 1)
    share = np.where(VALID, WEIGHT[np.where(VALID, LABEL, 0)] if "weight" in settings else 1.0, 0)
    total = LABEL.size if settings.get("avg_non_ignore") is False else share.sum()
    np.testing.assert_allclose(logits.grad.numpy(), (p - one_hot) * share[:, None] / total, atol=1e-7)


def test_number_of_hardest_pixels_is_rounded_as_paddleseg_does():
    """0.58 * 50 is below 29 in float64 and 29 in float32."""
    logits, label = LOGITS[..., :5], FULL[..., :5]
    wanted = np.sort(_nll(logits, label).ravel())[::-1][:29].mean()
    np.testing.assert_allclose(_value(CrossEntropyLoss(top_k_percent_pixels=0.58), logits, label), wanted, rtol=1e-6)


@pytest.mark.parametrize("name, ignored, settings, wanted", PADDLESEG)
def test_paddlesegs_values(name, ignored, settings, wanted):
    label = np.where(ignored > DRAW, 255, FULL)
    assert _value(getattr(losses, name)(**settings), label=label) == pytest.approx(wanted, rel=1e-6)
    if paddle.__version__.startswith("2."):  # on Paddle 3 most of theirs mix float32 with int64, which is refused
        import paddleseg.models.losses as theirs

        assert _value(getattr(theirs, name)(**settings), label=label) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("thresh, least", [(0.7, 5), (0.05, 20), (0.3, 1), (0.2, 47)])
def test_ohem_with_paddleseg_rule(thresh, least):
    p = np.exp(-_nll())
    kept = VALID & (p < max(thresh, np.sort(p[VALID])[least - 1]))
    wanted = (_nll() * kept).mean() / (kept.mean() + 1e-5)
    np.testing.assert_allclose(_value(OhemCrossEntropyLoss(thresh, least)), wanted, rtol=1e-6)


@pytest.mark.parametrize("weight", [None, W])
@pytest.mark.parametrize("thresh, per_image", [(0.05, 10), (0.7, 2), (0.9, 20), (1e-4, 1)])
def test_ohem_with_the_authors_rule(thresh, per_image, weight):
    """Hard, or among the hardest n per image of the batch; class weights multiply and do not divide."""
    p = np.exp(-_nll()[VALID])
    hardest = np.argsort(p)[: 2 * per_image]
    kept = p < thresh
    kept[hardest] = True
    assert kept.sum() >= 2 * per_image
    factors = np.ones(4) if weight is None else WEIGHT
    wanted = (_nll()[VALID] * factors[LABEL[VALID]])[kept].mean()
    loss = OhemCrossEntropyLoss(thresh, weight=weight, min_kept_per_image=per_image)
    np.testing.assert_allclose(_value(loss), wanted, rtol=1e-6)


def test_ohem_keeps_all_when_there_are_few():
    wanted = _nll().sum() / VALID.sum()
    np.testing.assert_allclose(_value(OhemCrossEntropyLoss(0.01, min_kept=10_000)), wanted, rtol=1e-4)


def test_ohem_of_the_authors_keeps_all_but_the_easiest_when_there_are_few():
    losses = np.sort(_nll()[VALID])
    for thresh, wanted in ((0.01, losses[1:].mean()), (1.1, losses.mean())):
        found = _value(OhemCrossEntropyLoss(thresh, min_kept_per_image=10_000))
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_ohem_leaves_out_pixels_that_are_certain():
    """Probabilities that round to 1 tie; they must not all come in behind the few that are wanted."""
    logits = np.zeros((1, 2, 4, 4), "float32")
    logits[:, 0] = 40
    logits[0, 0, 0, 0] = 1
    label = np.zeros((1, 4, 4), "int64")
    value = _value(OhemCrossEntropyLoss(0.7, min_kept_per_image=3), logits, label)
    np.testing.assert_allclose(value, np.log1p(np.exp(-1)), rtol=1e-6)


@pytest.mark.parametrize("loss", [
    CrossEntropyLoss(weight=W, top_k_percent_pixels=0.35),
    OhemCrossEntropyLoss(0.3, min_kept=5),
    OhemCrossEntropyLoss(0.05, weight=W, min_kept_per_image=6),
])  # fmt: skip
def test_gradient_by_differences(loss):
    """Central differences of the loss along random directions; the choice of pixels has no gradient."""
    logits = paddle.to_tensor(LOGITS, stop_gradient=False)
    loss(logits, paddle.to_tensor(LABEL)).backward()
    gradient = logits.grad.numpy().astype(np.float64)
    assert np.abs(np.moveaxis(gradient, 1, -1)[~VALID]).max() == 0
    for seed in range(3):
        direction = np.random.default_rng(seed).normal(size=LOGITS.shape)
        direction /= np.linalg.norm(direction)
        step = 2e-2
        ahead, behind = (_value(loss, (LOGITS + sign * step * direction).astype("float32")) for sign in (1, -1))
        np.testing.assert_allclose((ahead - behind) / (2 * step), (gradient * direction).sum(), atol=2e-4)


@pytest.mark.parametrize("loss", [
    CrossEntropyLoss(), CrossEntropyLoss(weight=[1] * 4), CrossEntropyLoss(avg_non_ignore=False),
    CrossEntropyLoss(top_k_percent_pixels=0.3, weight=W), OhemCrossEntropyLoss(min_kept=3),
    OhemCrossEntropyLoss(min_kept=0), OhemCrossEntropyLoss(min_kept_per_image=3, weight=W),
])  # fmt: skip
def test_nothing_labelled_is_zero_with_zero_gradient(loss):
    logits = paddle.to_tensor(LOGITS, stop_gradient=False)
    value = loss(logits, paddle.full([2, 5, 6], 255, "int64"))
    value.backward()
    assert float(value) == 0
    np.testing.assert_array_equal(logits.grad.numpy(), np.zeros_like(LOGITS))


@pytest.mark.parametrize("ignore", [-1, 2, 255])
@pytest.mark.parametrize("cls", [CrossEntropyLoss, OhemCrossEntropyLoss])
def test_any_label_can_be_the_ignored_one(cls, ignore):
    label = np.where(LABEL == 255, ignore, LABEL)
    counted = label != ignore
    wanted = _nll()[counted].mean()
    np.testing.assert_allclose(_value(cls(ignore_index=ignore), label=label), wanted, rtol=5e-5)


def test_half_precision_logits_are_computed_in_float32():
    """Differences that float16 cannot hold must survive; the CPU has no float16 kernels, bfloat16 casts do."""
    logits = paddle.to_tensor(LOGITS).astype("bfloat16")
    wanted = _nll(logits.astype("float32").numpy()).sum() / VALID.sum()
    value = CrossEntropyLoss()(logits, paddle.to_tensor(LABEL))
    assert value.dtype == paddle.float32
    np.testing.assert_allclose(float(value), wanted, rtol=1e-6)


class _Seen(paddle.nn.Layer):
    """Notes what it is called with."""

    def __init__(self, edge_label=False):
        super().__init__()
        self.edge_label = edge_label

    def forward(self, logits, label):
        self.seen = logits, label
        return logits.mean().reshape([1])


def test_all_outputs_with_names_and_coefficients():
    several = build_losses({"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.4]})
    found = several([paddle.to_tensor(LOGITS), paddle.to_tensor(2 * LOGITS)], paddle.to_tensor(LABEL))
    assert [name for name, _ in found] == ["CrossEntropyLoss_0", "CrossEntropyLoss_1"]
    np.testing.assert_allclose(float(found[0][1]), _nll().sum() / VALID.sum(), rtol=1e-6)
    np.testing.assert_allclose(float(found[1][1]), 0.4 * _nll(2 * LOGITS).sum() / VALID.sum(), rtol=1e-6)


def test_one_type_per_output():
    cfg = {"types": [{"type": "CrossEntropyLoss"}, {"type": "OhemCrossEntropyLoss", "min_kept": 5}], "coef": [1, 0.5]}
    found = build_losses(cfg)([paddle.to_tensor(LOGITS)] * 2, paddle.to_tensor(LABEL))
    wanted = 0.5 * _value(OhemCrossEntropyLoss(min_kept=5))
    assert found[1][0] == "OhemCrossEntropyLoss_1" and float(found[1][1]) == pytest.approx(wanted, rel=1e-6)


def test_losses_get_float32_outside_autocast_and_return_scalars():
    seen = _Seen()
    ((_, value),) = Losses([seen], [2.0])([paddle.to_tensor(LOGITS).astype("bfloat16")], paddle.to_tensor(LABEL))
    assert seen.seen[0].dtype == paddle.float32 and value.shape == []


def test_losses_on_edges():
    label, edges = paddle.to_tensor(LABEL), paddle.ones([2, 5, 6], "int64")
    seen = [_Seen(), _Seen(edge_label=True)]
    outputs = [paddle.to_tensor(LOGITS)] * 2
    Losses(seen, [1, 1])(outputs, label, edges)
    assert bool((seen[0].seen[1] == label).all()) and seen[1].seen[1] is edges
    with pytest.raises(ConfigError, match=r"loss\.types\.1: _Seen learns edges; set train_dataset\.edge"):
        Losses(seen, [1, 1])(outputs, label)


@pytest.mark.paddleseg
def test_loss_between_two_outputs():
    """PaddleSeg's KLLoss, here as second loss: it compares the outputs and never sees the label."""
    cfg = {"types": [{"type": "CrossEntropyLoss"}, {"type": "KLLoss"}], "coef": [1, 1]}
    several = build_losses(cfg)
    first = paddle.to_tensor(LOGITS, stop_gradient=False)
    second = paddle.to_tensor(LOGITS, stop_gradient=False)
    found = several([first, second], paddle.to_tensor(LABEL))
    assert float(found[1][1]) == pytest.approx(0, abs=1e-6)
    found[1][1].backward()
    assert second.grad is None and first.grad is not None


@pytest.mark.paddleseg
def test_mixed():
    cfg = {
        "types": [{
            "type": "MixedLoss", "coef": [0.8, 0.2],
            "losses": [{"type": "CrossEntropyLoss"}, {"type": "LovaszSoftmaxLoss"}],
        }],
        "coef": [2],
    }  # fmt: skip
    found = build_losses(cfg)([paddle.to_tensor(LOGITS)], paddle.to_tensor(LABEL))
    assert len(found) == 2
    np.testing.assert_allclose(float(found[0][1]), 2 * 0.8 * _nll().sum() / VALID.sum(), rtol=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_another_number_of_outputs_is_refused(outputs):
    two = build_losses({"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.4]})
    with pytest.raises(ConfigError, match=rf"loss\.types, loss\.coef: 2 losses for {outputs} outputs"):
        two([paddle.to_tensor(LOGITS)] * outputs, paddle.to_tensor(LABEL))


@pytest.mark.parametrize("cfg, message", [
    ({"types": [{"type": "CrossEntropyLos"}], "coef": [1]}, r"loss\.types\.0.*CrossEntropyLoss"),
    ({"types": [{"type": "CrossEntropyLoss"}] * 2, "coef": [1] * 3}, r"loss\.types: 2 losses for 3 coef"),
    ({"types": [{"type": "CrossEntropyLoss"}]}, "`types` and `coef`"),
    ({"types": [{"type": "CrossEntropyLoss", "top_k_percent_pixels": 0}], "coef": [1]}, r"loss\.types\.0.*in \(0, 1\]"),
    ({"types": [{"type": "CrossEntropyLoss", "data_format": "NHWC"}], "coef": [1]}, "NCHW"),
])  # fmt: skip
def test_refused_configurations(cfg, message):
    with pytest.raises(ConfigError, match=message):
        build_losses(cfg)


def test_refused_arguments():
    for loss in (CrossEntropyLoss(weight=[1, 1, 1]), OhemCrossEntropyLoss(weight=[1, 1, 1])):
        with pytest.raises(ConfigError, match="3 class weights for 4 classes"):
            _value(loss)
    with pytest.raises(ValueError, match="2 losses and 1 coef"):
        MixedLoss([1, 2], [1])


def test_outputs_that_are_no_tensors_and_a_models_own_computation():
    """As PaddleSeg's HRNet contrast (a mapping) and PIDNet (its own hook, with the whole batch) ask."""
    logits, label = paddle.to_tensor(LOGITS), paddle.to_tensor(LABEL)
    outputs = [{"seg": logits.astype("bfloat16"), "more": (logits, logits)}]

    def on_mapping(output, label):
        assert output["seg"].dtype == paddle.float32 and len(output["more"]) == 2
        return output["seg"].mean()

    ((_, value),) = Losses([on_mapping], [2.0])(outputs, label)
    np.testing.assert_allclose(float(value), 2 * float(logits.astype("bfloat16").astype("float32").mean()), rtol=1e-6)

    class Model:
        def loss_computation(self, outputs, losses, data):
            return [losses["coef"][0] * losses["types"][0](outputs[0], data["label"]), data["edge"].sum()]

    data = {"label": label, "edge": paddle.ones([3])}
    found = Losses([lambda x, y: x.sum()], [3.0])([logits, logits], label, None, Model(), data)
    assert [name for name, _ in found] == ["loss_0", "loss_1"]
    np.testing.assert_allclose([float(v) for _, v in found], [3 * float(logits.sum()), 3.0], rtol=1e-5)


def test_foreign_losses_keep_their_changes_and_skip_unlabelled_batches():
    """A loss that sets ignored pixels to class 0, as paddleseg's DiceLoss does, and fails on a batch without a label."""

    class Writing:
        ignore_index = 255
        seen = 0

        def __call__(self, logits, label):
            self.seen += 1
            assert bool((label != 255).any())
            label[label == 255] = 0
            return logits.sum()

    Writing.__module__ = "elsewhere"
    writing = Writing()
    logits = paddle.to_tensor(np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype("float32"), stop_gradient=False)
    label = paddle.to_tensor([[[0, 255, 1, 2]] * 4])
    before = label.numpy().copy()
    mixed = MixedLoss([writing, CrossEntropyLoss()], [1, 1])
    alone = float(CrossEntropyLoss()(logits, label))
    assert float(mixed(logits, label)[1]) == alone
    np.testing.assert_array_equal(label.numpy(), before)
    found = mixed(logits, paddle.full([1, 4, 4], 255, "int64"))
    sum(found).backward()
    assert [float(value) for value in found] == [0, 0] and writing.seen == 1
    assert not logits.grad.numpy().any()


@pytest.mark.paddleseg
@pytest.mark.parametrize("name", ["DiceLoss", "LovaszSoftmaxLoss", "OhemCrossEntropyLoss", "FocalLoss"])
@pytest.mark.parametrize("ignored", [255, 3])
def test_peers_losses_in_a_sum_do_no_harm(name, ignored):
    """Labels stay, the other loss is what it is alone, and a batch that is ignored in part or whole gives finite gradients."""
    shape, classes = (2, 8, 8), 2 if name == "FocalLoss" else 3
    rng = np.random.default_rng(0)
    label = rng.integers(0, classes, shape)
    label[0] = ignored
    cfg = {"type": "MixedLoss", "coef": [0.5, 0.5], "losses": [{"type": name}, {"type": "CrossEntropyLoss"}]}
    for inner in cfg["losses"]:
        inner["ignore_index"] = ignored
    losses = build_losses({"types": [cfg], "coef": [1]})
    for given in (label, np.full(shape, ignored)):
        logits = paddle.to_tensor(rng.normal(0, 1, (2, classes, 8, 8)).astype("float32"), stop_gradient=False)
        tensor = paddle.to_tensor(given)
        found = [value for _, value in losses([logits], tensor)]
        sum(found).backward()
        np.testing.assert_array_equal(tensor.numpy(), given)
        alone = CrossEntropyLoss(ignore_index=ignored)(logits, paddle.to_tensor(given))
        np.testing.assert_allclose(float(found[1]), 0.5 * float(alone), rtol=1e-6)
        assert np.isfinite([float(value) for value in found]).all() and np.isfinite(logits.grad.numpy()).all()
        if (given == ignored).all():
            assert float(sum(found)) == 0 and not logits.grad.numpy().any()
