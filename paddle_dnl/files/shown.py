# SPDX-License-Identifier: Apache-2.0
"""Text for a log or a terminal: control characters, which file names may hold, as escapes."""

import re

# C0 but for tab and line feed, DEL, C1, line separators, marks that turn the direction of text, lone surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# A line of a file name that would look like one of ours.
_FORGED = re.compile(r"\n(?=\[|Error\b|Traceback\b)")


def _escape(match: re.Match) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def printable(text: str) -> str:
    """`text` without control characters; line breaks stay, and no later line begins like a log line or an error."""
    return _FORGED.sub("\n  ", _CONTROL.sub(_escape, text))
