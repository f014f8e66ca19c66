# SPDX-License-Identifier: Apache-2.0
"""Whitening of queries and keys in the disentangled non-local block: subtracted means and divisors.

| name       | subtracted mean over      | std | official name, temp / nowd block | used by          |
|------------|---------------------------|-----|----------------------------------|------------------|
| `none`     | -                         | -   | -                                | plain non-local  |
| `spatial`  | positions, per channel    | -   | `channel` / `in_nostd`           | paper, `temp_in` |
| `global`   | positions, channels       | -   | `ln_nostd` / `ln_nostd`          | `nowd_ln`        |
| `batch`    | batch, positions, channels| -   | - / `fln_nostd`                  |                  |
| `position` | channels, per position    | -   | `spatial` / -                    |                  |
| `in`       | positions, per channel    | yes | - / `in`                         |                  |
| `ln`       | positions, channels       | yes | - / `ln`                         |                  |
| `fln`      | batch, positions, channels| yes | - / `fln`                        |                  |

Note the trap in the official names: their `channel` is the mean over space, their `spatial` over channels.
The variance is the unbiased one, with 1e-5 added before the root; nothing is affine.
"""

# name -> (axes of [B, N, C] that are averaged, whether to divide by the standard deviation)
_RULES = {
    "none": ((), False),
    "spatial": ((1,), False),
    "global": ((1, 2), False),
    "batch": ((0, 1, 2), False),
    "position": ((2,), False),
    "in": ((1,), True),
    "ln": ((1, 2), True),
    "fln": ((0, 1, 2), True),
}
WHITENINGS = tuple(_RULES)

# Taking these means off the key adds the same number to all logits of a row, which its softmax cancels.
KEY_MEAN_IS_IRRELEVANT = ("none", "spatial", "global", "batch")


def whiten(x, kind: str):
    """Whitens queries or keys.

    Args:
        x: `[B, N, C]`, positions second.
        kind: a name of the table above.

    Returns:
        `[B, N, C]`.
    """
    axes, divide = _RULES[kind]
    if not axes:
        return x
    axes = list(axes)
    centred = x - x.mean(axis=axes, keepdim=True)
    if not divide:
        return centred
    return centred / (x.var(axis=axes, unbiased=True, keepdim=True) + 1e-5).sqrt()
