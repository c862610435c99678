"""Alarms over time: pending → firing → resolved. Pure.

    | before  | rule is broken                      | kept                                      | not to be told |
    | ------- | ----------------------------------- | ----------------------------------------- | -------------- |
    | nothing | pending; firing where `for` is 0    | -                                         | -              |
    | pending | firing after `for` without a break  | nothing                                   | nothing        |
    | firing  | firing                              | resolved after `keep_firing_for` of it    | firing         |

What can't be told ends what hasn't fired and never ends what has: a board that goes off while it is slow stays slow as
far as anybody knows. Rules and boards that are not watched any more resolve.
What it does NOT do: judge (`judging`), or look at a clock.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tflotilla.host.telemetry.alarms.judging import Sight
from tflotilla.host.telemetry.alarms.rules import Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Mapping


#: Board and rule.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A broken rule at a board. Times are Unix seconds."""

    board: str
    rule: str
    kind: str
    severity: Severity
    phase: Literal["pending", "firing"]
    #: Since when it is broken.
    since: float
    figure: str
    #: Since when it is kept again, for `keep_firing_for`.
    kept_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a person should be told."""

    state: Literal["firing", "resolved"]
    alarm: Alarm
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A sight and the rule whose it is."""

    rule: Rule
    sight: Sight


def step(
    before: Mapping[Key, Alarm], seen: Mapping[Key, Seen], now: float
) -> tuple[dict[Key, Alarm], tuple[Change, ...]]:
    """Return the alarms after a look at every board, and what changed."""
    after: dict[Key, Alarm] = {}
    changes: list[Change] = []
    # A rule that was rewritten to another kind under the same name is another rule.
    same = {key: alarm for key, alarm in before.items() if key in seen and seen[key].rule.kind == alarm.kind}
    for key, alarm in before.items():
        if key not in same and alarm.phase == "firing":
            gone = dataclasses.replace(alarm, figure="not watched any more")
            changes.append(Change(state="resolved", alarm=gone, at=now))
    for key, each in seen.items():
        old = same.get(key)
        new = _next(key, old, each, now)
        if new is not None:
            after[key] = new
            if new.phase == "firing" and (old is None or old.phase == "pending"):
                changes.append(Change(state="firing", alarm=new, at=now))
        elif old is not None and old.phase == "firing":
            resolved = dataclasses.replace(old, figure=each.sight.figure)
            changes.append(Change(state="resolved", alarm=resolved, at=now))
    return after, tuple(changes)


def deaf(before: Mapping[Key, Alarm]) -> dict[Key, Alarm]:
    """Return the alarms where nobody listens: what fires goes on, and no time runs."""
    return {
        key: dataclasses.replace(alarm, kept_since=None) for key, alarm in before.items() if alarm.phase == "firing"
    }


def _next(key: Key, old: Alarm | None, seen: Seen, now: float) -> Alarm | None:
    rule, sight = seen.rule, seen.sight
    if sight.broken:
        since = now if old is None else old.since
        fires = (old is not None and old.phase == "firing") or now - since >= rule.for_s
        return Alarm(
            board=key[0],
            rule=rule.name,
            kind=rule.kind,
            severity=rule.severity,
            phase="firing" if fires else "pending",
            since=since,
            figure=sight.figure,
        )
    if old is None or old.phase == "pending":
        return None
    if sight.broken is None:
        return dataclasses.replace(old, kept_since=None)
    kept_since = now if old.kept_since is None else old.kept_since
    if now - kept_since >= rule.keep_firing_for_s:
        return None
    return dataclasses.replace(old, kept_since=kept_since)
