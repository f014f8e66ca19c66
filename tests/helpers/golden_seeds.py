# SPDX-License-Identifier: Apache-2.0
"""Weights, inputs and label maps of the golden files, regenerated from names.

The golden files store no weights: a tensor is a function of its name and shape in the reference framework's
naming (torch names, OIHW convolutions, [out, in] matrices). The generator is NumPy's legacy RandomState seeded
with the CRC32 of the name; values are formed in float64 and rounded once to float32. The rules are those of the
files' author (published as CC0); `state_check` tells whether a state is the one behind the reference outputs.
"""

import re
import zlib

import numpy as np

# Standard deviation of a weight with 2 or more dimensions, times sqrt(fan in); the first match counts.
_GAINS = (
    (r"conv_offset\.weight$", 0.6),
    (r"(attn\.proj|mlp\.fc2)\.weight$", 0.4),
    (r"(attn\.qkv|mlp\.fc1)\.weight$", 0.7),
    (r"(theta|phi|conv_query|conv_key)(\.conv)?\.weight$", 0.6),
    (r"conv_mask\.weight$", 2.0),
    (r"(^|\.)(g\.conv|conv_value|conv_out\.conv)\.weight$", 1.0),
    (r"(conv_seg|nlm\.bottleneck\.3|dsn\.2)\.weight$", 3.0),
    (r"", 1.9**0.5),
)
_QUERY_OR_KEY_BIAS = re.compile(r"(^|\.)(theta|phi|conv_query|conv_key)(\.conv)?\.bias$")
_LAST_NORM_OF_BOTTLENECK = re.compile(r"layer\d+\.\d+\.bn3\.weight$")


def _random(key: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)


def _gain(name: str) -> float:
    return next(gain for pattern, gain in _GAINS if re.search(pattern, name))


def _weight(name: str, shape: tuple, random: np.random.RandomState) -> np.ndarray:
    """2 or more dimensions: normal; from a fan of 64 the mean of each output row is taken off first."""
    fan = int(np.prod(shape[1:]))
    a = random.randn(*shape)
    if fan >= 64:  # the mean from integers, so that it does not depend on the order of summation
        totals = np.rint(a * 2.0**20).astype(np.int64).reshape(shape[0], fan).sum(1)
        a -= (totals / (2.0**20 * fan)).reshape((shape[0],) + (1,) * (len(shape) - 1))
    return a * (_gain(name) / fan**0.5)


def seeded_array(name: str, shape) -> np.ndarray:
    """The tensor called `name`."""
    shape, last, random = tuple(int(s) for s in shape), name.rsplit(".", 1)[-1], _random(name)
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if last == "running_var":
        a = 0.5 + random.random_sample(shape)
    elif last == "running_mean":
        a = 0.1 * random.randn(*shape)
    elif last == "gamma":
        a = np.full(shape, 0.7)
    elif last in ("rel_height", "rel_width"):
        a = 0.5 / shape[1] ** 0.5 * random.randn(*shape)
    elif name.endswith("conv_offset.bias"):
        a = 0.5 * random.randn(*shape)
    elif _QUERY_OR_KEY_BIAS.search(name):
        a = 0.3 + 0.2 * random.randn(*shape)
    elif last == "bias":
        a = 0.05 * random.randn(*shape)
    elif len(shape) == 1 and last == "weight":  # the scale of a norm layer
        a = (0.25 if _LAST_NORM_OF_BOTTLENECK.search(name) else 1.0) * (0.5 + random.random_sample(shape))
    else:
        a = _weight(name, shape, random)
    return np.asarray(a).astype(np.float32)


def seeded_state(spec) -> dict[str, np.ndarray]:
    """All tensors of a `[[name, shape], ...]` list."""
    return {name: seeded_array(name, shape) for name, shape in spec}


def seeded_input(key: str, shape) -> np.ndarray:
    """N(0, 1), float32."""
    return _random("input:" + key).randn(*shape).astype(np.float32)


def seeded_label(key: str, shape, num_classes: int, ignore_frac: float = 0.1) -> np.ndarray:
    """Label map `(n, h, w)`, int64, 255 = ignore."""
    random = _random("label:" + key)
    label = np.floor(random.random_sample(shape) * num_classes).astype(np.int64)
    label[random.random_sample(shape) < ignore_frac] = 255
    return label


def seeded_offset(key: str, shape) -> np.ndarray:
    """Deformable offsets: 1.5 N, every tenth 20 times larger, off the integers, where the gradient jumps."""
    random = _random("offset:" + key)
    a = 1.5 * random.randn(*shape)
    a = np.where(random.random_sample(shape) < 0.1, 20 * a, a)
    fraction = a - np.floor(a)
    return np.where(fraction < 0.02, a + 0.05, np.where(fraction > 0.98, a - 0.05, a)).astype(np.float32)


def state_check(state: dict) -> list[float]:
    """Sum and sum of magnitudes of all float tensors, in float64."""
    arrays = [np.asarray(state[name]).astype(np.float64) for name in sorted(state) if state[name].dtype.kind == "f"]
    return [float(sum(a.sum() for a in arrays)), float(sum(np.abs(a).sum() for a in arrays))]
