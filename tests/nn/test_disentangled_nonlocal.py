# SPDX-License-Identifier: Apache-2.0
"""The DNL block against stored float64 outputs of the published modules and against a NumPy formula."""

import itertools
import json
from pathlib import Path

from paddle_dnl.nn.disentangled_nonlocal import DIALECTS, MODES, DisentangledNonLocal2D
from paddle_dnl.nn.whitening import WHITENINGS

import golden_seeds
import numpy as np
import paddle
import pytest

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "blocks"
WHITENING_NAMES = {
    "spatial-mean": "spatial",
    "none": "none",  # dnl_block.json
    "in": "in",
    "ln": "ln",
    "fln": "fln",
    "fln_nostd": "batch",
    "spatial": "position",  # dnl_block_official_extra.json
}
PRODUCT, SHARED = {"combine": "multiply"}, {"unary_key": "shared"}


pytestmark = pytest.mark.usefixtures("float64")


def our_name(torch_name: str) -> str:
    name = torch_name.split(".", 1)[1]
    for old, new in (
        ("conv_out.conv.", "conv_out._conv."),
        ("conv_out.bn.", "conv_out._batch_norm."),
        ("running_mean", "_mean"),
        ("running_var", "_variance"),
        ("conv_query", "theta"),
        ("conv_key", "phi"),
        ("conv_value", "g"),
        ("g.conv.", "g."),
        ("theta.conv.", "theta."),
        ("phi.conv.", "phi."),
    ):
        name = name.replace(old, new)
    return name


def load(block, arrays: dict) -> None:
    missing, unexpected = block.set_state_dict({name: paddle.to_tensor(a) for name, a in arrays.items()})
    assert not missing and not unexpected


def trainable_parameters(block) -> dict:
    """Without the running statistics, which Paddle lists as parameters too."""
    return {name: p for name, p in block.named_parameters() if not p.stop_gradient}


def golden_cases():
    for file in ("dnl_block", "dnl_block_official_extra"):
        index = json.loads((GOLDEN / f"{file}.json").read_text())
        for case in index["cases"]:
            extra = file.endswith("extra")
            spec = index["spec"] if extra else index["spec"][case["dialect"]]
            whitening = case.get("whiten_type") or case["whitening"]
            case["whitening"] = "global" if whitening == "ln" and not extra else WHITENING_NAMES[whitening]
            yield pytest.param(file, case, spec, id=case["key"])


@pytest.fixture(scope="module")
def golden_arrays():
    return {file: np.load(GOLDEN / f"{file}.npz") for file in ("dnl_block", "dnl_block_official_extra")}


@pytest.mark.parametrize("file, case, spec", list(golden_cases()))
def test_equals_the_published_modules(file, case, spec, golden_arrays):
    switches = dict(DIALECTS[case.get("dialect", "official")])
    block = DisentangledNonLocal2D(
        16,
        use_scale=case["use_scale"],
        temperature=case["temperature"],
        whitening=case["whitening"],
        mode=case.get("mode", "embedded_gaussian"),
        attention="streaming" if "12x17" in case["key"] else "auto",
        **switches,
    )
    load(block, {our_name(n): a.astype("float64") for n, a in golden_seeds.seeded_state(spec).items()})
    block.eval()
    x = paddle.to_tensor(golden_seeds.seeded_input(case["key"], case["x_shape"]).astype("float64"), stop_gradient=False)
    upstream = golden_seeds.seeded_input("grad:" + case["key"], case["x_shape"]).astype("float64")
    out = block(x)
    out.backward(paddle.to_tensor(upstream))

    stored = golden_arrays[file]
    prefix = case["key"] + "/"
    np.testing.assert_allclose(out.numpy(), stored[prefix + "out"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(x.grad.numpy(), stored[prefix + "grad_x"], rtol=0, atol=1e-8)
    ours = trainable_parameters(block)
    names = [name for name in stored.files if name.startswith(prefix + "grad/")]
    assert len(names) == len(ours)
    for name in names:
        grad = ours[our_name(name[len(prefix) + len("grad/") :])].grad
        np.testing.assert_allclose(grad.numpy(), stored[name], rtol=0, atol=1e-8, err_msg=name)


# ---- an independent formula -----------------------------------------------------------------------


def np_softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def np_whiten(a, kind):  # a: [B, N, C]
    axes = {
        "none": None,
        "spatial": 1,
        "in": 1,
        "global": (1, 2),
        "ln": (1, 2),
        "batch": (0, 1, 2),
        "fln": (0, 1, 2),
        "position": 2,
    }[kind]
    if axes is None:
        return a
    centred = a - a.mean(axes, keepdims=True)
    if kind in ("in", "ln", "fln"):
        centred = centred / np.sqrt(a.var(axes, ddof=1, keepdims=True) + 1e-5)
    return centred


def np_conv(p, name, a):  # 1x1 on [B, N, C]
    y = a @ p[name + ".weight"][:, :, 0, 0].T
    return y + p[name + ".bias"] if name + ".bias" in p else y


def np_norm(p, name, a):  # inference form on [..., C]
    return (a - p[name + "._mean"]) / np.sqrt(p[name + "._variance"] + 1e-5) * p[name + ".weight"] + p[name + ".bias"]


def np_block(x, p, mode, whitening, scale, output, gate, norm, pairwise=True, unary=True, pool=False, **terms):
    """Float64, every N x M weight written out. `terms`: unary_key and combine."""
    b, c, h, w = x.shape
    source = x
    if pool:
        source = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(b, c, h // 2, 2, w // 2, 2).max((3, 5))
    flat, flat_source = (a.reshape(b, c, -1).transpose(0, 2, 1) for a in (x, source))
    values = np_conv(p, "g", flat_source)
    n, m = flat.shape[1], flat_source.shape[1]
    weight, product = np.zeros((b, n, m)), None
    shared, multiply = terms.get("unary_key") == "shared", terms.get("combine") == "multiply"
    if shared:
        raw_q, raw_k = (np_conv(p, name, a) for name, a in (("theta", flat), ("phi", flat_source)))
        mask = np.einsum("bc,bjc->bj", raw_q.mean(1), raw_k)
    elif unary:
        mask = np_conv(p, "conv_mask", flat_source)[..., 0]
    if pairwise:
        q = np_whiten(flat if mode == "gaussian" else np_conv(p, "theta", flat), whitening)
        k = np_whiten(flat_source if mode == "gaussian" else np_conv(p, "phi", flat_source), whitening)
        if mode == "concatenation":
            both = np.concatenate([np.repeat(q[:, :, None], m, 2), np.repeat(k[:, None], n, 1)], -1)
            logits = np_conv(p, "concat_project._conv", both)
            logits = np_norm(p, "concat_project._batch_norm", logits) if norm else logits
            weight = np.maximum(logits[..., 0], 0) / m
        else:
            product = np.einsum("bic,bjc->bij", q, k)
            weight = product / m if mode == "dot_product" else np_softmax(product * scale)
        weight = weight * p["gamma"] if gate else weight
    if multiply:
        weight = np.exp(product * scale) * np.exp(mask)[:, None]
        weight = weight / weight.sum(-1, keepdims=True)
    elif unary:
        weight = weight + np_softmax(mask)[:, None]
    y = weight @ values
    if output != "none":
        y = np_norm(p, "conv_out._batch_norm", np_conv(p, "conv_out._conv", y))
        y = np.maximum(y, 0) if output == "conv_bn_relu" else y
    return x + y.transpose(0, 2, 1).reshape(x.shape)


def random_parameters(block, rng) -> dict:
    values = {}
    for name, tensor in block.state_dict().items():
        if name.endswith("_variance"):
            values[name] = rng.uniform(0.5, 1.5, tensor.shape)
        else:
            values[name] = 0.4 * rng.standard_normal(tensor.shape)
    return values


def compare_with_formula(
    whitening="spatial",
    mode="embedded_gaussian",
    shape=(2, 6, 4, 5),
    sub_sample=False,
    use_scale=True,
    temperature=0.5,
    value_channels=None,
    dialect="paddleseg",
    **switches,
):
    rng = np.random.default_rng(7)
    preset = {**DIALECTS[dialect], **switches}
    block = DisentangledNonLocal2D(
        shape[1],
        mode=mode,
        whitening=whitening,
        temperature=temperature,
        use_scale=use_scale,
        sub_sample=sub_sample,
        value_channels=value_channels,
        **preset,
    )
    block.eval()
    p = random_parameters(block, rng)
    load(block, p)
    x = rng.standard_normal(shape)
    inner = shape[1] // 2
    scale = 1 / temperature / (inner**0.5 if use_scale else 1) if mode == "embedded_gaussian" else 1.0
    arguments = dict(
        mode=mode,
        whitening=whitening,
        scale=scale,
        output=preset["output"],
        gate=preset.get("gamma_gate", False),
        norm=preset.get("concat_norm", False),
        pairwise=preset.get("pairwise", True),
        unary=preset.get("unary", True),
        pool=sub_sample,
        unary_key=preset.get("unary_key", "own"),
        combine=preset.get("combine", "add"),
    )
    upstream = rng.standard_normal(shape)
    tensor = paddle.to_tensor(x, stop_gradient=False)
    out = block(tensor)
    np.testing.assert_allclose(out.numpy(), np_block(x, p, **arguments), rtol=0, atol=1e-10)
    out.backward(paddle.to_tensor(upstream))

    # Derivative along a random direction of input and parameters together, by central differences.
    trainable = trainable_parameters(block)
    dx, step = rng.standard_normal(shape), 1e-6
    dp = {name: rng.standard_normal(a.shape) if name in trainable else np.zeros_like(a) for name, a in p.items()}

    def loss(t):
        return (np_block(x + t * dx, {n: a + t * dp[n] for n, a in p.items()}, **arguments) * upstream).sum()

    expected = (loss(step) - loss(-step)) / (2 * step)
    ours = (tensor.grad.numpy() * dx).sum()
    ours += sum((v.grad.numpy() * dp[n]).sum() for n, v in trainable.items() if v.grad is not None)
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-6)
    return block


@pytest.mark.parametrize("dialect, mode, whitening", list(itertools.product(DIALECTS, MODES, WHITENINGS)))
def test_equals_formula(dialect, mode, whitening):
    compare_with_formula(dialect=dialect, mode=mode, whitening=whitening)


@pytest.mark.parametrize("mode", MODES)
def test_sub_sample_pools_key_value_and_mask(mode):
    compare_with_formula(mode=mode, sub_sample=True, shape=(2, 6, 5, 7))


@pytest.mark.parametrize(
    "switches",
    [
        {"unary": False},
        {"unary": False, "whitening": "none", "temperature": 1.0},
        {"pairwise": False},
        {"use_scale": False},
        {"value_channels": 5},
        {"gamma_gate": True},
        {"pairwise": False, "gamma_gate": True},
        {"dialect": "official", "unary": False},
        {"dialect": "official", "pairwise": False},
        {"dialect": "mmseg", "pairwise": False},
        {"attention": "streaming"},
        {"reduction": 2, "shape": (1, 6, 1, 1)},
        {"unary_key": "shared"},
        {"unary_key": "shared", "sub_sample": True, "dialect": "official"},
        {"combine": "multiply"},
        {"combine": "multiply", "attention": "streaming"},
        {"combine": "multiply", "mode": "gaussian", "sub_sample": True},
        {"combine": "multiply", "unary_key": "shared", "dialect": "mmseg"},
    ],
    ids=str,
)
def test_switches_equal_formula(switches):
    compare_with_formula(**switches)


def test_plain_block_is_the_product_of_its_two_hidden_terms():
    """The paper's starting point: whitened pairwise times softmax of mean q . k, with shared keys, is plain non-local."""
    plain = DisentangledNonLocal2D(6, whitening="none", unary=False, temperature=1.0, use_scale=False)
    product = DisentangledNonLocal2D(6, combine="multiply", unary_key="shared", temperature=1.0, use_scale=False)
    assert list(product.state_dict()) == list(plain.state_dict())
    parameters = random_parameters(plain, np.random.default_rng(3))
    x = paddle.to_tensor(np.random.default_rng(4).standard_normal((2, 6, 3, 4)))
    for block in (plain, product):
        load(block, parameters)
        block.eval()
    np.testing.assert_allclose(product(x).numpy(), plain(x).numpy(), atol=1e-12)
    product.combine = "add"
    assert np.abs(product(x).numpy() - plain(x).numpy()).max() > 0.01


def test_key_mean_is_irrelevant_and_query_mean_is_not():
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 1, 9, 4))
    centred_q, centred_k = q - q.mean(1, keepdims=True), k - k.mean(1, keepdims=True)
    both = np_softmax(centred_q @ centred_k.transpose(0, 2, 1)) @ v
    np.testing.assert_allclose(np_softmax(centred_q @ k.transpose(0, 2, 1)) @ v, both, atol=1e-12)
    assert np.abs(np_softmax(q @ centred_k.transpose(0, 2, 1)) @ v - both).max() > 0.01


@pytest.mark.parametrize("dialect, identity", [("paddleseg", False), ("mmseg", True), ("official", False)])
def test_start(dialect, identity):
    block = DisentangledNonLocal2D(16, **DIALECTS[dialect])
    x = paddle.randn([1, 16, 6, 6])
    block.eval()
    assert bool(paddle.allclose(block(x), x)) is identity
    if dialect == "official":  # only the unary term acts
        alone = DisentangledNonLocal2D(16, pairwise=False, **DIALECTS[dialect])
        alone.set_state_dict({n: block.state_dict()[n] for n in alone.state_dict()})
        alone.eval()
        np.testing.assert_allclose(block(x).numpy(), alone(x).numpy(), atol=1e-12)
    if dialect != "paddleseg":
        assert abs(float(block.theta.weight.std()) - 0.01) < 0.003
        assert float(block.theta.bias.abs().max()) == 0


def test_parameter_count_at_512_channels():
    blocks = {dialect: DisentangledNonLocal2D(512, **DIALECTS[dialect]) for dialect in DIALECTS}
    counts = {d: sum(int(p.size) for p in trainable_parameters(block).values()) for d, block in blocks.items()}
    assert counts == {"paddleseg": 526593, "mmseg": 526593, "official": 525314}


def test_batch_norm_in_training_sees_every_position():
    """Concatenation with batch norm in training: the same statistics as a norm over the written-out map."""
    block = DisentangledNonLocal2D(6, mode="concatenation", **DIALECTS["paddleseg"])
    rng = np.random.default_rng(1)
    p = random_parameters(block, rng)
    load(block, p)
    x = rng.standard_normal((2, 6, 3, 4))
    block(paddle.to_tensor(x))
    flat = x.reshape(2, 6, -1).transpose(0, 2, 1)
    q, k = (np_whiten(np_conv(p, name, flat), "spatial") for name in ("theta", "phi"))
    weight = p["concat_project._conv.weight"].reshape(-1)
    logits = (q @ weight[:3])[:, :, None] + (k @ weight[3:])[:, None]
    norm = block.concat_project._batch_norm
    expected = 0.9 * p["concat_project._batch_norm._mean"] + 0.1 * logits.mean()
    np.testing.assert_allclose(norm._mean.numpy(), expected, atol=1e-10)


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"mode": "cosine"}, "embedded_gaussian"),
        ({"whitening": "channel"}, "spatial"),
        ({"output": "x"}, "conv_bn"),
        ({"pairwise": False, "unary": False}, "pairwise"),
        ({"temperature": 0}, "temperature"),
        ({"unary_key": "other"}, "shared"),
        ({"combine": "divide"}, "multiply"),
        ({"unary_key": "shared", "unary": False}, "unary_key"),
        ({"unary_key": "shared", "mode": "dot_product"}, "unary_key"),
        ({"combine": "multiply", "pairwise": False}, "combine"),
        ({"combine": "multiply", "mode": "concatenation"}, "combine"),
        ({"combine": "multiply", "gamma_gate": True}, "gamma_gate"),
        ({"output": "none", "value_channels": 3}, "value_channels"),
        ({"output": "none", "zero_init": True}, "zero_init"),
    ],
)
def test_wrong_arguments_are_named(arguments, word):
    with pytest.raises(ValueError, match=word):
        DisentangledNonLocal2D(8, **arguments)


@pytest.mark.parametrize("switches", [{"mode": mode} for mode in MODES] + [PRODUCT, SHARED], ids=str)
@pytest.mark.parametrize("shape", [[2, 8, 6, 5], [-1, 8, 6, 5], [-1, 8, -1, -1]], ids=str)
def test_static_graph_equals_dynamic(switches, shape, tmp_path):
    paddle.set_default_dtype("float32")
    block = DisentangledNonLocal2D(8, **switches, **DIALECTS["paddleseg"])
    block.eval()
    x = paddle.randn([2, 8, 6, 5])
    expected = block(x).numpy()
    spec = [paddle.static.InputSpec(shape, "float32", "x")]
    paddle.jit.save(paddle.jit.to_static(block, input_spec=spec, full_graph=True), str(tmp_path / "block"))
    loaded = paddle.jit.load(str(tmp_path / "block"))
    np.testing.assert_allclose(loaded(x).numpy(), expected, rtol=1e-5, atol=1e-5)
    if shape[0] == -1:
        assert loaded(x[:1]).shape == [1, 8, 6, 5]
