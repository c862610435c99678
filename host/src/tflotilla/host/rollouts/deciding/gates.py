"""Holds what boards did with a bundle against a rollout's limits: `judge` one board, `verdict` for a wave.

Rules it keeps:
- what is missing, broken or not a number fails: no telemetry, no result, too few runs to compare, no shadow though one
  was asked for, no board at all;
- what compares with the bundle before (latency, memory, labels, confidence, agreement) does not apply where nothing
  served before, another model did, or it gave no result either; the figure says so;
- latency is compared by `shared.pace`: the highest percentile that both have the runs for, and the median;
- a shift of labels or scores that chance could make is none (`drift`).
What it does NOT do: decide what follows (`engine`), collect (`evidence`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tflotilla.host.rollouts.events import GateResult
from tflotilla.host.rollouts.evidence import Evidence
from tflotilla.host.telemetry import drift
from tflotilla.shared import pace
from tflotilla.shared.contract.deployment import ShadowReport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tflotilla.host.rollouts.policy import Gate, GateLimits
    from tflotilla.shared.pace import Pace, Percentile

#: Slower by less than that is the board's scheduler, whatever the ratio; a median over windows is steadier.
SLACK_NS = 500_000
MEDIAN_SLACK_NS = 50_000
#: A board whose last word is older than that, and older than three of its windows, is silent.
SILENCE_S = 30.0
_WINDOWS_OF_SILENCE = 3
_MIB = 1 << 20
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One board on which the bundle serves."""

    board: str
    now: float
    #: Since when the bundle serves (Unix seconds).
    since: float
    evidence: Evidence | None
    #: What served before: nothing, a bundle of the same model, or another model.
    before: Literal["nothing", "same", "other"]
    baseline: Evidence | None = None
    #: Whether a shadow was asked for, and what it said.
    shadowed: bool = False
    shadow: ShadowReport | None = None
    #: False: it had the bundle already, so there was no deployment that could shadow.
    changed: bool = True


def judge(limits: GateLimits, seen: Seen) -> tuple[GateResult, ...]:
    """Return one result for each gate that is switched on, but a single one where the board says nothing at all."""
    return tuple(_results(limits, seen))


def _results(limits: GateLimits, seen: Seen) -> Iterator[GateResult]:
    told = _told(limits)
    if told:
        silence = _silence(seen)
        if silence is not None or seen.evidence is None:
            more = f" (nor can {', '.join(told[1:])} be judged)" if told[1:] else ""
            yield _failed(told[0], seen, f"{silence}{more}")
        else:
            yield from _telemetry(limits, seen, seen.evidence)
    if limits.agreement is not None and seen.shadowed:
        yield _agreement(limits.agreement, seen)


def _told(limits: GateLimits) -> list[Gate]:
    """Return the gates that are read from telemetry and switched on."""
    gates: list[tuple[Gate, tuple[float | None, ...]]] = [
        ("errors", (limits.error_rate,)),
        ("crashes", (limits.crashes,)),
        ("latency", (limits.latency_ratio, limits.latency_ms)),
        ("memory", (limits.memory_ratio, limits.memory_mib)),
        ("temperature", (limits.temperature_c,)),
        ("labels", (limits.labels_psi,)),
        ("confidence", (limits.confidence_psi,)),
    ]
    return [gate for gate, figures in gates if any(figure is not None for figure in figures)]


def _silence(seen: Seen) -> str | None:
    evidence = seen.evidence
    if evidence is None:
        return f"no telemetry of it in {seen.now - seen.since:.0f} s"
    if evidence.crashes and not evidence.windows:
        # It was heard: its worker never lived long enough for a window.
        return None
    if not evidence.windows:
        return f"no metrics of it in {seen.now - seen.since:.0f} s"
    spacing = (evidence.until - evidence.since) / max(evidence.windows - 1, 1)
    quiet = seen.now - evidence.until
    if quiet > max(SILENCE_S, _WINDOWS_OF_SILENCE * spacing):
        return f"silent for {quiet:.0f} s"
    return None


def _telemetry(limits: GateLimits, seen: Seen, evidence: Evidence) -> Iterator[GateResult]:
    # Windows came on both sides and none had a result: nothing moves before that camera. Without a baseline it fails.
    idle = not (evidence.results or evidence.errors or evidence.crashes) and _idle(seen)
    for gate in _told(limits):
        if gate in evidence.broken:
            yield _failed(gate, seen, f"{gate}: its report was no number")
        elif gate == "errors" and limits.error_rate is not None:
            yield _errors(limits.error_rate, seen, evidence, idle=idle)
        elif gate == "crashes" and limits.crashes is not None:
            figure = f"{evidence.crashes} crashes (at most {limits.crashes})"
            yield _held("crashes", seen, figure, evidence.crashes, limits.crashes)
        elif gate == "latency":
            yield from _latency(limits, seen, evidence, idle=idle)
        elif gate == "memory":
            yield from _memory(limits, seen, evidence)
        elif gate == "temperature" and limits.temperature_c is not None:
            yield _temperature(limits.temperature_c, seen, evidence)
        elif gate == "labels" and limits.labels_psi is not None:
            yield _shift("labels", limits.labels_psi, seen, evidence, idle=idle)
        elif gate == "confidence" and limits.confidence_psi is not None:
            yield _shift("confidence", limits.confidence_psi, seen, evidence, idle=idle)


def _idle(seen: Seen) -> bool:
    baseline = seen.baseline
    return baseline is not None and bool(baseline.windows) and not (baseline.results or baseline.errors)


def _apart(seen: Seen) -> str | None:
    """Say why there is nothing to compare with, None where there is or should be."""
    if seen.before == "nothing":
        return "nothing served before"
    if seen.before == "other":
        return "another model served before"
    baseline = seen.baseline
    if baseline is not None and not baseline.results:
        return "the bundle before gave no result"
    return None


def _errors(limit: float, seen: Seen, evidence: Evidence, *, idle: bool) -> GateResult:
    total = evidence.results + evidence.errors
    if idle:
        return _passed("errors", seen, "no input came, as before it")
    if total == 0:
        return _failed("errors", seen, f"not one result in {seen.now - seen.since:.0f} s")
    rate = evidence.errors / total
    figure = f"{evidence.errors} of {total} inferences failed, {rate:.1%} (at most {limit:.1%})"
    return _held("errors", seen, figure, rate, limit)


def _latency(limits: GateLimits, seen: Seen, evidence: Evidence, *, idle: bool) -> Iterator[GateResult]:
    if idle:
        yield _passed("latency", seen, "no input came, as before it")
        return
    now = pace.over(evidence.totals)
    if now is None or not now.supports("p50"):
        runs = 0 if now is None else now.all_runs
        yield _failed("latency", seen, f"{runs} runs are too few to judge latency; let it soak longer")
        return
    if limits.latency_ms is not None:
        highest = pace.comparable(now, now) or "p50"
        figure_ms = now.at(highest) / _NS_PER_MS
        figure = f"{highest} {figure_ms:.3g} ms (at most {limits.latency_ms:g} ms)"
        yield _held("latency", seen, figure, figure_ms, limits.latency_ms)
    if limits.latency_ratio is not None:
        apart = _apart(seen)
        if apart is not None:
            yield _passed("latency", seen, apart)
        else:
            yield _slower(limits.latency_ratio, seen, now)


def _slower(limit: float, seen: Seen, now: Pace) -> GateResult:
    then = pace.over(seen.baseline.totals) if seen.baseline is not None else None
    percentile = None if then is None else pace.comparable(now, then)
    if then is None or percentile is None:
        runs = 0 if then is None else then.all_runs
        return _failed("latency", seen, f"{runs} runs of the bundle before are too few to compare; watch it longer")
    found = [_compared(percentile, limit, now, then, SLACK_NS)]
    if percentile != "p50":
        found.append(_compared("p50", limit, now, then, MEDIAN_SLACK_NS))
    ok, ratio, figure = min(found, key=lambda each: (each[0], -each[1]))
    return GateResult(gate="latency", board=seen.board, ok=ok, figure=figure, value=ratio, limit=limit)


def _compared(percentile: Percentile, limit: float, now: Pace, then: Pace, slack_ns: int) -> tuple[bool, float, str]:
    new, old = now.at(percentile), then.at(percentile)
    ratio = new / max(old, 1)
    times = (
        f"{percentile} {new / _NS_PER_MS:.3g} ms against {old / _NS_PER_MS:.3g} ms, ×{ratio:.2f} (at most ×{limit:g})"
    )
    return ratio <= limit or new - old <= slack_ns, ratio, times


def _memory(limits: GateLimits, seen: Seen, evidence: Evidence) -> Iterator[GateResult]:
    rss = evidence.rss_bytes
    if rss is None:
        yield _failed("memory", seen, "its memory was not reported")
        return
    if limits.memory_mib is not None:
        figure = f"{rss / _MIB:.0f} MiB (at most {limits.memory_mib:g} MiB)"
        yield _held("memory", seen, figure, rss / _MIB, limits.memory_mib)
    if limits.memory_ratio is None:
        return
    # A bundle that gave no result had its model in memory all the same, so only these two keep them apart.
    apart = {"nothing": "nothing served before", "other": "another model served before"}.get(seen.before)
    before = seen.baseline.rss_bytes if seen.baseline is not None else None
    if apart is not None:
        yield _passed("memory", seen, apart)
    elif before is None and seen.baseline is not None and seen.baseline.crashes:
        yield _passed("memory", seen, "the bundle before only crashed")
    elif not before:
        yield _failed("memory", seen, "the memory of the bundle before is unknown; watch it longer")
    else:
        ratio = rss / before
        times = f"{rss / _MIB:.0f} MiB against {before / _MIB:.0f} MiB, ×{ratio:.2f} (at most ×{limits.memory_ratio:g})"
        yield _held("memory", seen, times, ratio, limits.memory_ratio)


def _temperature(limit: float, seen: Seen, evidence: Evidence) -> GateResult:
    if evidence.temperature_c is not None:
        figure = f"{evidence.temperature_c:.1f} °C (at most {limit:g} °C)"
        return _held("temperature", seen, figure, evidence.temperature_c, limit)
    if seen.baseline is not None and seen.baseline.temperature_c is not None:
        return _failed("temperature", seen, "its temperature is not reported any more")
    return _passed("temperature", seen, "it has no thermometer")


def _shift(
    gate: Literal["labels", "confidence"], limit: float, seen: Seen, evidence: Evidence, *, idle: bool
) -> GateResult:
    apart = "no input came, as before it" if idle else _apart(seen)
    if apart is not None:
        return _passed(gate, seen, apart)
    baseline = seen.baseline
    if baseline is None:
        return _failed(gate, seen, f"{gate} of the bundle before are unknown; watch it longer")
    if not any(baseline.labels.values()):
        return _passed(gate, seen, "the bundle before named no labels")
    old, new = _counts(gate, baseline), _counts(gate, evidence)
    for counts, whose in ((old, "the bundle before"), (new, "the bundle")):
        missing = _uncounted(gate, counts, broken=gate in baseline.broken)
        if missing is not None:
            return _failed(gate, seen, f"{whose} {missing}")
    found = drift.psi(old, new)
    allowed = max(limit, found.chance)
    chance = f", chance with {sum(old.values())} and {sum(new.values())} results" if allowed > limit else ""
    return _held(gate, seen, f"PSI {found.value:.2f} (at most {allowed:.2f}{chance})", found.value, allowed)


def _uncounted(gate: Gate, counts: Mapping[str, int], *, broken: bool) -> str | None:
    """Say why counts can't be compared."""
    if broken or not all(count >= 0 for count in counts.values()):
        return f"told {gate} that are no numbers"
    if not any(counts.values()):
        return "named no labels" if gate == "labels" else "told no scores; upgrade its agent"
    return None


def _counts(gate: Literal["labels", "confidence"], evidence: Evidence) -> Mapping[str, int]:
    if gate == "labels":
        return evidence.labels
    return {str(tenth): count for tenth, count in enumerate(evidence.scores)}


def _agreement(limit: float, seen: Seen) -> GateResult:
    apart = {"nothing": "nothing served before", "other": "another model served before"}.get(seen.before)
    if apart is None and not seen.changed and seen.shadow is None:
        apart = "it had the bundle already"
    if apart is not None:
        return _passed("agreement", seen, apart)
    shadow = seen.shadow
    if shadow is None:
        return _failed("agreement", seen, "it was not tried beside the bundle before; upgrade its agent")
    if shadow.inputs <= 0 or shadow.reason is not None:
        return _failed("agreement", seen, shadow.reason or "it saw no inputs beside the bundle before")
    share = shadow.agreed / shadow.inputs
    ok = limit <= share <= 1
    figure = f"same answer on {shadow.agreed} of {shadow.inputs} inputs, {share:.0%} (at least {limit:.0%})"
    return GateResult(gate="agreement", board=seen.board, ok=ok, figure=figure, value=share, limit=limit)


def _held(gate: Gate, seen: Seen, figure: str, value: float, limit: float) -> GateResult:
    # NaN is not at most anything.
    return GateResult(gate=gate, board=seen.board, ok=value <= limit, figure=figure, value=float(value), limit=limit)


def _passed(gate: Gate, seen: Seen, why: str) -> GateResult:
    return GateResult(gate=gate, board=seen.board, ok=True, figure=f"does not apply: {why}")


def _failed(gate: Gate, seen: Seen, why: str) -> GateResult:
    return GateResult(gate=gate, board=seen.board, ok=False, figure=why)
