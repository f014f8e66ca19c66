# SPDX-License-Identifier: Apache-2.0
"""Reads a TIPC text file: one `key:value` per line, addressed by line number (see README.md for the table of lines)."""

from dataclasses import dataclass
from pathlib import Path

MODES = ("lite_train_lite_infer", "lite_train_whole_infer", "whole_train_whole_infer", "whole_infer", "benchmark_train")
MINIMUM_LINES = 52


class TipcError(Exception):
    """The file or the mode cannot be used; the message names the line."""


def _is_null(text: str) -> bool:
    return text.strip() in ("", "null")


@dataclass(frozen=True)
class Line:
    """One line: what stands before the first colon and what stands between it and the second."""

    number: int
    key: str
    value: str

    @property
    def choices(self) -> list[str]:
        """The alternatives of the value, separated by `|`."""
        return self.value.split("|")

    def flag(self, value: str | None = None) -> list[str]:
        """`["key=value"]`, or nothing when key or value is blank or `null`."""
        value = self.value if value is None else value
        return [] if _is_null(self.key) or _is_null(value) else [f"{self.key}={value}"]

    @property
    def command(self) -> str | None:
        """The value as a command, None for `null`."""
        return None if _is_null(self.value) else self.value

    def for_mode(self, mode: str) -> str:
        """The part of `mode=value|mode=value` that belongs to a mode; a plain value serves all."""
        for choice in self.choices:
            name, equals, value = choice.partition("=")
            if not equals:
                return choice
            if name == mode:
                return value
        raise TipcError(f"line {self.number} ({self.key}) has no value for mode {mode}: {self.value}")


class TipcConfig:
    """A TIPC file.

    Args:
        path: of the text file.

    Raises:
        TipcError: it is missing or has fewer than 52 lines.
    """

    def __init__(self, path: str | Path):
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise TipcError(f"{path}: cannot be read ({error.strerror})") from error
        # Empty lines do not count; section heads and ## do.
        self._lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
        self.path = path
        if len(self._lines) < MINIMUM_LINES:
            raise TipcError(f"{path}: {len(self._lines)} lines, a TIPC file has at least {MINIMUM_LINES}")

    def line(self, number: int) -> Line:
        """Line `number`, counted from 1 without empty lines."""
        fields = self._lines[number - 1].split(":")
        return Line(number, fields[0].strip(), fields[1].strip() if len(fields) > 1 else "")

    def find(self, key: str, default: str = "") -> str:
        """The value of the last line with this key, for the optional sections at the end."""
        found = [line.split(":", 1)[1].strip() for line in self._lines if line.split(":", 1)[0].strip() == key]
        return found[-1] if found else default

    @property
    def model_name(self) -> str:
        """The model's name, which is also its output folder."""
        return self.line(2).value

    @property
    def python(self) -> str:
        """The interpreter command."""
        return self.line(3).value
