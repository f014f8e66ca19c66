"""A training report as one HTML file that needs nothing beside it."""

import base64
import html
from dataclasses import dataclass, field
from pathlib import Path

from paddle_dnl.files.atomic import write_text

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2rem; border-bottom: 1px solid #d5dbe1; }
img { max-width: 100%; height: auto; } table { border-collapse: collapse; }
td, th { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid #e6eaee; }
figure { margin: 0 0 1rem; } figcaption, .note { color: #5b6873; font-size: 13px; }
.legend span { display: inline-block; margin: 0 .9rem .2rem 0; font-size: 13px; white-space: nowrap; }
.legend i { display: inline-block; width: .9em; height: .9em; margin-right: .35em; vertical-align: -1px; }
"""


@dataclass
class Section:
    """A heading with a table, pictures and a note."""

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    pictures: list[tuple[Path, str]] = field(default_factory=list)
    note: str = ""
    legend: list[tuple[str, tuple[int, int, int]]] = field(default_factory=list)


def _picture(path: Path, caption: str) -> str:
    data = base64.b64encode(Path(path).read_bytes()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.rows:
        cells = "".join(f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in section.rows)
        parts.append(f"<table>{cells}</table>")
    if section.legend:
        entries = (f'<span><i style="background:rgb{c}"></i>{html.escape(n)}</span>' for n, c in section.legend)
        spans = "".join(entries)
        parts.append(f'<p class="legend">{spans}</p>')
    parts += [_picture(path, caption) for path, caption in section.pictures]
    if section.note:
        parts.append(f'<p class="note">{html.escape(section.note)}</p>')
    return "\n".join(parts)


def write_report(path: str | Path, title: str, subtitle: str, sections: list[Section]) -> None:
    """Writes the report.

    Args:
        path: of the HTML file.
        title, subtitle: its head.
        sections: in reading order; pictures are embedded.
    """
    body = "\n".join(_section(section) for section in sections)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1><p>{html.escape(subtitle)}</p>{body}</body></html>\n"
    )
    write_text(path, page)
