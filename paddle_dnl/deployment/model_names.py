# SPDX-License-Identifier: Apache-2.0
"""Names of models in the service and in Triton: parts of URLs, metrics and paths."""

import re

# A letter or digit, and then up to 99 letters, digits, '_', '.', '-'.
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"


def is_name(text: str) -> bool:
    """Whether a text is the name of a model."""
    return re.fullmatch(NAME, text) is not None


def name_from(text: str) -> str:
    """A name made from any text: other characters become '_', and one that starts with a sign gets `model` before it."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:100]
    return name if is_name(name) else f"model{name}"[:100]
