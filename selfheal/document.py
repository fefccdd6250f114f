"""A report as blocks: Markdown with pictures beside it, or one HTML file that needs nothing else. Pure."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5f6570; --line: #e2e4e8; --paper: #fff; --mark: #f5f6f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a2a9b4; --line: #3a3f47; --paper: #17191c;
  --mark: #22252a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 74rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem; padding-top: .6rem; border-top: 1px solid var(--line); }
p, li { max-width: 46rem; } ul { padding-left: 1.2rem; } li { margin: .25rem 0; }
.note { color: var(--soft); font-size: .92rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .34rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
th { color: var(--soft); font-weight: 600; } tr.strong td { font-weight: 700; background: var(--mark); }
@media (max-width: 40rem) { th, td { padding: .3rem .45rem; font-size: .82rem; }
  th:first-child, td:first-child { white-space: normal; min-width: 7.5rem; max-width: 8.5rem; } }
code { background: var(--mark); padding: .1em .35em; border-radius: 4px; font-size: .9em; }
figure { margin: 1.2rem 0; max-width: 64rem; }
figure img { width: 100%; height: auto; border-radius: 6px; background: #fff; }
"""


class Heading(NamedTuple):
    """level: 1, the title, or 2."""

    level: Literal[1, 2]
    text: str


class Words(NamedTuple):
    """A paragraph; `code` in backticks, **strong** in stars. note: smaller print."""

    text: str
    note: bool = False


class Points(NamedTuple):
    """A list."""

    items: Sequence[str]


class Grid(NamedTuple):
    """A table; the first column holds names. strong: rows that stand out."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()


class Picture(NamedTuple):
    """name: of the PNG file beside the Markdown. says: what it shows, for who cannot see it."""

    name: str
    png: bytes
    says: str


Block = Heading | Words | Points | Grid | Picture


def as_markdown(blocks: Sequence[Block]) -> str:
    """Pictures are referred to by their file names."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Words(text):
            return text
        case Points(items):
            return "\n".join(f"- {item}" for item in items)
        case Grid(head, rows, strong):
            lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
            for i, row in enumerate(rows):
                cells = [f"**{c}**" if i in strong and c else c for c in row]
                lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
            return "\n".join(lines)
        case Picture(name, _, says):
            return f"![{says}]({name})"


def as_html(blocks: Sequence[Block]) -> str:
    """One file: style and pictures are in it, and it asks nobody for anything."""
    title = next((b.text for b in blocks if isinstance(b, Heading) and b.level == 1), "report")
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{_inline(text)}</h{level}>"
        case Words(text, note):
            return f'<p class="note">{_inline(text)}</p>' if note else f"<p>{_inline(text)}</p>"
        case Points(items):
            return "<ul>\n" + "\n".join(f"<li>{_inline(item)}</li>" for item in items) + "\n</ul>"
        case Grid(head, rows, strong):
            top = "".join(f"<th>{_inline(cell)}</th>" for cell in head)
            lines = []
            for i, row in enumerate(rows):
                cells = "".join(f"<td>{_inline(cell)}</td>" for cell in row)
                lines.append(f'<tr class="strong">{cells}</tr>' if i in strong else f"<tr>{cells}</tr>")
            body = "\n".join(lines)
            return f'<div class="wide"><table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>'
        case Picture(_, png, says):
            data = base64.b64encode(png).decode()
            return f'<figure><img alt="{html.escape(says)}" src="data:image/png;base64,{data}"></figure>'


def _inline(text: str) -> str:
    safe = html.escape(text)
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", safe)
