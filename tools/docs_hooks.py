# SPDX-License-Identifier: Apache-2.0
"""Hooks of mkdocs: pages link to files of the repository, which are there on GitHub and not in the site."""

import posixpath
import re
from pathlib import PurePosixPath

_FENCE = re.compile(r"^ *(```|~~~)")
_INLINE_CODE = re.compile(r"(`[^`]+`)")
_LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]`]|`[^`]*`)+)\]\((?P<target>[^)\s#]+)(?:#[^)\s]*)?\)")


def _is_outside(path: str) -> bool:
    return path == ".." or path.startswith("../")


def _as_text(match: re.Match, folder: str) -> str:
    """The link itself, or for a file outside docs/ its path as code, after the link's text where that says more."""
    if ":" in match["target"]:
        return match[0]
    path = posixpath.normpath(posixpath.join(folder, match["target"]))
    if not _is_outside(path):
        return match[0]
    path = path.removeprefix("../")
    plain = match["text"].strip("`")
    says_more = plain not in (path, PurePosixPath(path).name, PurePosixPath(path).stem)
    return f"{match['text']} (`{path}`)" if says_more else f"`{path}`"


def _in_line(line: str, folder: str) -> str:
    # Code that looks like a link stays; code inside a link's text belongs to the link.
    kept: list[str] = []

    def keep(match: re.Match) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    def restore(text: str) -> str:
        return re.sub("\0(\\d+)\0", lambda match: kept[int(match[1])], text)

    def replace(match: re.Match) -> str:
        whole = _LINK.fullmatch(restore(match[0]))
        return _as_text(whole, folder) if whole else match[0]

    return restore(_LINK.sub(replace, _INLINE_CODE.sub(keep, line)))


def unlink_outside(markdown: str, page: str) -> str:
    """Links to files outside docs/ as plain text with the file's path in code; everything else unchanged.

    Args:
        markdown: text of a page.
        page: its path below docs/.
    """
    lines, fence = [], None
    for line in markdown.split("\n"):
        mark = _FENCE.match(line)
        if mark and fence in (None, mark[1]):
            fence = None if fence else mark[1]
        elif fence is None:
            line = _in_line(line, posixpath.dirname(page))
        lines.append(line)
    return "\n".join(lines)


def on_page_markdown(markdown: str, page, **_) -> str:
    """Called by mkdocs for each page."""
    return unlink_outside(markdown, page.file.src_uri)
