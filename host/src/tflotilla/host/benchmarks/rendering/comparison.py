"""Two results held against each other, in words: tables, JSON, Markdown, JUnit XML.

Rules: the reader sees values, change, interval and p beside every judgement, and a line for each pair that was not
compared. What it does NOT do: judge; `benchmarks.compare` does.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

from tflotilla.host.benchmarks.rendering import markdown, words
from tflotilla.host.benchmarks.rendering.table import Table
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tflotilla.host.benchmarks.compare import Comparison, Outcome, Pair
    from tflotilla.host.benchmarks.figures import Figure

#: p-values stand with regressions and in JSON: beside an interval they would only make the table too wide.
_COLUMNS = ("board", "model", "with", "figure", "base", "new", "change", "interval, %", "result")
_FIGURES = ("base", "new", "change", "interval, %")
_SPOKEN: dict[Outcome, str] = {
    "regression": "REGRESSION",
    "broken": "BROKEN",
    "improvement": "improvement",
    "unchanged": "unchanged",
    "uncertain": "uncertain",
    "incomparable": "incomparable",
}
#: Below it the digits of a p-value say nothing.
_SMALL_P = 1e-4


def heading(found: Comparison) -> str:
    """Say in one line what was compared and how it came out."""
    counted = found.counted()
    said = ", ".join(f"{count} {_SPOKEN[outcome]}" for outcome, count in counted.items()) or "no cells"
    limits = found.limits
    return (
        f"{found.new} against {found.base}: {said} "
        f"(tolerance {words.percent(limits.tolerance)}, alpha {words.number(limits.alpha)})"
    )


def table(found: Comparison) -> Table:
    """Return a row for each figure, and for each pair without any; the reasons are notes."""
    rows = [row for pair in found.pairs for row in _rows(pair)]
    # A column in which nothing differs tells nothing: one board, model and metric are named in the title.
    same = {
        name: {row[_COLUMNS.index(name)] for row in rows} - {words.NOTHING} for name in ("board", "model", "figure")
    }
    dropped = [name for name, values in same.items() if len(values) == 1]
    kept = [n for n, column in enumerate(_COLUMNS) if column not in dropped]
    subject = " ".join(value for name in dropped for value in same[name] if value)
    return Table(
        title=f"{found.new} against {found.base}" + (f": {subject}" if subject else ""),
        columns=tuple(_COLUMNS[n] for n in kept),
        rows=tuple(tuple(row[n] for n in kept) for row in rows),
        right=_FIGURES,
        notes=tuple(notes(found)),
    )


def notes(found: Comparison) -> Iterator[str]:
    """Yield a line for everything that has to be told of a pair; a line that holds for several names them all."""
    told: dict[str, list[str]] = {}
    for pair in found.pairs:
        for said in _told(pair):
            told.setdefault(said, []).append(_name(pair))
    for said, names in told.items():
        several = names if len(names) < len(found.pairs) or len(names) == 1 else [f"all {len(names)}"]
        yield f"{'; '.join(several)}: {said}"


def complaint(found: Comparison) -> str:
    """Say what is worse, in one line."""
    worse = found.worse
    said = "; ".join(f"{_name(pair)}: {_reason(pair)}" for pair in worse[:3])
    return said + (f"; and {len(worse) - 3} more" if len(worse) > 3 else "")  # noqa: PLR2004 - as many are said


def document(found: Comparison, *, exit_code: int) -> dict[str, Any]:
    """Return everything for `--json`."""
    pairs = [codec.encode(pair) | {"outcome": pair.outcome} for pair in found.pairs]
    encoded: dict[str, Any] = codec.encode(found)
    return encoded | {"pairs": pairs, "counts": found.counted(), "exit_code": exit_code}


def to_markdown(found: Comparison) -> str:
    """Return a table for a comment or a wiki."""
    shown = table(found)
    escape = markdown.escape
    lines = [f"# {escape(shown.title)}", "", escape(heading(found)), ""]
    lines.append(f"| {' | '.join(escape(column) for column in shown.columns)} |")
    lines.append(f"| {' | '.join('---:' if column in shown.right else '---' for column in shown.columns)} |")
    lines += [f"| {' | '.join(escape(cell) for cell in row)} |" for row in shown.rows]
    lines += ["", *(f"- {escape(note)}" for note in shown.notes)]
    return "\n".join(lines).rstrip() + "\n"


def to_junit(found: Comparison) -> str:
    """Return a test case for each pair: failed when it is worse, skipped when nothing can be said of it."""
    suite = ET.Element("testsuite", name=f"{found.new} against {found.base}", time="0")
    for pair in found.pairs:
        place = f"{pair.board} {pair.model}".strip() or "benchmark"
        case = ET.SubElement(suite, "testcase", classname=place, name=pair.configuration or place, time="0")
        said = _reason(pair)
        if pair.outcome in ("regression", "broken"):
            ET.SubElement(case, "failure", type=pair.outcome, message=said).text = said
        elif pair.outcome == "incomparable":
            ET.SubElement(case, "skipped", message=said).text = said
        ET.SubElement(case, "system-out").text = "\n".join(dict.fromkeys([said, *_told(pair)]))
    suite.attrib |= {
        "tests": str(len(found.pairs)),
        "failures": str(len(suite.findall("testcase/failure"))),
        "errors": "0",
        "skipped": str(len(suite.findall("testcase/skipped"))),
    }
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _rows(pair: Pair) -> Iterator[tuple[str, ...]]:
    head = (pair.board, pair.model, pair.configuration)
    nothing = (words.NOTHING,) * (len(_COLUMNS) - len(head) - 1)
    if not pair.figures:
        yield (*head, *nothing, _SPOKEN[pair.outcome])
    for figure in pair.figures:
        yield (
            *head,
            figure.metric,
            _value(figure, figure.base),
            _value(figure, figure.new),
            _change(figure.ratio),
            _interval(figure) or words.NOTHING,
            _SPOKEN[figure.outcome],
        )


def _value(figure: Figure, value: float) -> str:
    if figure.metric == "qps":
        return f"{words.number(value)}/s"
    return words.mebibytes(value) if figure.metric == "rss" else words.duration(value)


def _change(ratio: float) -> str:
    change = words.real((ratio - 1) * 100)
    # One decimal, since what is smaller than that is never a finding.
    return f"{change:+,.1f} %"


def _interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return " … ".join(f"{words.real((end - 1) * 100):+,.1f}" for end in (figure.low, figure.high))


def _p_value(figure: Figure) -> str:
    if figure.p_value is None:
        return ""
    return f"<{_SMALL_P:g}" if figure.p_value < _SMALL_P else f"{figure.p_value:.2g}"


def _told(pair: Pair) -> Iterator[str]:
    if pair.broken is not None:
        yield f"worked in BASE, and does not in NEW: {pair.broken}"
    if pair.incomparable is not None:
        yield f"not compared: {pair.incomparable}"
    yield from pair.notes
    for figure in pair.figures:
        if figure.note is not None:
            yield f"{figure.metric}: {figure.note}"
        if figure.outcome == "uncertain":
            yield f"{figure.metric}: the interval reaches over the tolerance, so more runs would have to tell"


def _name(pair: Pair) -> str:
    return ", ".join(part for part in (pair.board, pair.model, pair.configuration) if part)


def _reason(pair: Pair) -> str:
    if pair.broken is not None:
        return f"worked in BASE, and does not in NEW: {pair.broken}"
    if pair.incomparable is not None:
        return f"not compared: {pair.incomparable}"
    worst = [figure for figure in pair.figures if figure.outcome == "regression"] or pair.figures
    return "; ".join(_sentence(figure) for figure in worst)


def _sentence(figure: Figure) -> str:
    said = f"{figure.metric} {_value(figure, figure.base)} → {_value(figure, figure.new)}, {_change(figure.ratio)}"
    if figure.low is not None:
        said += f" ({_interval(figure)} %, p {_p_value(figure)})"
    return said
