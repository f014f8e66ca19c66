# SPDX-License-Identifier: Apache-2.0
"""Model names of the service and of Triton, which are parts of URLs, metrics and paths."""

import re

# A letter or digit, and then up to 99 letters, digits, '_', '.', '-'.
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"


def is_name(text: str) -> bool:
    """Whether `text` is a valid model name."""
    return re.fullmatch(NAME, text) is not None


def name_from(text: str) -> str:
    """A valid name made from `text`: other characters become '_', and `model` is put before a leading sign."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:100]
    return name if is_name(name) else f"model{name}"[:100]
