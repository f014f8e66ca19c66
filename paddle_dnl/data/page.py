# SPDX-License-Identifier: Apache-2.0
"""Reports as one self-contained HTML file: sections with tables, pictures, bars and legends."""

import base64
import html
from dataclasses import dataclass, field
from pathlib import Path

from paddle_dnl.files.atomic import write_bytes

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2rem; border-bottom: 1px solid #d5dbe1; }
img { max-width: 100%; height: auto; } table { border-collapse: collapse; }
td, th { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid #e6eaee; }
figure { margin: 0 0 1rem; } figcaption, .note { color: #5b6873; font-size: 13px; }
.wide { overflow-x: auto; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bars td { padding: .1rem .6rem .1rem 0; border: 0; font-size: 13px; } .bars .track { width: 26rem; }
.bars td:last-child { white-space: nowrap; }
.bars b { display: block; height: .7em; border-radius: 2px; }
.legend span { display: inline-block; margin: 0 .9rem .2rem 0; font-size: 13px; white-space: nowrap; }
.legend i { display: inline-block; width: .9em; height: .9em; margin-right: .35em; vertical-align: -1px; }
"""


@dataclass
class Section:
    """A section of the page.

    Attributes:
        title: heading.
        rows: pairs of name and value.
        pictures: pairs of a PNG file, or the content of a JPEG file, and its caption.
        note: small text at the end.
        legend: pairs of name and (red, green, blue).
        table: rows of cells; the first row is the header.
        bars: bar chart: name, text, length in [0, 1] and colour of each bar.
    """

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    pictures: list[tuple[Path | bytes, str]] = field(default_factory=list)
    note: str = ""
    legend: list[tuple[str, tuple[int, int, int]]] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)
    bars: list[tuple[str, str, float, tuple[int, int, int]]] = field(default_factory=list)


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.rows:
        cells = "".join(f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in section.rows)
        parts.append(f'<div class="wide"><table>{cells}</table></div>')
    if section.table:
        head, *lines = section.table
        cells = "<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"
        for line in lines:
            kinds = (' class="number"' if cell[:1].isdigit() or cell == "-" else "" for cell in line)
            parts_of_line = (f"<td{kind}>{html.escape(cell)}</td>" for kind, cell in zip(kinds, line, strict=True))
            cells += "<tr>" + "".join(parts_of_line) + "</tr>"
        parts.append(f'<div class="wide"><table>{cells}</table></div>')
    if section.bars:
        lines = (
            f'<tr><td>{html.escape(name)}</td><td class="track">'
            f'<b style="width:{100 * length:.2f}%;background:rgb{color}"></b></td>'
            f"<td>{html.escape(text)}</td></tr>"
            for name, text, length, color in section.bars
        )
        parts.append(f'<table class="bars">{"".join(lines)}</table>')
    if section.legend:
        entries = (f'<span><i style="background:rgb{c}"></i>{html.escape(n)}</span>' for n, c in section.legend)
        spans = "".join(entries)
        parts.append(f'<p class="legend">{spans}</p>')
    for picture, caption in section.pictures:
        content, kind = (picture, "jpeg") if isinstance(picture, bytes) else (Path(picture).read_bytes(), "png")
        source, text = f"data:image/{kind};base64,{base64.b64encode(content).decode()}", html.escape(caption)
        parts.append(f'<figure><img alt="{text}" src="{source}"><figcaption>{text}</figcaption></figure>')
    if section.note:
        parts.append(f'<p class="note">{html.escape(section.note)}</p>')
    return "\n".join(parts)


def write_page(path: str | Path, title: str, subtitle: str, sections: list[Section]) -> None:
    """Writes the page atomically.

    Args:
        path: the HTML file.
        title, subtitle: head of the page.
        sections: in the order in which they are shown; pictures are embedded.
    """
    body = "\n".join(_section(section) for section in sections)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1><p>{html.escape(subtitle)}</p>{body}</body></html>\n"
    )
    write_bytes(path, page.encode("utf-8", "replace"))
