# SPDX-License-Identifier: Apache-2.0
"""Files with class probabilities."""

import io

import numpy as np


def probability_file(probabilities: np.ndarray, kind: str) -> bytes:
    """The content of an .npz file with `probabilities` `[K, h, w]`; `kind`: `float16`, or `uint8` for round(255 * p)."""
    kept = np.rint(probabilities * 255).astype(np.uint8) if kind == "uint8" else probabilities.astype(np.float16)
    content = io.BytesIO()
    np.savez_compressed(content, probabilities=kept)
    return content.getvalue()
