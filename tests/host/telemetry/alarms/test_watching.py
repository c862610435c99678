"""A fleet under rules, from the bytes that arrive to the bytes that are published."""

from __future__ import annotations

import json

import pytest

from tests.host.telemetry import fake_board
from tests.host.telemetry.alarms.made import BUNDLE, FLEET, Speaker, card, window
from tflotilla.host.telemetry.alarms import rules
from tflotilla.host.telemetry.alarms.rules import Condition, Rule
from tflotilla.host.telemetry.alarms.watching import Outcome, Watched, Watching
from tflotilla.host.telemetry.inbox import Received
from tflotilla.shared.contract import topics
from tflotilla.shared.contract.manifest import Reference

TOPIC = topics.host_topic(FLEET, "pi-1", "alarm")


def watched(*conditions: Condition, boards: tuple[str, ...] = ("pi-1",), for_s: float = 0.0) -> Watched:
    made = [
        Rule(name=f"rule-{number}", condition=condition, for_s=for_s) for number, condition in enumerate(conditions)
    ]
    return Watched(rules=tuple(made), boards={rule.name: boards for rule in made})


class Played:
    """A watch whose clock is the story's."""

    def __init__(self, *conditions: Condition, for_s: float = 0.0, boards: tuple[str, ...] = ("pi-1",)) -> None:
        self.watching = Watching(FLEET, watched(*conditions, for_s=for_s, boards=boards))
        self.connections = 1

    def at(self, now: float, *received: Received, connected: bool = True) -> Outcome:
        self.watching.hear(received)
        return self.watching.look(now, connected=connected, connections=self.connections)

    def sight(self, now: float) -> tuple[bool | None, str]:
        (seen,) = self.watching.seen(now).values()
        return seen.sight.broken, seen.sight.figure


def said(outcome: Outcome) -> list[str]:
    return [f"{each.alarm.board} {each.alarm.rule} {each.state}: {each.alarm.figure}" for each in outcome.changes]


def test_a_board_that_goes_off_fires_is_published_and_is_emptied_when_it_is_back() -> None:
    pi, played = Speaker(), Played(rules.Offline())
    played.at(0.0, pi.is_online(0.0))
    played.at(2.0)

    fired = played.at(3.0, pi.is_offline(3.0))
    resolved = played.at(9.0, pi.is_online(9.0))

    assert ["pi-1 rule-0 firing: offline"] == said(fired)
    expected = {
        "schema": 1,
        "fleet": FLEET,
        "board": "pi-1",
        "time": 3.0,
        "alarms": [{"rule": "rule-0", "kind": "offline", "severity": "warning", "since": 3.0, "figure": "offline"}],
    }
    assert expected == json.loads(fired.publications[TOPIC])
    assert ["pi-1 rule-0 resolved: online"] == said(resolved)
    assert {TOPIC: b""} == resolved.publications


def test_a_board_that_stops_speaking_fires_after_its_own_patience() -> None:
    pi, played = Speaker(), Played(rules.Offline())
    played.at(0.0, pi.is_online(0.0), pi.says("metrics", window(window_s=10.0), at=0.0))
    played.at(2.0)

    assert [] == said(played.at(29.0))
    assert ["pi-1 rule-0 firing: silent for 31 s"] == said(played.at(31.0))


def test_a_board_that_never_spoke_fires_only_where_a_rule_says_so() -> None:
    quiet, loud = Played(rules.Offline()), Played(rules.Offline(never_heard=True, silent_after_s=20.0))
    for played in (quiet, loud):
        played.at(0.0)
        assert [] == said(played.at(15.0))

    assert [] == said(quiet.at(1000.0))
    assert (None, "never heard of") == quiet.sight(1000.0)
    assert ["pi-1 rule-0 firing: never heard of"] == said(loud.at(21.0))


def test_nothing_fires_nor_resolves_while_the_broker_is_away() -> None:
    pi, played = Speaker(), Played(rules.Offline(silent_after_s=10.0))
    played.at(0.0, pi.is_online(0.0))
    played.at(2.0)

    assert [] == said(played.at(100.0, connected=False))
    played.connections = 2
    back = played.at(101.0)
    assert [] == said(back)
    # It is silent since we listen again, not since it spoke last.
    assert [] == said(played.at(110.0))
    assert ["pi-1 rule-0 firing: silent for 11 s"] == said(played.at(112.0))


def test_all_is_published_again_when_the_broker_is_back() -> None:
    pi, played = Speaker(), Played(rules.Offline())
    played.at(0.0, pi.is_offline(0.0))
    fired = played.at(2.0)

    played.connections = 2
    again = played.at(50.0)

    assert list(fired.publications) == list(again.publications) == [TOPIC]
    assert json.loads(fired.publications[TOPIC])["alarms"] == json.loads(again.publications[TOPIC])["alarms"]


def test_a_watcher_takes_over_what_the_one_before_published() -> None:
    pi, before = Speaker(), Played(rules.Offline())
    before.at(0.0, pi.is_offline(0.0))
    retained = Received(topic=TOPIC, payload=before.at(2.0).publications[TOPIC], at=50.0, retained=True)

    still = Played(rules.Offline())
    still.at(50.0, retained, pi.is_offline(50.0))
    meanwhile = Played(rules.Offline())
    meanwhile.at(50.0, retained, pi.is_online(50.0))
    elsewhere = Played(rules.Offline(), boards=("pi-2",))
    elsewhere.at(50.0, retained)

    assert [] == said(still.at(52.0))
    still.connections = 2
    assert [TOPIC] == list(still.at(53.0).publications)
    assert [2.0] == [alarm.since for alarm in still.watching.firing]
    assert ["pi-1 rule-0 resolved: online"] == said(meanwhile.at(52.0))
    gone = elsewhere.at(52.0)
    assert ["pi-1 rule-0 resolved: not watched any more"] == said(gone)
    assert {TOPIC: b""} == gone.publications


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"\xff", b'{"schema":1}', b'{"alarms":[{"rule":1}]}', b"[" * 10_000, b"x" * 100_000]
)
def test_garbage_on_the_topic_of_alarms_changes_nothing(payload: bytes) -> None:
    played = Played(rules.Offline())

    played.at(0.0, Received(topic=TOPIC, payload=payload, at=0.0, retained=True))

    assert () == played.watching.firing


def test_percentiles_are_those_of_all_runs_and_not_of_windows() -> None:
    """199 fast windows and one slow one: the p99 of all is fast, whatever the slow window's own p99 is."""
    pi, played = Speaker(), Played(rules.Latency(above_ms=50, over_s=600))
    windows = [pi.says("metrics", window(*(5.0,) * 10), at=float(n)) for n in range(199)]
    played.at(199.0, pi.is_online(0.0), *windows, pi.says("metrics", window(*(90.0,) * 10), at=199.0))
    fast = played.sight(200.0)

    played.at(201.0, *[pi.says("metrics", window(*(90.0,) * 10), at=200.0 + n / 10) for n in range(10)])
    slow = played.sight(202.0)

    assert (False, "p99 5.00 ms (at most 50.0 ms, 2000 runs)") == fast
    assert slow[0] is True
    assert slow[1].startswith(("p99 89", "p99 90"))


@pytest.mark.parametrize("times", [(1.7e308, -1.7e308), (-1.7e308, 1.7e308), (0.0, 1e15)])
def test_a_clock_that_jumps_beyond_all_times_stops_nobody(times: tuple[float, float]) -> None:
    pi, played = Speaker(), Played(rules.Latency(above_ms=50))
    for second, time in enumerate((*times, *times)):
        played.at(float(second), pi.says("metrics", window(90.0), at=float(second), done_at=time))

    played.at(10.0, pi.is_online(10.0), *[pi.says("metrics", window(*(90.0,) * 100), at=10.0)])

    assert played.sight(10.5)[0] in (True, None)


@pytest.mark.parametrize(("percentile", "needed"), [(50, 2), (90, 10), (99, 100), (99.9, 1000)])
def test_a_percentile_needs_runs(percentile: float, needed: int) -> None:
    pi, played = Speaker(), Played(rules.Latency(above_ms=50, percentile=percentile))
    played.at(0.0, pi.is_online(0.0), pi.says("metrics", window(*(90.0,) * (needed - 1)), at=0.0))
    few = played.sight(1.0)
    played.at(1.5, pi.says("metrics", window(90.0), at=1.5))

    assert (None, f"{needed - 1} runs of {needed}") == few
    assert played.sight(2.0)[0] is True


def test_an_agent_without_sketches_is_told_from_one_without_inferences() -> None:
    pi, played = Speaker(), Played(rules.Latency(above_ms=50))
    played.at(0.0, pi.is_online(0.0), pi.says("metrics", fake_board.metrics(), at=0.0))

    assert (None, "its agent sends no sketches; upgrade it (`board bootstrap`)") == played.sight(1.0)


@pytest.mark.parametrize("ahead_s", [0.0, -1.7e9, 3600.0])
def test_what_an_outbox_brings_later_is_not_of_now_whatever_the_clock(ahead_s: float) -> None:
    pi = Speaker(ahead_s=ahead_s)
    played = Played(rules.Latency(above_ms=50, over_s=60.0))
    fresh = [pi.says("metrics", window(), at=10_000.0 + n) for n in range(10)]
    played.at(10_010.0, pi.is_online(10_000.0), *fresh)

    late = [pi.says("metrics", window(*(900.0,) * 200), at=10_011.0, done_at=9_000.0 + n) for n in range(30)]
    played.at(10_011.0, *late)

    assert (False, "p99 5.00 ms (at most 50.0 ms, 2000 runs)") == played.sight(10_012.0)


def test_another_bundle_begins_anew() -> None:
    pi, played = Speaker(), Played(rules.Latency(above_ms=50))
    played.at(0.0, pi.is_online(0.0), pi.says("metrics", window(*(90.0,) * 200), at=0.0))
    slow = played.sight(1.0)[0]

    played.at(2.0, pi.says("metrics", window(), at=2.0, bundle="cd" * 32))

    assert slow is True
    assert (False, "p99 5.00 ms (at most 50.0 ms, 200 runs)") == played.sight(3.0)


def test_a_mix_of_labels_that_is_another_than_the_references_fires() -> None:
    reference = Reference(samples=1000, labels={"seven": 500, "one": 500}, scores=(0,) * 9 + (1000,))
    pi, played = Speaker(), Played(rules.Drift(of="labels"), for_s=0.0)
    same = window(labels={"seven": 104, "one": 96})
    other = window(labels={"seven": 195, "one": 5})
    played.at(0.0, pi.is_online(0.0), pi.says("model", card(reference), at=0.0), pi.says("metrics", same, at=0.0))
    kept = played.sight(1.0)[0]

    played.at(2.0, *[pi.says("metrics", other, at=2.0 + n / 10) for n in range(9)])

    broken, figure = played.sight(3.0)
    assert kept is False
    assert broken is True
    assert figure.startswith("PSI ")


def test_few_answers_are_no_drift_yet() -> None:
    reference = Reference(samples=1000, labels={"seven": 500, "one": 500}, scores=(0,) * 9 + (1000,))
    pi, played = Speaker(), Played(rules.Drift(of="labels"))
    few = window(labels={"seven": 4, "one": 0})
    played.at(0.0, pi.is_online(0.0), pi.says("model", card(reference), at=0.0), pi.says("metrics", few, at=0.0))

    assert played.sight(1.0)[0] is False


def test_a_bundle_without_a_reference_says_so() -> None:
    pi, played = Speaker(), Played(rules.Drift(of="confidence"))
    played.at(0.0, pi.is_online(0.0), pi.says("model", card(None), at=0.0), pi.says("metrics", window(), at=0.0))

    assert (None, "digits-1.0.0 has no reference") == played.sight(1.0)


@pytest.mark.parametrize(
    ("throttled", "expected"),
    [
        (True, (True, "slowed down by heat or low voltage")),
        (False, (False, "at full speed")),
        (None, (None, "it can't tell")),
    ],
)
def test_a_throttled_board_is_told_from_one_that_cannot_tell(
    throttled: bool | None,  # noqa: FBT001 - what the contract has
    expected: tuple[bool | None, str],
) -> None:
    pi, played = Speaker(), Played(rules.Throttled())
    played.at(0.0, pi.is_online(0.0), pi.says("metrics", window(throttled=throttled), at=0.0))

    assert expected == played.sight(1.0)


def test_temperature_is_held_against_its_bound() -> None:
    pi, played = Speaker(), Played(rules.Temperature(above_c=80.0))
    played.at(0.0, pi.is_online(0.0), pi.says("metrics", window(temperature_c=81.5), at=0.0))

    assert (True, "81.5 °C (at most 80)") == played.sight(1.0)
    played.at(2.0, pi.says("metrics", window(temperature_c=1e308), at=2.0))
    assert (True, "1e+308 °C (at most 80)") == played.sight(3.0)


def test_what_was_lost_is_counted_from_when_we_listen() -> None:
    pi, played = Speaker(), Played(rules.Drops())
    state = fake_board.state(outbox_dropped=500)
    played.at(0.0, pi.is_online(0.0), pi.says("state", state, at=0.0), pi.says("metrics", window(), at=0.0))
    nothing = played.sight(1.0)

    pi.seq += 3
    lossy = window(dropped=2)
    later = fake_board.state(outbox_dropped=504)
    played.at(2.0, pi.says("metrics", lossy, at=2.0), pi.says("state", later, at=2.0))

    assert (False, "nothing lost (at most 0)") == nothing
    expected = "2 results thrown away, 3 reports missing, 4 reports its outbox had no room for (at most 0)"
    assert (True, expected) == played.sight(3.0)
    # Losses are forgotten with their time.
    played.at(100.0, pi.says("metrics", window(), at=100.0))
    assert (False, "nothing lost (at most 0)") == played.sight(100.5)


@pytest.mark.parametrize("reason", ["away", "too fast"])
def test_what_we_did_not_hear_ourselves_is_not_missing(reason: str) -> None:
    pi, played = Speaker(), Played(rules.Drops(over_s=60.0))
    played.at(0.0, pi.is_online(0.0), pi.says("metrics", window(), at=0.0))
    played.at(2.0)
    pi.seq += 3
    if reason == "away":
        played.connections = 2
    else:
        played.watching.hear((), dropped=3)
    played.watching.look(3.0, connected=True, connections=played.connections)

    played.watching.hear([pi.says("metrics", window(), at=4.0)], dropped=3)
    early = played.sight(5.0)
    for second in range(5, 200, 5):
        played.watching.hear([pi.says("metrics", window(), at=float(second))], dropped=3)
    known = played.sight(200.0)
    pi.seq += 2
    played.watching.hear([pi.says("metrics", window(), at=201.0)], dropped=3)

    assert (None, "we did not hear everything ourselves") == early
    assert (False, "nothing lost (at most 0)") == known
    assert (True, "2 reports missing (at most 0)") == played.sight(201.5)


def test_errors_and_a_model_that_does_not_run_are_one_rule() -> None:
    pi, played = Speaker(), Played(rules.Errors())
    played.at(0.0, pi.is_online(0.0), pi.says("metrics", window(errors=10), at=0.0))
    failing = played.sight(1.0)

    dead = fake_board.state(worker="failing", problem="no\nsuch op")
    played.at(2.0, pi.says("state", dead, at=2.0))

    assert (True, "10 of 210 inferences failed (at most 0.01)") == failing
    assert (True, "its model does not run: no?such op") == played.sight(3.0)


@pytest.mark.parametrize(
    "condition",
    [rules.Latency(above_ms=1), rules.Throttled(), rules.Temperature(above_c=1), rules.Drops(), rules.Errors()],
)
def test_a_board_that_is_off_says_nothing_about_the_rest(condition: Condition) -> None:
    pi, played = Speaker(), Played(condition)
    played.at(0.0, pi.says("metrics", window(throttled=True), at=0.0), pi.is_offline(0.0))

    assert (None, "it is off") == played.sight(1.0)


def test_a_look_does_not_wait_for_what_rules_wait_for() -> None:
    pi = Speaker()
    watching = Watching(FLEET, watched(rules.Offline(), rules.Throttled(), for_s=3600.0))
    watching.glance(0.0)
    watching.hear([pi.is_offline(0.5)])

    early, done = watching.glance(1.0), watching.glance(2.5)

    assert (False, True) == (early.complete, done.complete)
    assert [("pi-1", "rule-0")] == sorted(done.firing)


def test_a_look_listens_until_everything_can_be_told() -> None:
    pi = Speaker()
    watching = Watching(FLEET, watched(rules.Throttled()))
    watching.glance(0.0)
    watching.hear([pi.is_online(0.0)])

    before = watching.glance(5.0).complete
    watching.hear([pi.says("metrics", window(throttled=False), at=5.0)])

    assert (False, True) == (before, watching.glance(6.0).complete)


def test_rules_may_change_while_it_runs() -> None:
    pi, played = Speaker(), Played(rules.Offline())
    played.at(0.0, pi.is_offline(0.0))
    played.at(2.0)

    played.watching.use(watched(rules.Throttled(), rules.Latency(above_ms=1)))

    changed = played.at(3.0)
    assert ["pi-1 rule-0 resolved: not watched any more"] == said(changed)


def test_predictions_are_listened_to_only_where_their_numbers_count() -> None:
    heard = [Watching(FLEET, watched(each)).subscriptions for each in (rules.Drops(), rules.Offline())]

    predictions = topics.topic(FLEET, "+", "predictions")
    assert [True, False] == [predictions in subscriptions for subscriptions in heard]
    assert all(topics.host_topic(FLEET, "+", "alarm") in subscriptions for subscriptions in heard)


def test_boards_that_no_rule_is_for_cost_nothing() -> None:
    stranger, played = Speaker(board="pi-9"), Played(rules.Latency(above_ms=1))

    played.at(0.0, stranger.is_online(0.0), stranger.says("metrics", window(), at=0.0, bundle=BUNDLE))

    assert [("pi-1", "rule-0")] == list(played.watching.seen(1.0))
