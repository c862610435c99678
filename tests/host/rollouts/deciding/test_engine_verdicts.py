"""When a wave passes and what stops everything: verdicts, halts, and boards that come late."""

from __future__ import annotations

from typing import Any

import pytest

from tests.host.rollouts.deciding.stories import (
    BEFORE,
    OLD,
    POLICY,
    T0,
    begin,
    claimed,
    converging,
    deployed,
    failed,
    heard,
    kinds,
    missed,
    of_kind,
    plan,
    settle,
    soaked,
    tell,
)
from tflotilla.host.rollouts.deciding import engine
from tflotilla.host.rollouts.events import (
    Born,
    Finished,
    Halted,
    Judged,
    SoakBegan,
    Superseded,
    Undone,
    WaveBegan,
)
from tflotilla.host.rollouts.plan import PlannedBoard
from tflotilla.host.rollouts.rollout import BoardPhase, Status

# Verdicts


@pytest.mark.parametrize(
    "fields",
    [
        {"crashes": 1},
        {"errors": 7000},
        {"labels": {"dog": 7000}},
        {"scores": (7000, 0, 0, 0, 0, 0, 0, 0, 0, 0)},
        {"rss_bytes": 200 << 20},
        {"broken": ("latency",)},
    ],
)
def test_a_canary_that_misbehaves_stops_everything_and_is_brought_back(fields: dict[str, Any]) -> None:
    rollout, told = settle(soaked(1, 9), heard("a", **fields), now=T0 + 60)

    assert ["Judged", "Halted", "UndoClaimed a"] == kinds(told)
    assert Status.ROLLING_BACK is rollout.status
    rollout, told = settle(tell(rollout, Undone(board="a")), BEFORE, now=T0 + 61)
    assert ([Finished()], Status.ROLLED_BACK) == (told, rollout.status)
    assert {"b", "i"} < {name for name, board in rollout.boards.items() if board.phase is BoardPhase.WAITING}


def test_no_telemetry_fails_closed() -> None:
    _rollout, told = settle(soaked(1, 9), {}, now=T0 + 60)

    assert ["Judged", "Halted", "UndoClaimed a"] == kinds(told)
    assert "errors: a no telemetry of it in 60 s" in of_kind(Halted, told)[0].reason


def test_who_wants_a_halt_only_still_gets_back_what_misbehaved() -> None:
    rollout = soaked(4, 1, on_failure="halt", success=0.8, error=0.2)
    rollout, told = settle(rollout, heard(*"abc") | heard("d", crashes=3), now=T0 + 60)

    assert ["Judged", "Halted", "UndoClaimed d"] == kinds(told)
    # It is not over while the undo is to be waited for.
    assert Status.ROLLING_BACK is rollout.status
    rollout, told = settle(tell(rollout, Undone(board="d")), BEFORE, now=T0 + 61)
    assert Status.HALTED is rollout.status
    assert ["serving"] * 3 == [rollout.boards[name].phase.value for name in "abc"]


def test_a_board_that_misbehaves_is_brought_back_although_its_wave_passes() -> None:
    rollout = soaked(20, 1)

    rollout, told = settle(rollout, heard(*rollout.boards) | heard("c", crashes=1), now=T0 + 60)

    assert ["Judged", "UndoClaimed c", "WaveBegan", "Claimed u"] == kinds(told)
    assert (True, ("c",)) == (of_kind(Judged, told)[0].ok, of_kind(Judged, told)[0].misbehaved)
    assert "crashes: 1 crashes (at most 0)" == rollout.boards["c"].detail


def test_boards_are_judged_by_themselves_as_soon_as_each_has_soaked() -> None:
    rollout, _told = settle(begin(4, 1, error=0.3), BEFORE, now=T0, free=2)
    rollout = tell(rollout, deployed("a"), deployed("b"))
    rollout, _told = settle(rollout, BEFORE, now=T0, free=2)

    rollout, told = settle(rollout, heard("a") | heard("b", crashes=1), now=T0 + 60)

    assert ["Judged", "UndoClaimed b"] == kinds(told)
    assert (None, ("b",)) == (of_kind(Judged, told)[0].wave, of_kind(Judged, told)[0].misbehaved)
    rollout = tell(rollout, Undone(board="b"), deployed("c"), deployed("d"), at=T0 + 61)
    rollout, told = settle(rollout, heard(*"acd"), now=T0 + 61)
    assert [SoakBegan(wave=0, until=T0 + 121)] == told
    rollout, told = settle(rollout, heard(*"acd"), now=T0 + 121)
    # Three of four is less than the 90 % that must.
    assert (
        "3 of 4 boards keep every gate (at least 90.0% must): crashes: b 1 crashes" in of_kind(Judged, told)[0].reason
    )


def test_too_many_failures_stop_a_wave_in_the_middle() -> None:
    rollout, _told = settle(begin(20, 5), BEFORE, now=T0, free=5)
    rollout = tell(rollout, failed("a"), failed("b"), deployed("c"))
    rollout, goes_on = settle(rollout, BEFORE, now=T0, free=1)

    rollout, told = settle(tell(rollout, failed("d")), BEFORE, now=T0 + 1, free=9)

    assert ["Claimed f"] == kinds(goes_on)
    assert ["Halted", "UndoClaimed c"] == kinds(told)
    expected = (
        "wave 1 of 2: 3 of 20 boards failed, 15.0% (at most 10.0% may): deployment: a ProbeError: 7 LSB off, "
        "b ProbeError: 7 LSB off, d ProbeError: 7 LSB off"
    )
    assert expected == rollout.reason


def test_boards_that_are_off_count_neither_as_good_nor_as_bad() -> None:
    rollout, _told = settle(begin(11), BEFORE, now=T0)
    rollout = tell(rollout, *(missed(name, T0 + 900) for name in "abcdefghi"), deployed("j"), failed("k"))

    _rollout, told = settle(rollout, BEFORE, now=T0)

    assert "wave 1 of 1: 1 of 2 boards failed" in of_kind(Halted, told)[0].reason


def test_what_had_nothing_before_it_is_stuck() -> None:
    bare = engine.begin(plan(1, policy=POLICY, boards=(PlannedBoard(board="a", disposition="ready"),)))
    bare = tell(bare, WaveBegan(wave=0), claimed("a"), deployed("a", before=None), SoakBegan(wave=0, until=T0 + 60))

    after, told = settle(bare, heard("a", crashes=1), now=T0 + 60)

    assert ["Judged", "Halted", "Finished"] == kinds(told)
    assert (BoardPhase.STUCK, Status.ROLLED_BACK) == (after.boards["a"].phase, after.status)
    assert "nothing served there before it" in after.boards["a"].detail


def test_a_wave_whose_verdict_was_taken_is_halted_although_the_host_died_in_between() -> None:
    rollout = tell(soaked(1, 3), Judged(wave=0, ok=False, boards=("a",), misbehaved=(), results=(), reason="why"))

    assert [Halted(reason="why", undo=True)] == list(engine.next_actions(rollout, heard("a"), now=T0 + 60, free=9))


def test_another_model_is_not_compared_with_the_one_before() -> None:
    boards = (PlannedBoard(board="a", disposition="ready", serving=OLD, serving_title="cats-9.1.0"),)
    rollout = engine.begin(plan(1, policy=POLICY, boards=boards))
    rollout = tell(
        rollout, WaveBegan(wave=0), claimed("a"), deployed("a", shadow=None), SoakBegan(wave=0, until=T0 + 60)
    )
    evidence = heard("a", labels={"3": 7000}, rss_bytes=400 << 20)

    _rollout, told = settle(rollout, evidence, now=T0 + 60)

    assert ["Judged", "Finished"] == kinds(told)
    figures = {result.gate: result.figure for result in of_kind(Judged, told)[0].results}
    assert "does not apply: another model served before" == figures["labels"]


def test_a_board_that_served_something_else_by_then_is_held_to_be_of_the_same_model() -> None:
    boards = (PlannedBoard(board="a", disposition="ready", serving=OLD, serving_title="cats-9.1.0"),)
    rollout = engine.begin(plan(1, policy=POLICY, boards=boards))
    rollout = tell(
        rollout, WaveBegan(wave=0), claimed("a"), deployed("a", before="2" * 64), SoakBegan(wave=0, until=T0)
    )

    _rollout, told = settle(rollout, heard("a", labels={"3": 7000}), now=T0 + 60)

    assert ["Judged", "Halted"] == kinds(told)[:2]


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("digits-2.0.0", "digits-1.0.0", True),
        ("digits-2.0.0-rc1", "digits-1.0.0", True),
        ("mobilenet-v2-1.0", "mobilenet-v1-1.0", True),
        ("digits-2.0.0", "cats-2.0.0", False),
        ("digits-2.0.0", None, True),
    ],
)
def test_titles_tell_models_apart_and_where_they_can_not_they_are_one(
    ours: str, theirs: str | None, *, same: bool
) -> None:
    boards = (PlannedBoard(board="a", disposition="ready", serving=OLD, serving_title=theirs),)

    assert same is engine.begin(plan(1, title=ours, boards=boards)).boards["a"].same_model


def test_names_that_are_noted_tell_models_apart_for_certain() -> None:
    boards = (PlannedBoard(board="a", disposition="ready", serving=OLD, serving_title="m-2", serving_model="m"),)

    assert not engine.begin(plan(1, title="m-2-1", model="m-2", boards=boards)).boards["a"].same_model


# Late boards


def test_a_board_that_comes_late_soaks_and_is_judged_by_itself() -> None:
    rollout, told = settle(tell(converging(), Born(board="c"), at=T0 + 300), BEFORE, now=T0 + 300)
    assert ["Claimed c"] == kinds(told)
    rollout = tell(rollout, deployed("c"), at=T0 + 310)
    assert (rollout, []) == settle(rollout, heard(*"abc"), now=T0 + 369)

    rollout, told = settle(rollout, heard(*"abc"), now=T0 + 370)

    assert ["Judged", "Finished"] == kinds(told)
    assert (None, ("c",)) == (of_kind(Judged, told)[0].wave, of_kind(Judged, told)[0].boards)


def test_a_late_board_that_misbehaves_is_brought_back_and_counts_for_its_wave() -> None:
    rollout = tell(converging(), Born(board="c"), claimed("c", 2), deployed("c"), at=T0 + 300)

    rollout, told = settle(rollout, heard("c", crashes=1), now=T0 + 360)

    assert ["Judged", "Halted", *["UndoClaimed a", "UndoClaimed b", "UndoClaimed c"]] == [
        *kinds(told)[:2],
        *sorted(kinds(told)[2:]),
    ]
    assert "wave 1 of 1: 1 of 3 boards failed, 33.3% (at most 10.0% may): crashes: c 1 crashes" in rollout.reason


def test_a_rollout_converges_for_as_long_as_a_board_is_off() -> None:
    rollout, told = settle(converging(), BEFORE, now=T0 + 899)

    assert ([], False) == (told, engine.at_rest(rollout))
    assert ["Claimed c"] == kinds(settle(rollout, BEFORE, now=T0 + 901)[1])


def test_a_newer_rollout_takes_what_is_still_queued() -> None:
    rollout, told = settle(
        tell(converging(), Superseded(boards=("a", "c"), by_rollout="digits-3")), BEFORE, now=T0 + 60
    )

    assert [Finished()] == told
    assert ["serving", "serving", "superseded"] == [board.phase.value for board in rollout.boards.values()]


def test_a_wave_that_a_newer_rollout_took_proves_nothing() -> None:
    taken = tell(begin(1, 3), Superseded(boards=("a",), by_rollout="digits-3"))
    all_taken = tell(begin(1, 3), Superseded(boards=("a", "b", "c", "d"), by_rollout="digits-3"))

    assert "a newer rollout took all its boards" in of_kind(Halted, settle(taken, BEFORE, now=T0)[1])[0].reason
    assert [Finished()] == settle(all_taken, BEFORE, now=T0)[1]
