"""What is called a regression, what is not, and what is never compared without a word."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.benchmarks import measured, series
from tflotilla.host.benchmarks.compare import Comparison, Pair, compare
from tflotilla.host.benchmarks.figures import Limits, Metric, judge
from tflotilla.host.benchmarks.foreign import ForeignFigures
from tflotilla.host.benchmarks.results import BoardRun, Run
from tflotilla.shared.contract.benchmark import CellError, Correctness, Drift, Method, Verdict
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def _pair(base: Sequence[int], new: Sequence[int], **limits: Any) -> Pair:  # noqa: ANN401 - Limits' fields
    (pair,) = _compare(_board(base), _board(new), **limits).pairs
    return pair


def _board(latencies: Sequence[int], **fields: Any) -> BoardRun:  # noqa: ANN401 - of the cell's measurement
    cell = measured.cell(latencies)
    assert cell.measurement is not None
    return measured.board_run([dataclasses.replace(cell, measurement=dataclasses.replace(cell.measurement, **fields))])


def _compare(base: BoardRun, new: BoardRun, **limits: Any) -> Comparison:  # noqa: ANN401 - Limits' fields
    return compare(measured.run(base, name="main"), measured.run(new, identifier="fedcba9876543210"), Limits(**limits))


def test_a_result_held_against_itself_is_unchanged() -> None:
    pair = _pair(series.independent(700, 1), series.independent(700, 1))
    (figure,) = pair.figures

    assert pair.outcome == "unchanged"
    assert (figure.metric, figure.ratio, figure.p_value) == ("p50", 1.0, 1.0)


@pytest.mark.parametrize(("slower", "outcome"), [(1.1, "regression"), (1.02, "unchanged"), (0.85, "improvement")])
def test_a_difference_beyond_the_tolerance_is_a_regression_or_an_improvement(slower: float, outcome: str) -> None:
    pair = _pair(series.independent(900, 1), series.independent(900, 2, median_ns=5e6 * slower))

    assert outcome == pair.outcome


def test_a_difference_that_is_sure_and_within_the_tolerance_is_none() -> None:
    pair = _pair(series.independent(4000, 1, spread=0.005), series.independent(4000, 2, median_ns=5.1e6, spread=0.005))

    assert pair.figures[0].p_value is not None
    assert pair.figures[0].p_value < 1e-9
    assert pair.outcome == "unchanged"


def test_the_tolerance_and_alpha_are_the_users() -> None:
    base, new = series.independent(900, 1), series.independent(900, 2, median_ns=5.15e6)

    assert _pair(base, new, tolerance=0.01).outcome == "regression"
    assert _pair(base, new, tolerance=0.05).outcome == "unchanged"


def test_where_the_interval_reaches_over_the_tolerance_nothing_is_claimed() -> None:
    assert _pair(series.independent(30, 1, spread=0.3), series.independent(30, 4, spread=0.3)).outcome == "uncertain"


def test_identical_boards_are_hardly_ever_accused_even_without_tolerance() -> None:
    """At alpha 1 %, of 30 pairs of equal, remembering series at most a few may be called slower."""
    outcomes = [
        _pair(series.remembering(700, seed), series.remembering(700, 900 + seed), tolerance=0.0).outcome
        for seed in range(30)
    ]

    assert outcomes.count("regression") + outcomes.count("improvement") <= 2


def test_every_metric_judges_its_own_direction() -> None:
    base, new = series.independent(900, 1), series.independent(900, 2, median_ns=6e6)
    metrics: tuple[Metric, ...] = ("p50", "p90", "p99", "mean", "qps", "rss")
    pair = _pair(base, new, metrics=metrics)
    outcomes = {figure.metric: figure.outcome for figure in pair.figures}

    assert outcomes == dict.fromkeys(metrics, "regression") | {"rss": "unchanged"}
    (rate,) = (figure for figure in pair.figures if figure.metric == "qps")
    assert rate.base == pytest.approx(200, rel=0.02)
    assert rate.new == pytest.approx(166, rel=0.02)
    assert rate.ratio == pytest.approx(1 / 1.2, rel=0.02)
    assert rate.low is not None
    assert rate.low < rate.ratio < (rate.high or 0)


def test_memory_has_one_figure_a_side_and_that_is_said() -> None:
    runs = series.independent(700, 1)
    (pair,) = _compare(_board(runs), _board(runs, peak_rss_bytes=90 << 20), metrics=("rss",)).pairs
    (figure,) = pair.figures

    assert (figure.outcome, figure.p_value, figure.low) == ("regression", None, None)
    assert "tolerance alone" in (figure.note or "")


def test_a_percentile_that_too_few_runs_support_is_not_compared() -> None:
    base, new = series.independent(661, 1), series.independent(700, 2)
    alone, beside = _pair(base, new, metrics=("p99",)), _pair(base, new, metrics=("p50", "p99"))

    assert alone.incomparable == "not enough runs for p99 in BASE (661 of 662)"
    assert alone.outcome == "incomparable"
    assert [figure.metric for figure in beside.figures] == ["p50"]
    assert "not enough runs for p99 in BASE (661 of 662)" in beside.notes


@pytest.mark.parametrize("latencies", [[0] * 700, [-5] * 700, [10**400] * 700])
def test_latencies_that_no_clock_shows_are_not_compared(latencies: list[int]) -> None:
    honest = _board(series.independent(700, 1))
    cell = honest.cells[0]
    assert cell.measurement is not None
    lying = dataclasses.replace(cell, measurement=dataclasses.replace(cell.measurement, latencies_ns=tuple(latencies)))
    (pair,) = _compare(honest, dataclasses.replace(honest, cells=(lying,)), metrics=("p50", "qps")).pairs

    assert "no clock shows" in (pair.incomparable or "")


def test_a_cell_that_keeps_no_latencies_is_not_compared() -> None:
    runs = series.independent(700, 1)
    (pair,) = _compare(_board(runs), _board(runs, latencies_ns=())).pairs

    assert "keeps no single latencies" in (pair.incomparable or "")


def test_an_invalid_cell_is_not_compared_unless_it_is_asked_for() -> None:
    runs = series.independent(700, 1)
    invalid = _board(runs, verdict=Verdict(valid=False, reasons=("the processor was throttled",)))
    (refused,) = _compare(_board(runs), invalid).pairs
    (compared,) = _compare(_board(runs), invalid, include_invalid=True).pairs

    assert refused.incomparable == "NEW is INVALID: the processor was throttled"
    assert compared.outcome == "unchanged"
    assert "NEW is INVALID: the processor was throttled" in compared.notes


def test_a_fast_wrong_cell_is_broken_even_if_invalid_ones_are_asked_for() -> None:
    fast = _board(
        series.independent(700, 1, median_ns=1e6), correctness=Correctness(goldens=7, goldens_total=8, worst_lsb=9)
    )
    slow = _board(series.independent(700, 1))
    (pair,) = _compare(slow, fast, include_invalid=True).pairs

    assert pair.outcome == "broken"
    assert "1 of 8 golden vectors" in (pair.broken or "")


def test_a_cell_that_crashes_now_is_broken_and_one_that_crashed_before_is_not_comparable() -> None:
    works = _board(series.independent(700, 1))
    crashed = measured.board_run([measured.cell(error=CellError(kind="crashed", message="SIGSEGV"))])

    assert _compare(works, crashed).pairs[0].broken == "crashed: SIGSEGV"
    assert _compare(works, crashed).worse
    assert _compare(crashed, works).pairs[0].incomparable == "BASE has no figures: crashed: SIGSEGV"
    assert "nor has NEW" in (_compare(crashed, crashed).pairs[0].incomparable or "")


def test_another_model_under_the_same_name_is_only_compared_when_asked() -> None:
    base = _board(series.independent(700, 1))
    new = dataclasses.replace(base, model="birds-1.1.0", identity=measured.identity("pi-1", sha256="ef" * 32))
    (refused,) = _compare(base, new).pairs
    (compared,) = _compare(base, new, across_models=True).pairs

    assert "another model: abababababab → efefefefefef" in (refused.incomparable or "")
    assert "--across-models" in (refused.incomparable or "")
    assert compared.outcome == "unchanged"
    assert compared.model == "birds-1.0.0 → birds-1.1.0"
    assert "another model: abababababab → efefefefefef" in compared.notes


def test_another_machine_under_the_same_name_is_only_compared_when_asked() -> None:
    base = _board(series.independent(700, 1))
    assert base.identity is not None
    facts = dataclasses.replace(base.identity.facts, model="Raspberry Pi 5 Model B Rev 1.0")
    new = dataclasses.replace(base, identity=dataclasses.replace(base.identity, facts=facts))

    assert "Raspberry Pi 4 Model B Rev 1.4 → Raspberry Pi 5" in (_compare(base, new).pairs[0].incomparable or "")
    assert _compare(base, new, across_boards=True).pairs[0].outcome == "unchanged"


def test_boards_are_paired_across_their_names_when_asked() -> None:
    base = _board(series.independent(700, 1))
    new = dataclasses.replace(base, board="pi-2")

    assert [pair.incomparable for pair in _compare(base, new).pairs] == ["only in BASE", "only in NEW"]
    (pair,) = _compare(base, new, across_boards=True).pairs
    assert (pair.board, pair.outcome) == ("pi-1 → pi-2", "unchanged")


def test_cells_that_can_not_be_told_apart_are_listed_and_not_paired_at_random() -> None:
    base = _board(series.independent(700, 1))
    two = measured.run(base, dataclasses.replace(base, board="pi-2"))
    pairs = compare(two, two, Limits(across_boards=True)).pairs

    assert [pair.incomparable for pair in pairs] == ["not told apart: 2 such cells in BASE, 2 in NEW"] * 2


@pytest.mark.parametrize(
    "method",
    [
        Method(scenario="multi_stream"),
        Method(inputs="random"),
        Method(rate_hz=10.0),
        Method(run_delay_seconds=0.1),
        Method(input_count=1),
    ],
)
def test_another_method_is_not_compared(method: Method) -> None:
    base = _board(series.independent(700, 1))
    new = dataclasses.replace(base, request=dataclasses.replace(base.request, method=method))

    assert "another method" in (_compare(base, new).pairs[0].incomparable or "")


def test_more_runs_are_no_other_method() -> None:
    base = _board(series.independent(700, 1))
    request = dataclasses.replace(base.request, method=Method(min_runs=900, warmup_runs=50, max_seconds=60.0))

    assert _compare(base, dataclasses.replace(base, request=request)).pairs[0].outcome == "unchanged"


def test_random_inputs_of_another_seed_are_another_method() -> None:
    base = _board(series.independent(700, 1))
    first, second = (
        dataclasses.replace(base, request=dataclasses.replace(base.request, method=Method(inputs="random", seed=seed)))
        for seed in (1, 2)
    )

    assert "seed of the random inputs 1 → 2" in (_compare(first, second).pairs[0].incomparable or "")


def test_what_is_under_test_may_differ_and_is_told() -> None:
    base = _board(series.independent(700, 1))
    assert base.identity is not None
    cell = dataclasses.replace(base.cells[0], runtime=RuntimeOffer(name="ai-edge-litert", version="2.4.0"))
    facts = dataclasses.replace(base.identity.facts, kernel="6.6.1")
    new = dataclasses.replace(base, cells=(cell,), identity=dataclasses.replace(base.identity, facts=facts))
    (pair,) = _compare(base, new).pairs

    assert pair.outcome == "unchanged"
    assert "runtime ai-edge-litert==2.3.0 → ai-edge-litert==2.4.0" in pair.notes
    assert "kernel 6.1.0-rpi7-rpi-v8 → 6.6.1" in pair.notes


def test_drift_and_other_answers_are_told_beside_the_figures() -> None:
    runs = series.independent(700, 1)
    base = _board(runs, correctness=Correctness(goldens=8, goldens_total=8, worst_lsb=0, right=912, labelled=1000))
    new = _board(
        runs,
        correctness=Correctness(goldens=8, goldens_total=8, worst_lsb=0, right=850, labelled=1000),
        drift=Drift(change=0.08, p_value=1e-5, drifting=True),
    )
    (pair,) = _compare(base, new).pairs

    assert any("912 of 1000" in note and "850 of 1000" in note for note in pair.notes)
    assert "NEW drifted by 8.0 % over its run" in pair.notes


def test_a_board_that_gave_nothing_is_listed_with_its_error() -> None:
    base = _board(series.independent(700, 1))
    silent = dataclasses.replace(base, cells=(), identity=None, error="pi-1 is offline", error_kind="BrokerError")
    pairs = _compare(base, silent).pairs

    assert ["only in BASE", "NEW has nothing of it: pi-1 is offline"] == [pair.incomparable for pair in pairs]


def test_a_result_without_an_identity_is_not_compared() -> None:
    base = _board(series.independent(700, 1))

    assert "nobody knows which model" in (
        _compare(base, dataclasses.replace(base, identity=None)).pairs[0].incomparable or ""
    )


def test_offline_is_judged_by_samples_a_second() -> None:
    def offline(median_ns: float) -> BoardRun:
        board = _board(series.independent(700, 1, median_ns=median_ns))
        return dataclasses.replace(board, request=dataclasses.replace(board.request, method=Method(scenario="offline")))

    (pair,) = _compare(offline(5e6), offline(6e6)).pairs
    assert [("qps", "regression")] == [(figure.metric, figure.outcome) for figure in pair.figures]


def test_what_a_query_takes_besides_its_invoke_is_told() -> None:
    runs = series.independent(700, 1, median_ns=1800, spread=0.01)
    around = measured.measurement([value + 1400 for value in runs]).latency
    (pair,) = _compare(_board(runs, latency=around), _board(runs, latency=around)).pairs

    assert any(note.startswith("of the invoke alone;") and "3.20 µs → 3.20 µs" in note for note in pair.notes)
    assert not any("invoke alone" in note for note in _pair(runs, runs).notes)


def test_a_long_comparison_says_how_far_it_is() -> None:
    cells = [measured.cell(series.independent(20, n), threads=n) for n in range(1, 20)]
    told: list[str] = []
    run = measured.run(measured.board_run(cells))
    compare(run, run, tell=told.append)

    assert told == ["comparing cell 16 of 19"]


def _server(qps: float | None) -> BoardRun:
    board = _board(series.independent(700, 1), qps=qps)
    method = Method(scenario="server", latency_bound_ms=20.0)
    return dataclasses.replace(board, request=dataclasses.replace(board.request, method=method))


def test_servers_are_judged_by_the_rate_they_hold() -> None:
    assert _compare(_server(100.0), _server(80.0)).pairs[0].outcome == "regression"
    assert _compare(_server(100.0), _server(99.0)).pairs[0].outcome == "unchanged"
    assert _compare(_server(100.0), _server(None)).pairs[0].outcome == "regression"
    assert "no rate that keeps the bound" in (_compare(_server(None), _server(9.0)).pairs[0].incomparable or "")


def _foreign(tool: Any = "benchmark_model", **fields: Any) -> Run:  # noqa: ANN401 - ForeignFigures' fields
    figures = ForeignFigures(tool=tool, model="birds.tflite", num_threads=4, **fields)
    return Run(id="f" * 16, created=1.0, boards=(), tool=tool, foreign=(figures,))


def test_another_programs_means_are_tested_by_their_summaries() -> None:
    base = _foreign(mean_ns=5e6, std_ns=1e5, runs=200)
    (slower,) = compare(base, _foreign(mean_ns=6e6, std_ns=1e5, runs=200)).pairs
    (unsure,) = compare(base, _foreign(mean_ns=6e6, std_ns=4e6, runs=20)).pairs

    assert (slower.outcome, slower.figures[0].metric) == ("regression", "mean")
    assert unsure.outcome == "uncertain"


def test_another_programs_medians_are_judged_by_tolerance_alone() -> None:
    (pair,) = compare(_foreign(median_ns=5e6), _foreign(median_ns=5.5e6)).pairs

    assert pair.outcome == "regression"
    assert "tolerance alone" in (pair.figures[0].note or "")


def test_what_another_program_does_not_say_is_not_compared() -> None:
    (pair,) = compare(_foreign(mean_ns=5e6), _foreign(mean_ns=5e6), Limits(metrics=("p99",))).pairs

    assert pair.incomparable == "benchmark_model does not say p99"


def test_steps_coarser_than_the_tolerance_are_told() -> None:
    base = _foreign("litert-benchmark", median_ns=2e4, resolution_ns=1e4)
    (pair,) = compare(base, base).pairs

    assert any("coarser than the tolerance" in note for note in pair.notes)


def test_programs_that_do_not_measure_alike_are_not_compared() -> None:
    pairs = compare(_foreign(mean_ns=5e6), _foreign("litert-benchmark", mean_ns=5e6)).pairs

    assert all("do not measure alike" in (pair.incomparable or "") for pair in pairs)
    assert len(pairs) == 2
    ours = measured.run(_board(series.independent(700, 1)))
    assert {pair.outcome for pair in compare(ours, _foreign(mean_ns=5e6)).pairs} == {"incomparable"}


@pytest.mark.parametrize(("low", "high", "rate"), [(1.06, 1.2, "improvement"), (0.8, 0.94, "regression")])
def test_a_rate_is_better_when_it_is_higher(low: float, high: float, rate: str) -> None:
    assert rate == judge("qps", low, high, 0.0, Limits())
    assert rate != judge("p50", low, high, 0.0, Limits())


def test_a_sure_interval_without_a_sure_test_is_uncertain() -> None:
    assert judge("p50", 1.2, 1.3, 0.5, Limits()) == "uncertain"


@pytest.mark.parametrize(
    ("field", "value"), [("tolerance", -0.1), ("tolerance", float("nan")), ("alpha", 0.0), ("alpha", 1.0)]
)
def test_limits_that_make_no_sense_are_refused(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=field):
        Limits(**{field: value})  # type: ignore[arg-type]
