"""`tflotilla query`: ask what was collected."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import output, selecting, stored_telemetry
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.telemetry.store.database import DatabaseStore
    from tflotilla.host.telemetry.store.history import By, Group

_PERCENTILES = (50, 90, 99)
_MIB = 1 << 20


class Metric(str, enum.Enum):
    """What to ask for."""

    LATENCY = "latency"
    LABELS = "labels"
    SCORES = "scores"
    COUNTS = "counts"
    HEALTH = "health"
    GAPS = "gaps"


def query(
    selector: selecting.OptionalSelector = "all",
    metric: Annotated[Metric, typer.Option("--metric", help="What to ask for.")] = Metric.LATENCY,
    by: Annotated[
        str,
        typer.Option(
            "--by", metavar="WHAT[,WHAT]", help="One row each: board, model, version, bundle, minute, hour, day."
        ),
    ] = "",
    stage: Annotated[
        str | None, typer.Option("--stage", help="Of latency, only this stage: decode, preprocess, invoke, total, …")
    ] = None,
    since: stored_telemetry.Since = "1h",
    until: stored_telemetry.Until = None,
    store: stored_telemetry.Store = None,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Ask what `tflotilla collect` kept: latencies, labels, scores, counts, temperatures, and what is missing.

    Percentiles are those of all inferences that a row is about, within half a per cent: boards, hours and versions are
    added up, never averaged. Each stored message counts once, from the moment it is stored. Where sums of minutes were
    forgotten already, whole hours or days answer, and the span that is shown says so. Hours and days are UTC's.

    Example: tflotilla query room=kitchen --since 7d --by version,day --metric latency --stage total

    Exit codes: 0 done, 2 usage, 3 nothing was collected, or the store can't be read.
    """
    from tflotilla.host.telemetry.store import history

    grouping = _grouping(by)
    if metric is Metric.GAPS and grouping:
        raise UsageError("--by does not go with --metric gaps, which are per board and boot")
    if metric is Metric.GAPS and until is not None:
        raise UsageError("--until does not go with --metric gaps, which are of whole boots that were heard since then")
    if stage is not None and metric is not Metric.LATENCY:
        raise UsageError(f"--stage goes with --metric latency, not {metric.value}")
    begins, ends = stored_telemetry.span(since, until)
    loaded, boards = stored_telemetry.boards_of(fleet, selector, store=store)
    with stored_telemetry.opened(loaded, store) as opened:
        if metric is Metric.GAPS:
            _show_gaps(opened, begins, boards, as_json=as_json)
            return
        question = history.Question(since=begins, until=ends, boards=boards, by=grouping)
        answer = history.ask(opened, question)
    rows = _ROWS[metric]
    documents = [
        dict(zip(grouping, group.key, strict=True)) | row for group in answer.groups for row in rows(group, stage)
    ]
    shown = {"since": history.spoken(answer.since), "until": history.spoken(answer.until)}
    if as_json:
        output.emit_json({**shown, "metric": metric.value, "by": list(grouping), "rows": documents})
        return
    if not documents:
        output.note(f"nothing of that was reported from {shown['since']} to {shown['until']}")
        return
    columns = list(documents[0])
    title = f"{metric.value}, {shown['since']} to {shown['until']}"
    figures = [name for name in columns if name not in (*grouping, "stage", "label", "score")]
    output.emit_table(title, columns, [[_cell(row[name]) for name in columns] for row in documents], right=figures)


def _grouping(text: str) -> tuple[By, ...]:
    from tflotilla.host.telemetry.store.history import BYS

    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in BYS:
            raise UsageError(f"--by must be of {', '.join(BYS)}, not {word!r}")
    if len(set(words)) < len(words):
        raise UsageError(f"--by names something twice: {text}")
    return tuple(by for word in words for by in BYS if by == word)


def _latency(group: Group, stage: str | None) -> list[dict[str, Any]]:
    from tflotilla.shared import sketches

    stages = group.sums.stages
    order = ("decode", "preprocess", "invoke", "postprocess", "total")
    names = sorted(stages, key=lambda name: (order.index(name) if name in order else len(order), name))
    rows = []
    for name in names:
        if stage is None or stage == name:
            figures = {f"p{each}_ms": _ms(sketches.percentile(stages[name], each)) for each in _PERCENTILES}
            rows.append({"stage": name, "count": sketches.count(stages[name]), **figures})
    return rows


def _labels(group: Group, _stage: str | None) -> list[dict[str, Any]]:
    labels = group.sums.labels
    everything = sum(count for count, _, _ in labels.values())
    rows = []
    for label, (count, total, squares) in sorted(labels.items(), key=lambda each: (-each[1][0], each[0])):
        if count:
            mean = total / count
            deviation = max(0.0, squares / count - mean * mean) ** 0.5
            share = count / everything
            rows.append(
                {
                    "label": label,
                    "count": count,
                    "share": round(share, 4),
                    "mean_score": round(mean, 4),
                    "std_score": round(deviation, 4),
                }
            )
    return rows


def _scores(group: Group, _stage: str | None) -> list[dict[str, Any]]:
    scores = group.sums.scores
    everything = sum(scores)
    spans = [f"{n / 10:.1f}-{(n + 1) / 10:.1f}" for n in range(len(scores))]
    return [
        {"score": span, "count": count, "share": round(count / everything, 4)}
        for span, count in zip(spans, scores, strict=True)
        if everything
    ]


def _counts(group: Group, _stage: str | None) -> list[dict[str, Any]]:
    sums = group.sums.scalars
    return [
        {
            "windows": sums.windows,
            "inferences": sums.count,
            "per_second": round(sums.count / sums.seconds, 3) if sums.seconds > 0 else None,
            "errors": sums.errors,
            "unreadable": sums.unreadable,
            "dropped": sums.dropped,
            "low_confidence_share": round(sums.low_confidence / sums.judged, 4) if sums.judged else None,
        }
    ]


def _health(group: Group, _stage: str | None) -> list[dict[str, Any]]:
    sums = group.sums.scalars
    warm = sums.temperatures > 0
    return [
        {
            "windows": sums.windows,
            "temperature_mean_c": round(sums.temperature_sum / sums.temperatures, 1) if warm else None,
            "temperature_max_c": round(sums.temperature_max, 1) if warm else None,
            "throttled_share": round(sums.throttled / sums.throttle_known, 4) if sums.throttle_known else None,
            "rss_mean_mib": round(sums.rss_sum / sums.windows / _MIB, 1),
            "rss_max_mib": round(sums.rss_max / _MIB, 1),
        }
    ]


_ROWS: dict[Metric, Callable[[Group, str | None], list[dict[str, Any]]]] = {
    Metric.LATENCY: _latency,
    Metric.LABELS: _labels,
    Metric.SCORES: _scores,
    Metric.COUNTS: _counts,
    Metric.HEALTH: _health,
}


def _show_gaps(store: DatabaseStore, since: float, boards: frozenset[str] | None, *, as_json: bool) -> None:
    from tflotilla.host.telemetry.store import history

    found = history.gaps(store, since=since, boards=boards)
    if as_json:
        output.emit_json({"since": history.spoken(since), "metric": "gaps", "rows": found})
        return
    if not found:
        output.note(f"nothing was reported since {history.spoken(since)}")
        return
    columns = ("board", "boot", "first", "last", "received", "missing", "duplicates", "heard last")
    rows = [
        [
            each.board,
            each.boot,
            *map(str, (each.first, each.last, each.received, each.missing, each.duplicates)),
            history.spoken(each.last_at),
        ]
        for each in found
    ]
    output.emit_table(f"gaps since {history.spoken(since)}", columns, rows, right=columns[2:7])


def _ms(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / 1e6, 4)


def _cell(value: object) -> str:
    return "" if value is None else str(value)
