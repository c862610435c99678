"""What boards reported while a bundle served there: the fold of telemetry that gates are judged by.

One `Evidence` is one board and one bundle. Latency is by `shared.pace`: percentiles only where there are runs for them.
Memory is bounded: the newest windows, and so many labels. What it does NOT do: judge (`gates`), listen (`watcher`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tflotilla.shared.contract.messages import Event, Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tflotilla.host.rollouts.policy import Gate
    from tflotilla.shared.contract.messages import Message

#: Bins of the winners' scores.
SCORE_BINS = 10
#: So many windows are kept: a pace is that of the median window, and more don't make it surer.
WINDOWS = 30
#: So many labels are told apart; the rest is counted under `OTHER`.
LABELS = 2048
OTHER = "…"
#: Each window that has a latency has a result, so these are the 11 runs that a median needs (`shared.pace`).
_JOURNALED_WINDOWS = 12
_JOURNALED_LABELS = 256
_MOST = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """The `total` stage of one window: how many, and its percentiles in nanoseconds."""

    count: int
    p50_ns: int
    p90_ns: int
    p99_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One board while one bundle served, since `since` (Unix seconds by this machine's clock)."""

    since: float
    #: When the last message of this bundle came, by this machine's clock.
    until: float
    windows: int = 0
    results: int = 0
    errors: int = 0
    crashes: int = 0
    #: The newest windows; older ones go, so that memory is bounded.
    totals: tuple[Total, ...] = ()
    #: The most of all windows, as is the temperature.
    rss_bytes: int | None = None
    temperature_c: float | None = None
    #: Label → how often it won.
    labels: Mapping[str, int] = field(default_factory=dict)
    #: How many winners had a score in each tenth; empty where the agent doesn't say.
    scores: tuple[int, ...] = ()
    #: Gates a figure of which came and was none (NaN, negative, not a message at all): they must not pass.
    broken: tuple[str, ...] = ()


def fold(evidence: Evidence | None, message: Message[Any], at: float) -> Evidence | None:
    """Add one message of the board and bundle that came at `at`; one that is no evidence changes nothing.

    Metrics are evidence, and events of kind `worker`: its worker ended that should not have.
    """
    body = message.body
    if isinstance(body, Metrics):
        return _with_window(evidence or Evidence(since=at, until=at), body, at)
    if isinstance(body, Event) and body.kind == "worker":
        evidence = evidence or Evidence(since=at, until=at)
        return replace(evidence, crashes=evidence.crashes + 1, until=max(evidence.until, at))
    return evidence


def spoiled(evidence: Evidence | None, gates: Iterable[Gate], at: float) -> Evidence:
    """Note that something came of the bundle that could not be read: these gates must not pass."""
    evidence = evidence or Evidence(since=at, until=at)
    return replace(evidence, broken=_union(evidence.broken, gates), until=max(evidence.until, at))


def merged(one: Evidence, other: Evidence) -> Evidence:
    """Return both together, the newer windows of both kept; the order doesn't matter."""
    older, newer = sorted((one, other), key=lambda each: (each.until, each.since, repr(each)))
    return Evidence(
        since=min(one.since, other.since),
        until=newer.until,
        windows=one.windows + other.windows,
        results=one.results + other.results,
        errors=one.errors + other.errors,
        crashes=one.crashes + other.crashes,
        totals=(*older.totals, *newer.totals)[-WINDOWS:],
        rss_bytes=_most(one.rss_bytes, other.rss_bytes),
        temperature_c=_most(one.temperature_c, other.temperature_c),
        labels=_added(older.labels, newer.labels.items()),
        scores=_summed(one.scores, other.scores),
        broken=_union(one.broken, other.broken),
    )


def condensed(evidence: Evidence) -> Evidence:
    """Return what the journal keeps of a baseline: enough windows for a median of any rate, the commonest labels."""
    labels = evidence.labels
    if len(labels) > _JOURNALED_LABELS:
        ranked = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
        rest = sum(count for _label, count in ranked[_JOURNALED_LABELS:])
        labels = _added(dict(ranked[:_JOURNALED_LABELS]), ((OTHER, rest),))
    return replace(evidence, totals=evidence.totals[-_JOURNALED_WINDOWS:], labels=labels)


def _with_window(evidence: Evidence, body: Metrics, at: float) -> Evidence:
    broken: list[str] = []
    if not (_counts(body.count) and _counts(body.errors)):
        broken.append("errors")
    total = body.stages.get("total")
    totals = evidence.totals
    if total is not None:
        figures = (total.p50_ns, total.p90_ns, total.p99_ns)
        if total.count > 0 and all(map(_counts, (total.count, *figures))) and figures == tuple(sorted(figures)):
            new = Total(count=total.count, p50_ns=total.p50_ns, p90_ns=total.p90_ns, p99_ns=total.p99_ns)
            totals = (*totals[-WINDOWS + 1 :], new)
        else:
            broken.append("latency")
    if body.rss_bytes <= 0 or not _counts(body.rss_bytes):
        broken.append("memory")
    if body.temperature_c is not None and not math.isfinite(body.temperature_c):
        broken.append("temperature")
    labels = evidence.labels
    if not all(_counts(each.count) for each in body.labels):
        broken.append("labels")
    elif body.labels:
        labels = _added(labels, ((each.label, each.count) for each in body.labels))
    scores = evidence.scores
    if body.scores and (len(body.scores) != SCORE_BINS or not all(map(_counts, body.scores))):
        broken.append("confidence")
    elif body.scores:
        scores = _summed(scores, body.scores)
    # A NaN among scores makes their mean one; no bin would show it.
    if not all(math.isfinite(each.mean_score) for each in body.labels):
        broken.append("confidence")
    return Evidence(
        since=evidence.since,
        until=max(evidence.until, at),
        windows=evidence.windows + 1,
        results=evidence.results + (body.count if _counts(body.count) else 0),
        errors=evidence.errors + (body.errors if _counts(body.errors) else 0),
        crashes=evidence.crashes,
        totals=totals,
        rss_bytes=evidence.rss_bytes if "memory" in broken else _most(evidence.rss_bytes, body.rss_bytes),
        temperature_c=evidence.temperature_c
        if "temperature" in broken
        else _most(evidence.temperature_c, body.temperature_c),
        labels=labels,
        scores=scores,
        broken=_union(evidence.broken, broken) if broken else evidence.broken,
    )


def _counts(figure: float) -> bool:
    # False for NaN too. No honest count comes near the limit, and beyond it arithmetic with floats overflows.
    return 0 <= figure <= _MOST


def _most(one: Any, other: Any) -> Any:  # noqa: ANN401 - both of one kind of number, or None
    return other if one is None else one if other is None else max(one, other)


def _added(labels: Mapping[str, int], more: Iterable[tuple[str, int]]) -> Mapping[str, int]:
    counted = dict(labels)
    for label, count in more:
        known = label in counted or len(counted) < LABELS
        key = label if known else OTHER
        counted[key] = counted.get(key, 0) + count
    return counted


def _summed(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True)) if one and other else one or other


def _union(one: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*one, *other}))
