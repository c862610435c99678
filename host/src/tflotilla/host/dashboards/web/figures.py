"""Numbers that boards sent, made fit for a page: whatever is no number, or none that can be shown, is None. Pure."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tflotilla.host.telemetry.totals import Totals

_NS_PER_MS = 1e6
_PERCENTILES = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0}
_DIGITS = 4
_MOST_LABELS = 50
#: Agents know of five.
_MOST_STAGES = 32
#: Whoever may speak as a board may say anything; what is longer nobody reads.
_LONGEST_TEXT = 2000
_LONGEST_NAME = 200


def finite(value: float | None) -> float | None:
    """Return a number that JSON can hold."""
    try:
        return float(value) if value is not None and math.isfinite(value) else None
    except OverflowError:
        return None


def text(said: str, *, most: int = _LONGEST_TEXT) -> str:
    """Return a text that a board sent, cut to what somebody would read."""
    return said if len(said) <= most else f"{said[:most]}…"


def short(said: str) -> str:
    """Return the name of something, a label say, that a board sent, cut to what a line holds."""
    return text(said, most=_LONGEST_NAME)


def milliseconds(nanoseconds: float | None) -> float | None:
    """Return a duration as pages show it, to a tenth of a microsecond."""
    value = finite(nanoseconds)
    return None if value is None else round(value / _NS_PER_MS, _DIGITS)


def stages(totals: Totals) -> dict[str, Any]:
    """Return count, p50, p90 and p99 of each stage, from sketches that were added up."""
    found = {}
    for stage, summed in itertools.islice(totals.stages.items(), _MOST_STAGES):
        figures: dict[str, Any] = {"count": summed.count}
        for name, percent in _PERCENTILES.items():
            try:
                figures[name] = milliseconds(summed.percentile(percent))
            except OverflowError:
                # A bucket that no clock fills.
                figures[name] = None
        found[short(stage)] = figures
    return found


def labels(totals: Totals) -> list[dict[str, Any]]:
    """Return how often each label won, the commonest first."""
    winners = sum(count for count, _score in totals.labels.values())
    ordered = sorted(totals.labels.items(), key=lambda item: (-item[1][0], item[0]))
    return [
        {
            "label": short(label),
            "count": count,
            "share": count / winners if winners else None,
            "mean_score": finite(score / count) if count else None,
        }
        for label, (count, score) in ordered[:_MOST_LABELS]
    ]


def shares(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return each label's share, the greatest first."""
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        {"label": short(label), "share": count / total if total else None} for label, count in ordered[:_MOST_LABELS]
    ]


def low_confidence_share(totals: Totals) -> float | None:
    """Return the share of winners that were unsure; None where there was no winner."""
    winners = sum(count for count, _score in totals.labels.values())
    return min(1.0, totals.low_confidence / winners) if winners else None
