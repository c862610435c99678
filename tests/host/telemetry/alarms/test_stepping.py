"""pending → firing → resolved, for everything that a rule may see in each of them."""

from __future__ import annotations

import pytest

from tflotilla.host.telemetry.alarms import rules, stepping
from tflotilla.host.telemetry.alarms.judging import Sight
from tflotilla.host.telemetry.alarms.stepping import Alarm, Key, Seen

KEY: Key = ("pi-1", "off")
SIGHTS = {"broken": True, "kept": False, "untold": None}


def rule(for_s: float = 0.0, keep_firing_for_s: float = 0.0) -> rules.Rule:
    return rules.Rule(name="off", condition=rules.Offline(), for_s=for_s, keep_firing_for_s=keep_firing_for_s)


def told(story: str, *, for_s: float = 0.0, keep_firing_for_s: float = 0.0) -> list[str]:
    """Play a look per second; return what was told, with its second."""
    alarms: dict[Key, Alarm] = {}
    found = []
    for second, word in enumerate(story.split()):
        if word == "deaf":
            alarms = stepping.deaf(alarms)
            continue
        seen = Seen(rule=rule(for_s, keep_firing_for_s), sight=Sight(broken=SIGHTS[word], figure=word))
        alarms, changes = stepping.step(alarms, {} if word == "gone" else {KEY: seen}, float(second))
        found += [f"{change.state} at {change.at:g} since {change.alarm.since:g}" for change in changes]
    return found


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        ("kept untold kept", []),
        ("broken broken", ["firing at 0 since 0"]),
        ("broken kept broken", ["firing at 0 since 0", "resolved at 1 since 0", "firing at 2 since 2"]),
        ("broken untold untold kept", ["firing at 0 since 0", "resolved at 3 since 0"]),
        ("broken deaf deaf kept", ["firing at 0 since 0", "resolved at 3 since 0"]),
    ],
)
def test_a_rule_without_patience_fires_at_once(story: str, expected: list[str]) -> None:
    assert expected == told(story)


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        ("broken broken", []),
        ("broken broken broken", ["firing at 2 since 0"]),
        ("broken broken kept broken broken", []),
        ("broken broken untold broken broken", []),
        ("broken broken deaf broken broken", []),
        ("broken broken deaf broken broken broken", ["firing at 5 since 3"]),
    ],
)
def test_a_rule_with_patience_waits_without_a_break(story: str, expected: list[str]) -> None:
    assert expected == told(story, for_s=2.0)


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        ("broken kept kept", ["firing at 0 since 0"]),
        ("broken kept kept kept", ["firing at 0 since 0", "resolved at 3 since 0"]),
        ("broken kept kept broken kept kept", ["firing at 0 since 0"]),
        ("broken kept kept untold kept kept", ["firing at 0 since 0"]),
        ("broken kept kept deaf kept kept", ["firing at 0 since 0"]),
    ],
)
def test_what_flaps_is_told_once(story: str, expected: list[str]) -> None:
    assert expected == told(story, keep_firing_for_s=2.0)


def test_what_is_not_watched_any_more_resolves_and_says_so() -> None:
    seen = Seen(rule=rule(), sight=Sight(broken=True, figure="offline"))
    alarms, _ = stepping.step({}, {KEY: seen}, 0.0)

    after, changes = stepping.step(alarms, {}, 1.0)

    assert {} == after
    assert [("resolved", "not watched any more")] == [(each.state, each.alarm.figure) for each in changes]


def test_an_alarm_says_what_is_seen_last() -> None:
    alarms: dict[Key, Alarm] = {}
    for figure in ("silent for 20 s", "silent for 21 s"):
        seen = Seen(rule=rule(), sight=Sight(broken=True, figure=figure))
        alarms, _ = stepping.step(alarms, {KEY: seen}, 0.0)

    assert "silent for 21 s" == alarms[KEY].figure
