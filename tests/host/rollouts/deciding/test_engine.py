"""What follows, whole chains of it: waves, waits, verdicts, halts, undoing, and boards that come late."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from tests.host.rollouts.deciding import stories
from tests.host.rollouts.deciding.stories import (
    BEFORE,
    NEW,
    OLD,
    POLICY,
    T0,
    begin,
    claimed,
    converging,
    deployed,
    heard,
    kinds,
    missed,
    of_kind,
    plan,
    report,
    settle,
    soaked,
    tell,
    undo,
    verdict,
)
from tflotilla.host.rollouts.deciding import engine
from tflotilla.host.rollouts.events import (
    Approved,
    Born,
    Claimed,
    Deployed,
    Event,
    Failed,
    Finished,
    Halted,
    Judged,
    Missed,
    Paused,
    Resumed,
    SoakBegan,
    Superseded,
    UndoClaimed,
    UndoFailed,
    UndoMissed,
    Undone,
    WaveBegan,
)
from tflotilla.host.rollouts.jobs import Job, JobResult
from tflotilla.host.rollouts.plan import PlannedBoard, Wave
from tflotilla.host.rollouts.rollout import BoardPhase, Rollout, Status


def test_a_rollout_that_goes_well() -> None:
    evidence = heard(*"abc")
    rollout, first = settle(begin(1, 2), evidence, now=T0)
    rollout, soak = settle(tell(rollout, deployed("a")), evidence, now=T0)
    rollout, nothing = settle(rollout, evidence, now=T0 + 59)
    rollout, second = settle(rollout, evidence, now=T0 + 60)
    rollout = tell(rollout, deployed("b"), deployed("c"), at=T0 + 70)
    rollout, last = settle(rollout, evidence, now=T0 + 70)
    rollout, end = settle(rollout, evidence, now=T0 + 130)

    assert ["WaveBegan", "Claimed a"] == kinds(first)
    assert [SoakBegan(wave=0, until=T0 + 60)] == soak
    assert [] == nothing
    assert ["Judged", "WaveBegan", "Claimed b", "Claimed c"] == kinds(second)
    assert [SoakBegan(wave=1, until=T0 + 130)] == last
    assert ["Judged", "Finished"] == kinds(end)
    assert Status.SUCCEEDED is rollout.status
    assert engine.at_rest(rollout)
    assert "wave 2 of 2: 2 of 2 boards keep every gate" in of_kind(Judged, end)[0].reason


def test_what_is_killed_anywhere_goes_on_from_its_events() -> None:
    evidence = heard(*"abc")
    told: list[tuple[Event, float]] = []
    rollout = begin(1, 2)
    for now, ended in ((T0, ()), (T0, (deployed("a"),)), (T0 + 60, ()), (T0 + 61, (deployed("b"), deployed("c")))):
        told += [(event, now) for event in ended]
        rollout = tell(rollout, *ended, at=now)
        rollout, events = settle(rollout, evidence, now=now)
        told += [(event, now) for event in events]

    assert rollout == engine.fold_all(engine.begin(rollout.plan), told)


# Waves


def test_a_wave_waits_for_a_persons_approval() -> None:
    waves = (Wave(size="1", boards=("a",)), Wave(size="100%", boards=("b",), approval=True))
    rollout = engine.begin(plan(1, 1, policy=POLICY, waves=waves))
    rollout = tell(rollout, WaveBegan(wave=0), claimed("a"), deployed("a"), SoakBegan(wave=0, until=T0))
    rollout = tell(rollout, verdict(0, "a"))

    assert (rollout, []) == settle(rollout, BEFORE, now=T0 + 999)
    _rollout, told = settle(tell(rollout, Approved(wave=1)), BEFORE, now=T0 + 999)
    assert ["WaveBegan", "Claimed b"] == kinds(told)


def test_never_more_at_once_than_the_executor_takes() -> None:
    rollout, first = settle(begin(5), BEFORE, now=T0, free=2)
    _rollout, second = settle(tell(rollout, deployed("a")), BEFORE, now=T0, free=1)

    assert ["WaveBegan", "Claimed a", "Claimed b"] == kinds(first)
    assert ["Claimed c"] == kinds(second)
    assert () == engine.next_actions(rollout, BEFORE, now=T0, free=0)
    assert () == engine.next_actions(rollout, BEFORE, now=T0, free=-3)


def test_boards_that_are_off_hold_no_wave_up() -> None:
    rollout, _told = settle(begin(3, 1), BEFORE, now=T0)
    rollout = tell(rollout, deployed("a"), deployed("b"), missed("c", T0 + 2))

    rollout, told = settle(rollout, BEFORE, now=T0)
    assert [SoakBegan(wave=0, until=T0 + 60)] == told
    # While it is tried again the others soak and are judged.
    rollout, told = settle(rollout, heard(*"ab"), now=T0 + 60)
    assert ["Judged", "WaveBegan", "Claimed d", "Claimed c"] == kinds(told)
    assert ("a", "b") == of_kind(Judged, told)[0].boards


def test_a_wave_that_reached_nobody_waits() -> None:
    rollout, _told = settle(begin(2, 5), BEFORE, now=T0)
    rollout = tell(rollout, missed("a", T0 + 2), missed("b", T0 + 600))

    for now in (T0 + 1, T0 + 599):
        rollout, told = settle(rollout, {}, now=now)
        assert {"Claimed a"} >= set(kinds(told))
        rollout = tell(rollout, missed("a", now + 900)) if told else rollout
    rollout, told = settle(tell(rollout, Born(board="b"), at=T0 + 599), BEFORE, now=T0 + 599)
    assert ["Claimed b"] == kinds(told)
    rollout, told = settle(tell(rollout, deployed("b"), at=T0 + 600), BEFORE, now=T0 + 600)
    assert [SoakBegan(wave=0, until=T0 + 660)] == told


def test_boards_that_were_never_tried_go_before_those_that_were_missed() -> None:
    rollout, _told = settle(begin(4), BEFORE, now=T0, free=2)
    rollout = tell(rollout, missed("a", T0 + 2), missed("b", T0 + 1))

    _rollout, told = settle(rollout, BEFORE, now=T0 + 5)

    assert ["Claimed c", "Claimed d", "Claimed b", "Claimed a"] == kinds(told)


def test_an_empty_plan_is_done() -> None:
    rollout, told = settle(engine.begin(plan()), BEFORE, now=T0)

    assert ([Finished()], Status.SUCCEEDED) == (told, rollout.status)


def test_while_it_is_paused_nothing_begins_and_what_is_under_way_ends() -> None:
    rollout, _told = settle(begin(2, 5), BEFORE, now=T0, free=1)
    rollout = tell(rollout, Paused(), deployed("a"))

    assert (rollout, []) == settle(rollout, heard("a"), now=T0 + 999)
    assert BoardPhase.SERVING is rollout.boards["a"].phase
    _rollout, told = settle(tell(rollout, Resumed(), at=T0 + 999), heard("a"), now=T0 + 999)
    assert ["Claimed b"] == kinds(told)


def test_a_host_that_died_judges_nobody_by_telemetry_that_it_did_not_hear() -> None:
    rollout = tell(soaked(1, 3), Resumed(), at=T0 + 500)

    assert (rollout, []) == settle(rollout, BEFORE, now=T0 + 500)
    _rollout, told = settle(rollout, heard("a"), now=T0 + 560)
    assert ["Judged", "WaveBegan"] == kinds(told)[:2]


# The bundle before


def test_the_bundle_before_is_watched_before_the_first_push() -> None:
    rollout = begin(1, baseline_s=10)
    evidence = {"a": {OLD: report(since=T0 + 3, until=T0 + 12)}}

    rollout, told = settle(rollout, {}, now=T0)
    assert ["WaveBegan"] == kinds(told)
    assert (rollout, []) == settle(rollout, evidence, now=T0 + 12)
    _rollout, told = settle(rollout, evidence, now=T0 + 13)
    assert ["Claimed a"] == kinds(told)
    assert of_kind(Claimed, told)[0].baseline is not None


def test_a_board_that_says_nothing_of_the_bundle_before_is_not_waited_for_for_ever() -> None:
    rollout, _told = settle(begin(1, baseline_s=10), {}, now=T0)

    assert [] == settle(rollout, {}, now=T0 + 9.9)[1]
    assert [None] == [claim.baseline for claim in of_kind(Claimed, settle(rollout, {}, now=T0 + 10)[1])]


def test_a_slow_source_is_watched_for_longer_so_that_its_latency_can_be_compared() -> None:
    rollout, _told = settle(begin(1, baseline_s=10), {}, now=T0)
    few = {"a": {OLD: report(since=T0, until=T0 + 10, results=9)}}
    enough = {"a": {OLD: report(since=T0, until=T0 + 12, results=11)}}

    assert [] == settle(rollout, few, now=T0 + 12)[1]
    assert ["Claimed a"] == kinds(settle(rollout, enough, now=T0 + 12)[1])
    assert ["Claimed a"] == kinds(settle(rollout, few, now=T0 + 30)[1])


def test_where_nothing_served_nothing_is_waited_for() -> None:
    bare = (PlannedBoard(board="a", disposition="ready"),)
    rollout = engine.begin(plan(1, policy=replace(POLICY, baseline_s=10), boards=bare))

    assert ["WaveBegan", "Claimed a"] == kinds(settle(rollout, {}, now=T0)[1])


def test_a_board_that_was_off_is_watched_once_it_is_back() -> None:
    away = (PlannedBoard(board="a", disposition="offline"),)
    rollout = engine.begin(plan(1, policy=replace(POLICY, baseline_s=10), boards=away))
    rollout = tell(rollout, WaveBegan(wave=0), replace(claimed("a"), baseline=None), missed("a", T0 + 900))
    rollout = tell(rollout, Born(board="a"), at=T0 + 100)

    assert [] == settle(rollout, {}, now=T0 + 109)[1]
    back = {"a": {OLD: report(since=T0 + 102, until=T0 + 112)}}
    assert [] == settle(rollout, back, now=T0 + 111)[1]
    assert ["Claimed a"] == kinds(settle(rollout, back, now=T0 + 112)[1])


# Undoing


def test_undoing_goes_before_pushing() -> None:
    rollout = soaked(20, 4)
    rollout, told = settle(rollout, heard(*rollout.boards) | heard("c", crashes=1), now=T0 + 60, free=2)

    assert ["UndoClaimed c", "WaveBegan", "Claimed u"] == kinds(told)[1:]


def test_an_undo_is_tried_until_the_board_is_back() -> None:
    rollout = tell(soaked(1), verdict(0, "a", bad=("a",)), Halted(reason="", undo=True))
    rollout, _told = settle(rollout, BEFORE, now=T0 + 60)
    rollout = tell(rollout, UndoMissed(board="a", error="UnreachableError", detail="no answer", again_at=T0 + 99))

    assert (rollout, []) == settle(rollout, BEFORE, now=T0 + 98)
    _rollout, told = settle(tell(rollout, Born(board="a"), at=T0 + 98), BEFORE, now=T0 + 98)
    assert [replace(undo("a"), attempt=2).attempt] == [claim.attempt for claim in of_kind(UndoClaimed, told)]
    assert not engine.at_rest(rollout)


# Ends of jobs


def result(rollout: Rollout, kind: Any = "push", **fields: Any) -> JobResult:  # noqa: ANN401 - of JobResult
    job = Job(
        kind=kind,
        rollout=rollout.plan.rollout,
        board="a",
        deployment="d",
        bundle=NEW,
        bundle_file="x",
        fleet_file="/fleet.toml",
    )
    return JobResult(job=job, **fields)


def end(rollout: Rollout, kind: str = "push", **fields: Any) -> Event:  # noqa: ANN401 - of JobResult
    return engine.heard(rollout, result(rollout, kind, **fields), now=T0, random=random.Random(1))  # noqa: S311


def test_the_end_of_a_push_is_what_its_error_says() -> None:
    rollout = begin(1)
    ends = {
        error: end(rollout, error=error, detail="why\n  so")
        for error in ("UnreachableError", "BusyError", "IncompatibleError", "IdentityError", "ProbeError", "Unheard")
    }

    assert {"UnreachableError": Missed, "BusyError": Missed} == {
        name: type(event) for name, event in ends.items() if isinstance(event, Missed)
    }
    assert Failed(board="a", error="ProbeError", detail="why so") == ends["ProbeError"]
    assert 4 == sum(isinstance(event, Failed) for event in ends.values())
    assert isinstance(end(rollout, changed=True, before=OLD), Deployed)


@pytest.mark.parametrize("error", ["InputError", "ConfigError", "ConflictError", "VerificationError"])
def test_what_this_machine_lacks_is_no_failure_of_a_board(error: str) -> None:
    """A bundle that is not here must not bring back the boards that have it."""
    rollout = begin(1)

    ends = [end(rollout, kind, error=error, detail="there is no such bundle", begun=False) for kind in ("push", "undo")]

    assert [Missed, UndoMissed] == [type(event) for event in ends]
    assert [Failed, UndoFailed] == [type(end(rollout, kind, error=error)) for kind in ("push", "undo")]


def test_a_board_that_lacks_something_is_believed_the_second_time() -> None:
    """Its agent may just be starting."""
    rollout = tell(begin(1), WaveBegan(wave=0), claimed("a"))

    first = end(rollout, error="BoardError", detail="its agent does not run")

    assert isinstance(first, Missed)
    assert first.again_at == T0 + 15
    assert isinstance(end(tell(rollout, first), error="BoardError", detail="disk full"), Failed)


def test_waits_double_with_jitter_up_to_a_quarter_of_an_hour() -> None:
    rollout = tell(begin(1), WaveBegan(wave=0))
    dice = random.Random(7)  # noqa: S311 - jitter
    waits = []
    for attempt in range(40):
        rollout = tell(rollout, claimed("a", attempt + 1))
        event = engine.heard(rollout, result(rollout, error="UnreachableError"), now=T0, random=dice)
        assert isinstance(event, Missed)
        waits.append(event.again_at - T0)
        rollout = tell(rollout, event)

    for number, wait in enumerate(waits):
        most = min(2.0 * 2**number, 900.0)
        assert most / 2 <= wait <= most
    assert len(set(waits[-20:])) == 20
    assert 40 == rollout.boards["a"].attempts
    back = tell(rollout, Born(board="a"), claimed("a", 41))
    again = engine.heard(back, result(back, error="UnreachableError"), now=T0, random=dice)
    assert isinstance(again, Missed)
    assert again.again_at <= T0 + 2


def test_the_end_of_an_undo_is_what_its_error_says() -> None:
    rollout = tell(stories.in_status(Status.ROLLING_BACK), undo("a"))
    tried = tell(rollout, replace(undo("a"), attempt=1))

    assert Undone(board="a", detail="back") == end(rollout, "undo", detail="back")
    assert isinstance(end(rollout, "undo", error="UnreachableError"), UndoMissed)
    assert isinstance(end(rollout, "undo", error="BusyError"), UndoMissed)
    assert isinstance(end(tried, "undo", error="BoardError"), UndoMissed)
    assert isinstance(end(rollout, "undo", error="ConflictError"), UndoFailed)
    often = replace(rollout, boards={**rollout.boards, "a": replace(rollout.boards["a"], undo_attempts=5)})
    assert isinstance(end(often, "undo", error="BoardError"), UndoFailed)


def test_a_claim_that_a_person_voided_in_between_is_not_to_be_done() -> None:
    rollout = tell(begin(2), WaveBegan(wave=0))
    claim = claimed("a")

    assert engine.under_way(tell(rollout, claim), claim)
    assert not engine.under_way(tell(rollout, Superseded(boards=("a",), by_rollout="x"), claim), claim)


def test_the_engine_says_when_it_wants_to_be_asked() -> None:
    assert T0 + 60 == engine.wakes_at(soaked(1), now=T0)
    assert T0 + 900 == engine.wakes_at(converging(), now=T0 + 60)
    assert engine.wakes_at(stories.in_status(Status.SUCCEEDED), now=T0) is None
