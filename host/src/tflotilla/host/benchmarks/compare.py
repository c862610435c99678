"""Whether a benchmark got worse: cell against cell of the same board, model, configuration and method.

Rules it keeps:
- a regression is a difference that chance does not explain (p < alpha) *and* whose interval lies as a whole beyond the
  tolerance; where each side has one figure (memory, a server's rate) the tolerance alone judges, and that is said;
- what may not be quoted is not compared: INVALID cells, unlike models, machines, methods or tools. It is listed with
  the reason, never left out. A cell that worked and does not any more is broken, which is as bad as slower;
- all figures of a latency come from the single invokes in the results (at most `keep_latencies` of each), so that the
  ratio, its interval and the values beside it belong together.

What it does NOT do: read results, or show what it found.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from tflotilla.host.benchmarks import foreign_compare, pairing, significance
from tflotilla.host.benchmarks.figures import Figure, Limits, Metric, judged
from tflotilla.host.benchmarks.rendering import words
from tflotilla.shared.statistics import minimum_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tflotilla.host.benchmarks.pairing import Couple
    from tflotilla.host.benchmarks.results import Run
    from tflotilla.shared.contract.benchmark import BenchmarkCell, Measurement

METRICS: tuple[Metric, ...] = get_args(Metric)
Outcome = Literal["regression", "broken", "improvement", "unchanged", "uncertain", "incomparable"]
_PERCENT: dict[Metric, float] = {"p50": 50.0, "p90": 90.0, "p99": 99.0}
_SEED = 0
_TOLD_EVERY = 16
#: A query that takes two per cent more than its invoke is not worth a word.
_NEARLY = 1.02
_OF_INVOKES: tuple[Metric, ...] = ("p50", "p90", "p99", "mean")
_MOST_NS = 1e18


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One cell in both results, or in one of them."""

    board: str
    model: str
    #: What it ran with, in words; the runtime without its version.
    configuration: str
    figures: tuple[Figure, ...] = ()
    #: Why it worked before and does not any more.
    broken: str | None = None
    #: Why nothing can be said of it.
    incomparable: str | None = None
    #: What differs besides, and what a reader must know.
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The worst of its figures."""
        if self.broken is not None:
            return "broken"
        found = {figure.outcome for figure in self.figures}
        order: tuple[Outcome, ...] = ("regression", "uncertain", "improvement", "unchanged")
        return next((outcome for outcome in order if outcome in found), "incomparable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two results, pair by pair. `base` and `new` name them."""

    base: str
    new: str
    limits: Limits
    pairs: tuple[Pair, ...] = ()

    @property
    def worse(self) -> tuple[Pair, ...]:
        """The pairs that must not pass: slower, larger, or broken."""
        return tuple(pair for pair in self.pairs if pair.outcome in ("regression", "broken"))

    @property
    def compared(self) -> tuple[Pair, ...]:
        """The pairs of which something could be said."""
        return tuple(pair for pair in self.pairs if pair.outcome != "incomparable")

    def counted(self) -> dict[Outcome, int]:
        """Return how many pairs have which outcome; those that none has are left out."""
        outcomes = [pair.outcome for pair in self.pairs]
        return {outcome: outcomes.count(outcome) for outcome in get_args(Outcome) if outcome in outcomes}


def compare(
    base: Run,
    new: Run,
    limits: Limits = Limits(),  # noqa: B008 - a frozen value
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Hold a result against an older one. Equal results and limits give equal answers: all chance is seeded."""
    pairs = []
    couples = tuple(pairing.couples(base, new, limits))
    for number, couple in enumerate(couples, 1):
        if number % _TOLD_EVERY == 0:
            tell(f"comparing cell {number} of {len(couples)}")
        pairs.append(_pair(couple, limits))
    pairs += [
        Pair(
            board="",
            model=each.model,
            configuration=each.configuration,
            figures=each.figures,
            incomparable=each.incomparable,
            notes=each.notes,
        )
        for each in foreign_compare.compare(base, new, limits)
    ]
    return Comparison(base=_title(base), new=_title(new), limits=limits, pairs=tuple(pairs))


def _title(run: Run) -> str:
    return f"{words.name(run.name)} ({words.name(run.id[:8])})" if run.name else words.name(run.id)


def _pair(couple: Couple, limits: Limits) -> Pair:
    head = Pair(board=couple.board, model=couple.model, configuration=couple.configuration, notes=couple.notes)
    if couple.incomparable is not None or couple.base is None or couple.new is None:
        return dataclasses.replace(head, incomparable=couple.incomparable)
    broken, incomparable = _unusable(couple.base, couple.new, limits)
    if broken is not None or incomparable is not None:
        return dataclasses.replace(head, broken=broken, incomparable=incomparable)
    first, second = couple.base.measurement, couple.new.measurement
    assert first is not None  # noqa: S101 - `_unusable` has seen to it
    assert second is not None  # noqa: S101 - likewise
    figures: list[Figure] = []
    missing: list[str] = []
    metrics = limits.metrics or (("qps",) if couple.scenario in ("offline", "server") else ("p50",))
    for metric in metrics:
        found = _figure(metric, couple, (first, second), limits)
        if isinstance(found, Figure):
            figures.append(found)
        else:
            missing.append(found)
    around = _around(first, second) if any(figure.metric in _OF_INVOKES for figure in figures) else None
    notes = (*couple.notes, *_told(couple.base, couple.new), *(missing if figures else ()))
    notes = notes if around is None else (*notes, around)
    return dataclasses.replace(
        head, figures=tuple(figures), notes=notes, incomparable=None if figures else "; ".join(missing)
    )


def _unusable(base: BenchmarkCell, new: BenchmarkCell, limits: Limits) -> tuple[str | None, str | None]:
    """Return why the new cell is broken, or why the two can't be held against each other."""
    wrong = {"BASE": _failing(base), "NEW": _failing(new)}
    if wrong["BASE"] is not None:
        also = "" if wrong["NEW"] is None else f"; nor has NEW: {wrong['NEW']}"
        return None, f"BASE has no figures: {wrong['BASE']}{also}"
    if wrong["NEW"] is not None:
        return wrong["NEW"], None
    if limits.include_invalid:
        return None, None
    invalid = [
        f"{side} is INVALID: {'; '.join(words.reasons(cell)) or 'the board gave no reason'}"
        for side, cell in (("BASE", base), ("NEW", new))
        if words.standing(cell) != "VALID"
    ]
    return None, "; ".join(invalid) or None


def _failing(cell: BenchmarkCell) -> str | None:
    """Return why a cell has no figures, or none that are worth anything: wrong answers count for none."""
    measurement = cell.measurement
    if measurement is None or measurement.correctness.goldens < measurement.correctness.goldens_total:
        return "; ".join(words.reasons(cell))
    return None


def _told(base: BenchmarkCell, new: BenchmarkCell) -> Iterator[str]:
    """Yield what a reader must know of two cells that are compared."""
    for side, cell in (("BASE", base), ("NEW", new)):
        if words.standing(cell) != "VALID":
            yield f"{side} is INVALID: {'; '.join(words.reasons(cell))}"
        if cell.measurement is not None and cell.measurement.drift.drifting:
            yield f"{side} drifted by {words.percent(cell.measurement.drift.change)} over its run"
    first, second = base.measurement, new.measurement
    if first is None or second is None:
        return
    if (first.correctness.right, first.correctness.labelled) != (second.correctness.right, second.correctness.labelled):
        yield f"answers: {words.correctness(first.correctness)} → {words.correctness(second.correctness)}"


def _around(first: Measurement, second: Measurement) -> str | None:
    """Return how long whole queries took, where that is something else than their invokes."""
    if all(each.latency.median_ns <= each.invoke.median_ns * _NEARLY for each in (first, second)):
        return None
    queries = " → ".join(words.duration(each.latency.median_ns) for each in (first, second))
    return f"of the invoke alone; with copying in and out, or all of a query, p50 is {queries}"


def _figure(metric: Metric, couple: Couple, measured: tuple[Measurement, Measurement], limits: Limits) -> Figure | str:
    """Return one metric of a pair, or why there is none."""
    first, second = measured
    if metric == "rss":
        return _single(metric, first.peak_rss_bytes, second.peak_rss_bytes, limits)
    if metric == "qps" and couple.scenario == "server":
        if first.qps is None:
            return "qps: BASE found no rate that keeps the bound"
        return _single(metric, first.qps, second.qps or 0.0, limits)
    lists = (first.latencies_ns, second.latencies_ns)
    for side, latencies in zip(("BASE", "NEW"), lists, strict=True):
        short = _shortage(metric, side, latencies)
        if short is not None:
            return short
    percent = _PERCENT.get(metric)
    if percent is not None:
        ratio = significance.of_percentiles(*lists, percent, alpha=limits.alpha, seed=_SEED)
    else:
        ratio = significance.of_means(*lists, alpha=limits.alpha, seed=_SEED)
    if metric == "qps":
        # Samples a second are the inverse of the mean, and so are ratio and interval.
        batch = couple.batch
        ratio = significance.Ratio(
            base=batch * 1e9 / ratio.base,
            new=batch * 1e9 / ratio.new,
            ratio=1 / ratio.ratio,
            low=1 / ratio.high,
            high=1 / ratio.low,
            p_value=ratio.p_value,
        )
    return judged(metric, ratio, limits)


def _shortage(metric: Metric, side: str, latencies: Sequence[int]) -> str | None:
    if not latencies:
        return f"{metric}: {side} keeps no single latencies; measure with more of them kept"
    if min(latencies) <= 0 or max(latencies) > _MOST_NS:
        return f"{metric}: {side} has latencies that no clock shows"
    needed = minimum_runs(_PERCENT.get(metric, 50.0))
    if len(latencies) < needed:
        return f"not enough runs for {metric} in {side} ({len(latencies)} of {needed})"
    return None


def _single(metric: Metric, base: float, new: float, limits: Limits) -> Figure | str:
    if base <= 0 or max(base, new) > _MOST_NS or new < 0:
        return f"{metric}: {base:g} and {new:g} can't be held against each other"
    return judged(metric, (float(base), float(new)), limits, note="one figure on each side, judged by tolerance alone")
