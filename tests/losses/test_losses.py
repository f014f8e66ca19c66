"""Losses against NumPy in float64, values and gradients, and against paddleseg where it runs."""

from paddle_dnl.errors import ConfigError
from paddle_dnl.losses import CrossEntropyLoss, MixedLoss, OhemCrossEntropyLoss, build_losses

import numpy as np
import paddle
import pytest

rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(2, 4, 5, 6)).astype("float32") * 2
LABEL = rng.integers(0, 4, (2, 5, 6))
LABEL[rng.random(LABEL.shape) < 0.2] = 255
VALID = LABEL != 255
WEIGHT = np.array([0.5, 2.0, 1.0, 3.0])


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


def test_weighted_mean():
    weights = np.where(VALID, WEIGHT[np.where(VALID, LABEL, 0)], 0)
    wanted = (_nll() * weights).sum() / weights.sum()
    np.testing.assert_allclose(_value(CrossEntropyLoss(weight=list(WEIGHT))), wanted, rtol=1e-6)


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


def _hard_by_hand(thresh, least, strict):
    """Which pixels count, after the description of each rule."""
    p = np.exp(-_nll())
    sorted_p = np.sort(np.where(VALID, p, 2).ravel())
    limit = max(thresh, sorted_p[least - 1]) if least else thresh
    return VALID & ((p < limit) if strict else (p <= limit + 1e-9))


@pytest.mark.parametrize("thresh, least", [(0.7, 5), (0.05, 20), (0.3, 1)])
def test_ohem_with_paddleseg_rule(thresh, least):
    kept = _hard_by_hand(thresh, least, strict=True)
    wanted = (_nll() * kept).mean() / (kept.mean() + 1e-5)
    np.testing.assert_allclose(_value(OhemCrossEntropyLoss(thresh, least)), wanted, rtol=1e-5)


@pytest.mark.parametrize("thresh, per_image", [(0.05, 10), (0.7, 2), (0.05, 1000)])
def test_ohem_with_the_authors_rule(thresh, per_image):
    """At least that many per image and batch; class weights multiply and do not divide."""
    least = min(per_image * 2, LABEL.size)
    kept = _hard_by_hand(thresh, least, strict=False)
    assert kept.sum() >= min(least, VALID.sum())
    weights = WEIGHT[np.where(VALID, LABEL, 0)]
    wanted = (_nll() * kept * weights).sum() / kept.sum()
    loss = OhemCrossEntropyLoss(thresh, weight=list(WEIGHT), min_kept_per_image=per_image)
    np.testing.assert_allclose(_value(loss), wanted, rtol=2e-3 if kept.sum() < 3 else 1e-4)


def test_ohem_keeps_all_when_there_are_few():
    np.testing.assert_allclose(_value(OhemCrossEntropyLoss(0.01, 10_000)), _nll().sum() / VALID.sum(), rtol=1e-4)


@pytest.mark.parametrize(
    "loss", [CrossEntropyLoss(), OhemCrossEntropyLoss(min_kept=3), CrossEntropyLoss(weight=[1] * 4)]
)
def test_nothing_labelled_is_zero_and_finite(loss):
    logits = paddle.to_tensor(LOGITS, stop_gradient=False)
    value = loss(logits, paddle.full([2, 5, 6], 255, "int64"))
    value.backward()
    assert float(value) == 0 and np.isfinite(logits.grad.numpy()).all()


def test_against_live_paddleseg_where_it_runs():
    from paddleseg.models import losses as theirs

    label = paddle.to_tensor(LABEL)
    for settings in ({"top_k_percent_pixels": 0.4}, {"avg_non_ignore": True}):
        if "avg_non_ignore" in settings and not paddle.__version__.startswith("2."):
            continue  # theirs adds float32 to int64 there, which Paddle 3 refuses
        wanted = float(theirs.CrossEntropyLoss(**settings)(paddle.to_tensor(LOGITS), label))
        np.testing.assert_allclose(_value(CrossEntropyLoss(**settings)), wanted, rtol=1e-5)


def test_half_precision_logits_are_computed_in_float32():
    """Differences that float16 cannot hold must survive; the CPU has no float16 kernels, bfloat16 casts do."""
    logits = paddle.to_tensor(LOGITS).astype("bfloat16")
    wanted = _nll(logits.astype("float32").numpy()).sum() / VALID.sum()
    value = CrossEntropyLoss()(logits, paddle.to_tensor(LABEL))
    assert value.dtype == paddle.float32
    np.testing.assert_allclose(float(value), wanted, rtol=1e-6)


def test_all_outputs_with_names_and_coefficients():
    losses = build_losses({"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.4]})
    found = losses([paddle.to_tensor(LOGITS), paddle.to_tensor(2 * LOGITS)], paddle.to_tensor(LABEL))
    assert [name for name, _ in found] == ["CrossEntropyLoss_0", "CrossEntropyLoss_1"]
    np.testing.assert_allclose(float(found[1][1]), 0.4 * _nll(2 * LOGITS).sum() / VALID.sum(), rtol=1e-6)


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


def test_refusals():
    with pytest.raises(ConfigError, match="1 losses for 2 outputs"):
        build_losses({"types": [{"type": "CrossEntropyLoss"}], "coef": [1]})([paddle.to_tensor(LOGITS)] * 2, LABEL)
    with pytest.raises(ConfigError, match=r"loss\.types\.0.*CrossEntropyLoss"):
        build_losses({"types": [{"type": "CrossEntropyLos"}], "coef": [1]})
    with pytest.raises(ValueError, match="3 class weights for 4 classes"):
        _value(CrossEntropyLoss(weight=[1, 1, 1]))
    with pytest.raises(ValueError, match="2 losses and 1 coef"):
        MixedLoss([1, 2], [1])
