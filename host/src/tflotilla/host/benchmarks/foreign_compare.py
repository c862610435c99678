"""Other programs' figures held against each other: by their summaries, since they tell no single runs. Pure.

Means with deviations and counts are tested (Welch's t-test); a lone median is judged by the tolerance, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.host.benchmarks import significance
from tflotilla.host.benchmarks.figures import Figure, judged
from tflotilla.host.benchmarks.rendering import foreign, words
from tflotilla.shared.contract.benchmark import MAX_RUNS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tflotilla.host.benchmarks.figures import Limits, Metric
    from tflotilla.host.benchmarks.foreign import ForeignFigures
    from tflotilla.host.benchmarks.results import Run

#: A mean of many runs may be a fraction of a nanosecond, and nothing takes longer than thirty years.
_LEAST_NS = 1e-3
_MOST_NS = 1e18
_LONE = "one figure on each side, judged by tolerance alone"
_WELCH = "from means and deviations, as if runs were independent"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignPair:
    """One model in one configuration, by the same program's word."""

    model: str
    configuration: str
    figures: tuple[Figure, ...] = ()
    incomparable: str | None = None
    notes: tuple[str, ...] = ()


def compare(base: Run, new: Run, limits: Limits) -> Iterator[ForeignPair]:
    """Yield every figure of both results once; results of ours have none."""
    if not (base.foreign or new.foreign):
        return
    first = {_key(each, limits): each for each in base.foreign}
    second = {_key(each, limits): each for each in new.foreign}
    for key in [*first, *(key for key in second if key not in first)]:
        before, after = first.get(key), second.get(key)
        if before is not None and after is not None:
            yield _pair(before, after, limits)
        elif (only := before or after) is not None:
            reason = f"only in {'BASE' if before is not None else 'NEW'}"
            if base.tool != new.tool:
                reason += f": {base.tool} and {new.tool} do not measure alike"
            yield ForeignPair(model=words.name(only.model), configuration=foreign.choices(only), incomparable=reason)


def _key(figures: ForeignFigures, limits: Limits) -> tuple[object, ...]:
    model = "" if limits.across_models else figures.model
    return figures.tool, model, figures.num_threads, figures.xnnpack, figures.accelerator


def _pair(before: ForeignFigures, after: ForeignFigures, limits: Limits) -> ForeignPair:
    medians = before.median_ns is not None and after.median_ns is not None
    metrics: tuple[Metric, ...] = limits.metrics or (("p50",) if medians else ("mean",))
    figures = [figure for metric in metrics if (figure := _figure(metric, before, after, limits)) is not None]
    missing = [metric for metric in metrics if metric not in {figure.metric for figure in figures}]
    said = tuple(f"{before.tool} does not say {metric}" for metric in missing)
    coarse = max(before.resolution_ns or 0.0, after.resolution_ns or 0.0)
    if any(coarse > limits.tolerance * figure.base for figure in figures):
        said = (*said, f"its figures are printed in steps of {words.duration(coarse)}, coarser than the tolerance")
    return ForeignPair(
        model=words.name(after.model),
        configuration=foreign.choices(after),
        figures=tuple(figures),
        incomparable=None if figures else "; ".join(said),
        notes=said if figures else (),
    )


def _figure(metric: Metric, before: ForeignFigures, after: ForeignFigures, limits: Limits) -> Figure | None:
    if metric == "mean":
        summaries = [_summary(each) for each in (before, after)]
        if summaries[0] is not None and summaries[1] is not None:
            ratio = significance.of_summaries(summaries[0], summaries[1], alpha=limits.alpha)
            return judged(metric, ratio, limits, note=_WELCH)
        lone = (before.mean_ns, after.mean_ns)
    elif metric == "p50":
        lone = (before.median_ns, after.median_ns)
    else:
        return None
    if not (_plausible(lone[0]) and _plausible(lone[1])) or lone[0] is None or lone[1] is None:
        return None
    return judged(metric, (lone[0], lone[1]), limits, note=_LONE)


def _summary(figures: ForeignFigures) -> tuple[float, float, int] | None:
    mean, deviation, runs = figures.mean_ns, figures.std_ns, figures.runs
    if mean is None or deviation is None or runs is None or not 2 <= runs <= MAX_RUNS:  # noqa: PLR2004 - a deviation's least
        return None
    return (mean, deviation, runs) if _plausible(mean) and 0 <= deviation <= _MOST_NS else None


def _plausible(value_ns: float | None) -> bool:
    """Return whether a clock can have shown that, so that arithmetic on it can't fail."""
    return value_ns is not None and _LEAST_NS <= value_ns <= _MOST_NS
