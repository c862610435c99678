"""One rule at one board, now: broken, kept, or not to be told. Pure.

Rules it keeps: what isn't known is neither: a board that is off breaks `offline` and says nothing about its latency; a
percentile needs as many runs as it has places (100 for a p99), a drift a reference and more than chance.
What it does NOT do: remember; `stepping` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.host.pages.words import age, duration, printable
from tflotilla.host.telemetry import drift, presence
from tflotilla.host.telemetry.alarms import rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tflotilla.host.telemetry.alarms.recent import Lately
    from tflotilla.host.telemetry.alarms.rules import Condition
    from tflotilla.host.telemetry.fleet_view import BoardView
    from tflotilla.host.telemetry.presence import Listening
    from tflotilla.shared.contract.manifest import Reference

_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a rule sees at a board: `broken` is None where it can't be told, and the figure says why."""

    broken: bool | None
    figure: str
    #: Whether listening longer may tell.
    waits: bool = False


def judge(condition: Condition, view: BoardView | None, lately: Lately | None, listening: Listening) -> Sight:
    """Return what a rule sees.

    Args:
        condition: the rule's.
        view: what is known of the board; None where nothing was heard of it.
        lately: what it did in the rule's `over`; None for rules without one, and where nothing was heard.
        listening: since when we do, without a break.

    """
    if isinstance(condition, rules.Offline):
        return _offline(condition, view, listening)
    if view is None:
        return _unknown("never heard of")
    if view.availability == "offline":
        return _unknown("it is off")
    if presence.is_silent(view, listening):
        return _unknown(f"silent for {age(presence.silence_s(view, listening))}")
    return _of_a_board_that_speaks(condition, view, lately)


def _of_a_board_that_speaks(
    condition: rules.Latency | rules.Throttled | rules.Temperature | rules.Drift | rules.Drops | rules.Errors,
    view: BoardView,
    lately: Lately | None,
) -> Sight:
    match condition:
        case rules.Throttled():
            found = _throttled(view)
        case rules.Temperature():
            found = _temperature(condition, view)
        case rules.Errors():
            found = _errors(condition, view, lately)
        case rules.Drops():
            found = _drops(condition, lately)
        case rules.Latency():
            found = _latency(condition, lately)
        case rules.Drift():
            found = _drift(condition, view, lately)
    return found


def _unknown(why: str) -> Sight:
    return Sight(broken=None, figure=why)


def _not_yet(why: str) -> Sight:
    return Sight(broken=None, figure=why, waits=True)


def _offline(condition: rules.Offline, view: BoardView | None, listening: Listening) -> Sight:
    if view is None:
        patience = condition.silent_after_s or presence.SILENT_IDLE_S
        if condition.never_heard and listening.now - listening.since > patience:
            return Sight(broken=True, figure="never heard of")
        return _unknown("never heard of")
    if view.availability == "offline":
        return Sight(broken=True, figure="offline")
    silence = presence.silence_s(view, listening)
    if presence.is_silent(view, listening, after_s=condition.silent_after_s):
        return Sight(broken=True, figure=f"silent for {age(silence)}")
    return Sight(broken=False, figure="online" if view.availability == "online" else "heard")


def _throttled(view: BoardView) -> Sight:
    if view.metrics is None or view.metrics.throttled is None:
        return _not_yet("no window yet") if view.metrics is None else _unknown("it can't tell")
    slowed = view.metrics.throttled
    return Sight(broken=slowed, figure="slowed down by heat or low voltage" if slowed else "at full speed")


def _temperature(condition: rules.Temperature, view: BoardView) -> Sight:
    found = None if view.metrics is None else view.metrics.temperature_c
    if found is None or not math.isfinite(found):
        return _not_yet("no window yet") if view.metrics is None else _unknown("it has no thermometer")
    return Sight(broken=found > condition.above_c, figure=f"{found:.4g} °C (at most {condition.above_c:g})")


def _errors(condition: rules.Errors, view: BoardView, lately: Lately | None) -> Sight:
    if view.state is not None and view.state.worker == "failing":
        why = f": {printable(view.state.problem, 100)}" if view.state.problem else ""
        return Sight(broken=True, figure=f"its model does not run{why}")
    tried = 0 if lately is None else lately.totals.count + lately.totals.errors
    if lately is None or tried <= 0:
        return _not_yet("no inference")
    share = lately.totals.errors / tried
    figure = f"{lately.totals.errors} of {tried} inferences failed (at most {condition.above_share:.3g})"
    return Sight(broken=share > condition.above_share, figure=figure)


def _drops(condition: rules.Drops, lately: Lately | None) -> Sight:
    if lately is None:
        return _not_yet("no window yet")
    lost = {
        "results thrown away": lately.totals.dropped,
        "reports missing": lately.missing or 0,
        "reports its outbox had no room for": lately.outbox_dropped,
    }
    said = ", ".join(f"{count} {what}" for what, count in lost.items() if count > 0) or "nothing lost"
    broken = sum(lost.values()) > condition.above
    if lately.missing is None and not broken:
        return _unknown("we did not hear everything ourselves")
    return Sight(broken=broken, figure=f"{said} (at most {condition.above})")


def _latency(condition: rules.Latency, lately: Lately | None) -> Sight:
    summed = None if lately is None else lately.totals.stages.get(condition.stage)
    if summed is None:
        if lately is not None and lately.totals.count > 0:
            return _unknown("its agent sends no sketches; upgrade it (`board bootstrap`)")
        return _not_yet("no inference")
    needed = math.ceil(round(100 / (100 - condition.percentile), 6)) if condition.percentile < 100 else 1  # noqa: PLR2004
    if summed.count < needed:
        return _not_yet(f"{summed.count} runs of {needed}")
    found = summed.percentile(condition.percentile) or 0.0
    bound = condition.above_ms * _NS_PER_MS
    figure = f"p{condition.percentile:g} {duration(found)} (at most {duration(bound)}, {summed.count} runs)"
    return Sight(broken=found > bound, figure=figure)


def _drift(condition: rules.Drift, view: BoardView, lately: Lately | None) -> Sight:
    card = view.model
    if card is None:
        return _not_yet("what serves is not known")
    if card.reference is None:
        return _unknown(f"{printable(card.name)}-{printable(card.version)} has no reference")
    if lately is None or lately.bundle != card.digest:
        return _not_yet("no window yet")
    before, after = _counts(condition, card.reference, lately)
    if not sum(before.values()):
        return _unknown(f"its reference has no {condition.of}")
    if not sum(after.values()):
        return _not_yet("no answers")
    found = drift.psi(before, after)
    allowed = max(condition.above_psi, found.chance)
    chance = f": what chance makes of {sum(after.values())} answers" if allowed > condition.above_psi else ""
    return Sight(broken=found.value > allowed, figure=f"PSI {found.value:.2f} (at most {allowed:.2f}{chance})")


def _counts(
    condition: rules.Drift, reference: Reference, lately: Lately
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    if condition.of == "labels":
        # What a board says is not believed to be counts.
        return reference.labels, {label: max(0, count) for label, (count, _) in lately.totals.labels.items()}
    before, after = reference.scores, lately.totals.scores
    return {str(tenth): n for tenth, n in enumerate(before)}, {str(tenth): max(0, n) for tenth, n in enumerate(after)}
