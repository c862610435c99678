"""A benchmark's result in every form: what must be said is said, what is not known is not, whatever boards write."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

from tests.host.benchmarks import measured, rich_runs
from tests.host.models.test_report import Page
from tflotilla.host.benchmarks import results
from tflotilla.host.benchmarks.rendering import board_state, forms, junit, operators, page, table, tabular, words
from tflotilla.shared.contract.benchmark import (
    BenchmarkCell,
    CellError,
    Correctness,
    Failure,
    Method,
    Scenario,
    ServingDuring,
    Verdict,
)
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from tflotilla.host.benchmarks.results import Run

FORMS = forms.FORMS


def rows(run: Run) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(tabular.render(run))))


def summary(run: Run) -> list[dict[str, str]]:
    first = table.tables(run)[0]
    return [dict(zip(first.columns, row, strict=True)) for row in first.rows]


def notes(run: Run) -> str:
    return "\n".join(table.tables(run)[0].notes)


def one(cell: BenchmarkCell, method: Method | None = None) -> Run:
    return measured.run(measured.board_run([cell], method=method))


def small() -> Run:
    return one(measured.cell(rich_runs.latencies(70, 1_000_000)))


@pytest.fixture(scope="module")
def html() -> str:
    return forms.render(rich_runs.full(), "html")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", [small, rich_runs.imported, measured.run])
def test_the_same_run_gives_the_same_text_with_a_last_line_break(make: Any, form: forms.Form) -> None:  # noqa: ANN401
    text = forms.render(make(), form)

    assert text == forms.render(results.from_json(results.to_json(make()), "run.json"), form)
    assert text.endswith("\n")


def test_json_is_a_result_file() -> None:
    run = rich_runs.full()

    assert results.from_json(forms.render(run, "json").encode(), "run.json") == run


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_what_is_invalid_what_failed_and_why(form: forms.Form, html: str) -> None:
    text = html if form == "html" else forms.render(rich_runs.full(), form)

    assert "the processor was throttled (0x50005)" in text
    assert "signal 11" in text
    assert "pi-3 is offline" in text
    assert "912" in text, "right answers stand beside the speed"


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"json", "csv", "html"}))
def test_a_percentile_that_runs_are_lacking_for_is_a_sentence_and_no_figure(form: forms.Form) -> None:
    text = forms.render(rich_runs.full(), form)

    assert "not enough runs for p99 (120 of 662)" in text


def test_a_percentile_that_runs_are_lacking_for_is_an_empty_cell_in_csv() -> None:
    row = next(row for row in rows(rich_runs.full()) if row["threads"] == "4")

    assert row["p90_ns"]
    assert (row["p99_ns"], row["p99_bound_ns"], row["runs"]) == ("", "", "120")


def test_the_table_marks_what_is_lacking_and_bounds_what_the_scenario_is_judged_by() -> None:
    first, _, throttled, *_ = summary(rich_runs.full())

    assert (throttled["p99, ms"], throttled["verdict"]) == ("*", "INVALID")
    assert (first["p50, ms"], first["p90, ms"], first["right"], first["verdict"]) == (
        "1.01 ≤1.011",
        "1.018 ≤1.018",
        "8/8 91.2%",
        "VALID",
    )
    assert "litert ×4: * not enough runs for p99 (120 of 662)" in notes(rich_runs.full())


@pytest.mark.parametrize("scenario", get_args(Scenario))
def test_each_scenario_shows_what_it_is_about(scenario: Scenario) -> None:
    method = Method(scenario=scenario, latency_bound_ms=30.0)
    run = one(rich_runs.cell(1, dataclasses.replace(rich_runs.measurement(), qps=200.0)), method)

    (row,) = summary(run)
    judged = {
        "single_stream": ("p90, ms", "1.018 ≤1.018"),
        "multi_stream": ("p99, ms", "1.505 ≤1.518"),
        "offline": ("per s", "980.8"),
        "server": ("QPS", "200"),
    }
    column, figure = judged[scenario]
    assert row[column] == figure
    assert words.SCENARIOS[scenario] in dict(board_state.method(method))["scenario"]


def test_the_summary_of_one_board_fits_eighty_columns() -> None:
    cells = [rich_runs.cell(threads, rich_runs.measurement()) for threads in (1, 2, 4)]
    text = table.text(measured.run(measured.board_run(cells)), details=False)

    lines = [line for line in text.splitlines() if re.search(r"verdict$|VALID$", line)]
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80


def test_wrong_answers_are_invalid_even_when_the_board_says_otherwise() -> None:
    wrong = dataclasses.replace(
        rich_runs.measurement(),
        correctness=Correctness(goldens=6, goldens_total=8, worst_lsb=90),
        verdict=Verdict(valid=True),
    )
    cell = rich_runs.cell(1, wrong)

    assert words.standing(cell) == "INVALID"
    assert words.reasons(cell) == ("2 of 8 golden vectors were not reproduced",)
    assert page.facts(one(cell))[1] == "pi-1 birds-1.0.0: no figure may be quoted."


def test_unchecked_answers_are_said_to_be_unchecked() -> None:
    unchecked = Correctness(goldens=0, goldens_total=0, worst_lsb=None)
    cell = rich_runs.cell(1, dataclasses.replace(rich_runs.measurement(), correctness=unchecked))

    assert summary(one(cell))[0]["right"] == "unchecked"
    assert "nobody checked the answers" in notes(one(cell))


def test_what_is_to_be_known_of_all_cells_is_said_once() -> None:
    note = Verdict(valid=True, notes=("not checked: the temperature",))
    same = [rich_runs.cell(n, dataclasses.replace(rich_runs.measurement(), verdict=note)) for n in (1, 2)]
    other = rich_runs.cell(4, rich_runs.measurement(120))

    assert notes(measured.run(measured.board_run(same))).startswith("all 2: not checked: the temperature\n")
    assert "litert ×1; litert ×2: not checked: the temperature" in notes(
        measured.run(measured.board_run([*same, other]))
    )


def test_figures_below_a_millisecond_stand_in_microseconds() -> None:
    quick = one(rich_runs.cell(1, rich_runs.measurement(700, 20_000)))
    mixed = measured.run(measured.board_run([*quick.boards[0].cells, rich_runs.cell(2, rich_runs.measurement())]))

    assert summary(quick)[0]["p50, µs"] == "29.8 ≤30.6"
    assert summary(mixed)[0]["p50, ms"] == "0.0298 ≤0.0306"


def test_what_could_not_be_looked_at_stands_beside_the_verdict(html: str) -> None:
    assert "litert ×4: no swap to read" in notes(rich_runs.full())
    assert "no swap to read" in Page(html).words


def test_how_the_serving_model_fared_is_said_once_for_each_board() -> None:
    said = [line for line in notes(rich_runs.full()).splitlines() if line.startswith("pi-1: ")]

    assert ["pi-1: the model that serves, at its worst: 100 results, 1 error, p50 2.00 ms (before 1.80 ms)"] == said


def test_a_serving_model_that_was_not_heard_has_no_figures() -> None:
    silent = ServingDuring(results=0, errors=0, p50_ns=None, p99_ns=None, before_p50_ns=None, before_p99_ns=None)
    cell = dataclasses.replace(rich_runs.cell(1, rich_runs.measurement()), serving=silent)

    assert "pi-1: the model that serves: nothing was heard of it meanwhile" in notes(one(cell))


def test_what_is_wrong_with_a_delegate_is_said_once() -> None:
    error = CellError(kind="delegate", message="the delegate takes no node of this model")
    cell = dataclasses.replace(measured.cell(error=error), delegate_reason=error.message)

    assert notes(one(cell)).count(error.message) == 1


def test_several_boards_with_several_models_become_a_matrix() -> None:
    good, bad, _ = rich_runs.full().boards
    second = dataclasses.replace(good, board="pi-2", model="cats-2.0.0", cells=good.cells[2:])

    (matrix,) = table.matrix(measured.run(good, second, dataclasses.replace(bad, board="pi-3", cells=())))

    assert matrix.columns[:3] == ("board", "birds-1.0.0", "cats-2.0.0")
    found = {row[0]: row[1:] for row in matrix.rows}
    assert found["pi-1"][:2] == ("p50 610 µs, litert ×2 (8/8 91.2%)", "-")
    assert found["pi-2"][:2] == ("-", "INVALID"), "a figure that may not be quoted is none"
    assert found["pi-3"][2] == "ERROR"


def test_the_best_cell_is_what_the_scenario_is_about() -> None:
    slow_but_many = dataclasses.replace(rich_runs.measurement(700, 2_000_000), samples_per_second=4000.0)
    quick = rich_runs.measurement(700, 500_000)
    cells = [rich_runs.cell(1, quick), rich_runs.cell(2, slow_but_many)]

    def best(method: Method) -> str:
        return page.facts(measured.run(measured.board_run(cells, method=method)))[1]

    assert "2 threads, 4,000 samples/s" in best(Method(scenario="offline"))
    assert "1 thread, p90 518 µs (99 % sure: ≤ 518 µs); answers: 8/8 goldens" in best(Method())


@pytest.mark.parametrize("kind", get_args(Failure))
def test_every_failure_is_a_failure_for_ci_with_its_kind(kind: Failure) -> None:
    error = CellError(kind=kind, message="because")
    root = ET.fromstring(junit.render(one(rich_runs.cell(1, None, error))))  # noqa: S314 - our own bytes

    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert (failure.get("type"), failure.get("message")) == (kind, f"{kind}: because")
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("1", "1", "0")


def test_junit_counts_cases_and_says_how_long_they_took() -> None:
    run = rich_runs.full()
    root = ET.fromstring(junit.render(run))  # noqa: S314 - our own bytes

    cases = root.findall("testsuite/testcase")
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("7", "3", "2")
    assert len(cases) == 7
    assert (cases[0].get("name"), cases[0].get("time")) == ("ai-edge-litert 2.3.0, 1 thread", "0.714")


def test_cells_of_one_name_are_two_cases() -> None:
    board = measured.board_run([rich_runs.cell(1, None, CellError(kind="hung", message="x"))] * 2)
    root = ET.fromstring(junit.render(measured.run(board)))  # noqa: S314 - our own bytes

    assert len({case.get("name") for case in root.findall("testsuite/testcase")}) == 2


def test_imported_figures_are_neither_valid_nor_completed() -> None:
    run = rich_runs.imported()

    (row,) = rows(run)
    assert (row["verdict"], row["mean_ns"], row["p50_ns"], row["goldens"]) == ("UNKNOWN", "1000000.0", "", "")
    (shown,) = summary(run)
    assert (shown["mean, ms"], shown["median, ms"], shown["right"], shown["verdict"]) == (
        "1",
        "-",
        "unchecked",
        "UNKNOWN",
    )
    assert "answers were not checked" in forms.render(run, "html")
    assert "VALID" not in forms.render(run, "junit")


def test_csv_has_the_same_columns_whatever_happened_and_a_line_for_a_silent_board() -> None:
    found = rows(rich_runs.full())

    assert [row["board"] for row in found] == ["pi-1", "pi-1", "pi-1", "pi-2", "pi-2", "pi-3"]
    assert tabular.render(measured.run()).count("\n") == 1
    assert found[-1]["board_error"] == "pi-3 is offline"
    for header in {tabular.render(run).split("\n", 1)[0] for run in (rich_runs.full(), rich_runs.imported())}:
        assert header.startswith("run,name,tool,created,board")
    assert found[0]["p90_bound_ns"] == "1018200"


def test_a_spreadsheet_takes_no_text_for_a_formula_and_numbers_stay_numbers() -> None:
    found = rows(rich_runs.full())

    begins = {value[0] for row in found for value in row.values() if value and not re.fullmatch(r"[-+.\de]+", value)}
    assert not begins & set("=+-@\t\r")
    assert found[3]["model"].startswith("'=HYPERLINK")
    assert float(found[0]["drift"]) < 0, "a negative number is not a formula"


@pytest.mark.parametrize("form", FORMS)
def test_no_form_lets_a_board_control_a_terminal(form: forms.Form, html: str) -> None:
    text = html if form == "html" else forms.render(rich_runs.full(), form)

    assert [] == [character for character in text if not character.isprintable() and character != "\n"]


def test_no_markdown_of_a_board_is_obeyed() -> None:
    text = forms.render(rich_runs.full(), "markdown")

    lines = text.splitlines()
    for header, rule in itertools.pairwise(lines):
        if rule.startswith("| ---"):
            assert len(re.findall(r"(?<!\\)\|", header)) == rule.count("|")
    assert "<script" not in text
    assert re.search(r"(?<!\\)\[link", text) is None
    assert re.search(r"(?<!\\)!", text) is None
    assert "https://" not in text, "a bare address would become a link"


def test_no_page_obeys_what_a_board_wrote_nor_loads_anything(html: str) -> None:
    parsed = Page(html)

    assert rich_runs.HTML not in html
    assert rich_runs.HTML in parsed.words
    assert [] == parsed.all("script") + parsed.all("link") + parsed.all("iframe") + parsed.all("img")
    addresses = [value for _, attributes in parsed.tags for name, value in attributes.items() if name.endswith("href")]
    assert addresses
    assert all(address is not None and address.startswith("#") for address in addresses)
    assert [] == [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert "url(http" not in html


def test_an_operator_counts_as_often_as_a_run_calls_it() -> None:
    profile = rich_runs.profile()
    often = dataclasses.replace(profile.operators[2], times_called=6)
    never = dataclasses.replace(profile.operators[1], times_called=0)
    profile = dataclasses.replace(profile, operators=(profile.operators[0], never, often))

    assert [row[2:6] for row in operators.rows(profile)] == [
        ("0.6", "50.00", "50.00", "1"),
        ("0.3", "0.00", "50.00", "0"),
        ("0.1", "50.00", "100.00", "6"),
    ]
    assert [row[:4] for row in operators.summary(profile)] == [
        ("SOFTMAX", "1", "0.6", "50.00"),
        ("CONV_2D", "2", "0.6", "50.00"),
    ]


def test_the_page_can_be_read_without_seeing_it(html: str) -> None:
    parsed = Page(html)

    assert len(parsed.all("table")) == len(parsed.all("caption")) > 20
    assert all(attributes.get("scope") for attributes in parsed.all("th"))
    assert all(attributes.get("aria-label") for attributes in parsed.all("svg"))
    identifiers = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)


def test_the_page_holds_everything_that_is_known(html: str) -> None:
    said = " ".join(Page(html).words.split())

    for needed in (
        "How latency is spread",
        "What threads bring",
        "Over time: litert ×1",
        "Sustained: litert ×1",
        "Stages: litert ×1",
        "not by a profiler",
        "the sum is 1 ms, the whole model 1.05 ms.",
        "CONV_2D",
        "0x50005 (now: under-voltage, throttled; since boot: under-voltage, throttled)",
        "64 of 66 nodes by XNNPACK",
        "Raspberry Pi 4 Model B Rev 1.4",
        "ab" * 32,
        "SingleStream: one sample after the other, judged by p90",
        "at least 662 runs and 1 s, at most 30 s",
        '"seed":0',
        "waited for the board to cool",
        "0.05 % of invoke",
    ):
        assert needed in said, needed


def test_rates_that_were_tried_stand_on_the_page() -> None:
    said = " ".join(Page(forms.render(rich_runs.server(), "html")).words.split())

    assert "Rates that were tried" in said
    assert "highest rate within the bound" in said
    assert "not kept" in said


def test_a_bound_that_no_rate_kept_is_said_where_the_rate_would_stand() -> None:
    run = rich_runs.server()
    assert "no rate kept" not in notes(run)
    (found,) = run.boards[0].cells
    assert found.measurement is not None
    late = tuple(dataclasses.replace(trial, kept=False) for trial in found.measurement.trials)
    none = dataclasses.replace(found, measurement=dataclasses.replace(found.measurement, qps=None, trials=late))

    said = one(none, run.boards[0].request.method)

    assert summary(said)[0]["QPS"] == words.NOTHING
    assert "no rate kept the latency bound, of those tried from 100 queries/s on" in notes(said)


def test_very_many_cells_have_figures_and_only_the_best_have_plots() -> None:
    plain = [measured.cell(rich_runs.latencies(70, 1_000_000 + n), threads=n) for n in range(1, 12)]
    text = forms.render(measured.run(measured.board_run(plain)), "html")

    assert text.count("<article") == 11
    assert len(re.findall(r'aria-label="Over time: ', text)) == page.MOST_PICTURED
    assert "3 others have their figures" in text


@pytest.mark.parametrize("form", FORMS)
def test_claims_beyond_all_measure_are_shown_and_break_nothing(form: forms.Form) -> None:
    huge = dataclasses.replace(
        measured.measurement((10**30, 1, 0)),
        seconds=1e308,
        samples_per_second=-1e308,
        peak_rss_bytes=10**400,
        cpu_seconds_per_inference=1e308,
    )
    run = dataclasses.replace(one(rich_runs.cell(1, huge)), created=1e300)

    assert forms.render(run, form)


def test_an_unknown_suffix_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        UsageError, match=r"x\.pdf: a benchmark is written as \.txt, \.json, \.csv, \.md, \.xml, \.html"
    ):
        forms.form_of(Path("x.pdf"))
    assert [forms.form_of(Path(f"x{suffix}")) for suffix in forms.SUFFIXES] == list(FORMS)


def test_a_delegate_that_fails_is_said_once() -> None:
    reason = "delegate /lib/x.so can't be loaded"
    cell = rich_runs.cell(1, None, CellError(kind="delegate", message=reason))

    assert notes(one(dataclasses.replace(cell, delegate_reason=reason))).count(reason) == 1


def test_a_sustained_run_says_what_became_of_temperature_and_frequency() -> None:
    figures = rich_runs.measurement()
    assert figures.sustained is not None
    course = tuple(
        dataclasses.replace(point, frequency_khz=1_800_000 - 100_000 * n)
        for n, point in enumerate(figures.sustained.course)
    )
    slowed = dataclasses.replace(figures, sustained=dataclasses.replace(figures.sustained, course=course))

    said = table.text(one(rich_runs.cell(1, slowed)))

    assert "45 °C at first, 72 °C at last" in said
    assert "1,800 MHz at first, 900 MHz at last" in said
