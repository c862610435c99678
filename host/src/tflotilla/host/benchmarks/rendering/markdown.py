"""A run as Markdown, for a comment or a wiki: the tables of the terminal, nothing that the reader's browser obeys.

Rules: foreign texts can't leave their cell, begin HTML, link, or show a picture. What it does NOT do: plots.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tflotilla.host.benchmarks.rendering import table, words

if TYPE_CHECKING:
    from tflotilla.host.benchmarks.rendering.table import Table
    from tflotilla.host.benchmarks.results import Run

_OBEYED = re.compile(r"([\\`*_\[\]|~#!])")


def render(run: Run) -> str:
    """Return the document: the summary first, everything else folded away below it."""
    parts = [f"# {escape(words.title(run))}\n", f"{escape(table.heading(run))}\n"]
    summary = table.tables(run)
    parts += [_table(each) for each in summary]
    rest = table.tables(run, details=True)[len(summary) :]
    if rest:
        parts += ["<details><summary>Details</summary>\n", *(_table(each) for each in rest), "</details>\n"]
    return "\n".join(parts)


def escape(text: str) -> str:
    """Keep a text in its place: no cell, tag, link or emphasis begins or ends in it."""
    text = _OBEYED.sub(r"\\\1", " ".join(words.cut(text, 2000).split()))
    # A URL alone would become a link.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("://", r":\//")


def _table(found: Table) -> str:
    lines = [f"### {escape(found.title)}\n"]
    if found.rows:
        lines.append(_line([escape(column) for column in found.columns]))
        lines.append(_line(["---:" if column in found.right else "---" for column in found.columns]))
        lines += [_line([escape(cell) for cell in row]) for row in found.rows]
        lines.append("")
    lines += [f"- {escape(note)}" for note in found.notes]
    return "\n".join(lines) + ("\n" if found.notes else "")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
