"""A comparison in every form: nothing is left out, and no word of a board is obeyed."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import xml.etree.ElementTree as ET

import pytest

from tests.host.benchmarks import measured, series
from tests.shared.random_values import value_of
from tflotilla.host.benchmarks.compare import Comparison, compare
from tflotilla.host.benchmarks.figures import Limits, Metric
from tflotilla.host.benchmarks.rendering import comparison
from tflotilla.host.benchmarks.results import Run
from tflotilla.shared.contract.benchmark import CellError, Verdict

_HOSTILE = '<script>alert(1)</script>\x1b[31m|`=cmd()"\n## title\x00\ufffe ://x'


def _run(identifier: str, *, slower: float = 1.0, error: str | None = None, reason: str = "throttled") -> Run:
    steady = measured.cell(series.independent(700, 1), threads=1)
    other = measured.cell(series.independent(700, 2, median_ns=5e6 * slower), threads=2)
    third = measured.cell(series.independent(700, 3), threads=3)
    if error is not None:
        third = measured.cell(error=CellError(kind="hung", message=error), threads=3)
    invalid = measured.cell(series.independent(700, 4), threads=4)
    assert invalid.measurement is not None
    verdict = Verdict(valid=False, reasons=(reason,))
    invalid = dataclasses.replace(invalid, measurement=dataclasses.replace(invalid.measurement, verdict=verdict))
    return measured.run(measured.board_run([steady, other, third, invalid]), identifier=identifier)


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compare(_run("base0000"), _run("new00000", slower=1.2, error="no answer"), Limits(metrics=("p50", "rss")))


def test_the_table_has_a_row_for_each_figure_and_for_what_has_none(found: Comparison) -> None:
    table = comparison.table(found)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]

    assert table.title == "new00000 against base0000: pi-1 birds-1.0.0"
    assert [("unchanged", "p50"), ("unchanged", "rss"), ("REGRESSION", "p50"), ("unchanged", "rss")] == [
        (row["result"], row["figure"]) for row in rows[:4]
    ]
    assert ["BROKEN", "incomparable"] == [row["result"] for row in rows[4:]]
    assert re.fullmatch(r"\+\d\d\.\d … \+\d\d\.\d", rows[2]["interval, %"])
    assert rows[1]["interval, %"] == "-"


def test_every_pair_that_was_not_compared_has_its_reason_below(found: Comparison) -> None:
    notes = list(comparison.notes(found))

    assert any("litert ×3: worked in BASE, and does not in NEW: hung: no answer" in note for note in notes)
    assert any("litert ×4: not compared: BASE is INVALID: throttled; NEW is INVALID" in note for note in notes)
    assert "1 REGRESSION, 1 BROKEN, 1 unchanged, 1 incomparable" in comparison.heading(found)


def test_what_holds_for_all_is_said_once() -> None:
    base, new = _run("base0000"), _run("new00000")
    identity = new.boards[0].identity
    assert identity is not None
    renewed = dataclasses.replace(identity, numpy="2.0.0")
    new = dataclasses.replace(new, boards=(dataclasses.replace(new.boards[0], identity=renewed),))
    notes = [note for note in comparison.notes(compare(base, new)) if "numpy" in note]

    assert notes == ["all 4: numpy 1.26.4 → 2.0.0"]


def test_the_complaint_names_cell_figures_and_certainty(found: Comparison) -> None:
    said = comparison.complaint(found)

    assert re.search(
        r"pi-1, birds-1\.0\.0, litert ×2: p50 5\.\d+ ms → [56]\.\d+ ms, \+\d\d\.\d % \(.*, p <0\.0001\)", said
    )
    assert "litert ×3: worked in BASE" in said
    assert "\n" not in said


def test_json_holds_everything(found: Comparison) -> None:
    document = json.loads(json.dumps(comparison.document(found, exit_code=13), allow_nan=False))

    assert document["exit_code"] == 13
    assert document["counts"] == {"regression": 1, "broken": 1, "unchanged": 1, "incomparable": 1}
    assert [pair["outcome"] for pair in document["pairs"]] == ["unchanged", "regression", "broken", "incomparable"]
    figure = document["pairs"][1]["figures"][0]
    assert figure["low"] < figure["ratio"] < figure["high"]
    assert figure["p_value"] < 1e-6


def test_junit_fails_what_is_worse_and_skips_what_was_not_compared(found: Comparison) -> None:
    (suite,) = ET.fromstring(comparison.to_junit(found))  # noqa: S314 - our own text
    kinds = [
        next((child.tag for child in case if child.tag in ("failure", "skipped")), "passed")
        for case in suite.findall("testcase")
    ]

    assert ["passed", "failure", "failure", "skipped"] == kinds
    assert ("4", "2", "1") == tuple(suite.attrib[name] for name in ("tests", "failures", "skipped"))
    names = [case.attrib["name"] for case in suite.findall("testcase")]
    assert len(set(names)) == 4


def test_what_a_board_says_is_shown_and_never_obeyed() -> None:
    base = _run("base0000")
    new = _run("new00000", error=_HOSTILE, reason=_HOSTILE)
    identity = new.boards[0].identity
    assert identity is not None
    board = dataclasses.replace(new.boards[0], identity=dataclasses.replace(identity, numpy=_HOSTILE))
    extra = dataclasses.replace(board, board=_HOSTILE, model=_HOSTILE)
    found = compare(base, dataclasses.replace(new, name=_HOSTILE, boards=(board, extra)))
    markdown, junit = comparison.to_markdown(found), comparison.to_junit(found)
    table = comparison.table(found)

    ET.fromstring(junit)  # noqa: S314 - our own text
    for text in (junit, markdown, *table.notes, *(cell for row in table.rows for cell in row), table.title):
        assert "\x1b" not in text
        assert "\x00" not in text
    assert "<script" not in markdown
    assert "\n## title" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_two_empty_results_are_a_comparison_of_nothing() -> None:
    nothing = Run(id="nothing0", created=1.0, boards=())
    found = compare(nothing, nothing)

    assert found.pairs == ()
    assert "no cells" in comparison.heading(found)
    assert comparison.table(found).rows == ()
    ET.fromstring(comparison.to_junit(found))  # noqa: S314 - our own text
    assert comparison.to_markdown(found).endswith("\n")


def test_whatever_results_claim_a_comparison_of_them_can_be_shown() -> None:
    """Results come from files: negative times, huge numbers, control characters, figures that contradict each other."""
    every: tuple[Metric, ...] = ("p50", "p90", "p99", "mean", "qps", "rss")
    limits = Limits(metrics=every, across_models=True, include_invalid=True)
    for seed in range(60):
        base, new = (value_of(Run, random.Random(number)) for number in (seed, seed + 1000))  # noqa: S311 - the same claims each time
        for other in (base, new):
            found = compare(base, other, limits)

            ET.fromstring(comparison.to_junit(found))  # noqa: S314 - our own text
            assert json.dumps(comparison.document(found, exit_code=0), allow_nan=False)
            assert all(character.isprintable() or character == "\n" for character in comparison.to_markdown(found))
            assert "\n" not in comparison.complaint(found)
            assert len(comparison.table(found).rows) >= len(found.pairs)
