"""Every state by every event, repeated and late ones too: what changes, and that nothing else does."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.host.rollouts.deciding import stories
from tests.host.rollouts.deciding.stories import NEW, OLD, T0, claimed, deployed, failed, missed, tell, undo, verdict
from tflotilla.host.rollouts.deciding import engine
from tflotilla.host.rollouts.events import (
    Aborted,
    Approved,
    Born,
    Event,
    Finished,
    Halted,
    Judged,
    Paused,
    Resumed,
    Retried,
    RollbackAsked,
    SoakBegan,
    Superseded,
    UndoFailed,
    UndoMissed,
    Undone,
    WaveBegan,
)
from tflotilla.host.rollouts.rollout import BoardPhase, Rollout, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

S, P = Status, BoardPhase
ALL = ("a", "b", "c", "d")
#: One event of each kind that is about the whole; None: of the wave that is going on.
EVENTS: Mapping[str, Event] = {
    "WaveBegan": WaveBegan(wave=1),
    "SoakBegan": SoakBegan(wave=1, until=T0 + 99),
    "Judged": verdict(0, "a"),
    "Halted": Halted(reason="why", undo=False),
    "Halted, undo": Halted(reason="why", undo=True),
    "Approved": Approved(wave=1),
    "Paused": Paused(),
    "Resumed": Resumed(),
    "Aborted": Aborted(),
    "RollbackAsked": RollbackAsked(),
    "Retried": Retried(boards=ALL),
    "Superseded": Superseded(boards=ALL, by_rollout="digits-3.0.0-0001"),
    "Finished": Finished(),
}
#: What a rollout becomes; an event that isn't there leaves its status.
BECOMES: Mapping[Status, Mapping[str, Status]] = {
    S.RUNNING: {
        "Halted": S.HALTED,
        "Halted, undo": S.ROLLING_BACK,
        "Paused": S.PAUSED,
        "Aborted": S.ABORTED,
        "RollbackAsked": S.ROLLING_BACK,
        "Finished": S.SUCCEEDED,
    },
    S.PAUSED: {
        "Halted": S.HALTED,
        "Halted, undo": S.ROLLING_BACK,
        "Resumed": S.RUNNING,
        "Aborted": S.ABORTED,
        "RollbackAsked": S.ROLLING_BACK,
    },
    S.CONVERGING: {
        "Halted": S.HALTED,
        "Halted, undo": S.ROLLING_BACK,
        "Paused": S.PAUSED,
        "Aborted": S.ABORTED,
        "RollbackAsked": S.ROLLING_BACK,
        "Finished": S.SUCCEEDED,
    },
    S.ROLLING_BACK: {"Aborted": S.ABORTED, "Finished": S.ROLLED_BACK},
    S.HALTED: {"Aborted": S.ABORTED, "RollbackAsked": S.ROLLING_BACK, "Retried": S.RUNNING},
    S.ROLLED_BACK: {"RollbackAsked": S.ROLLING_BACK, "Retried": S.RUNNING},
    S.ABORTED: {"RollbackAsked": S.ROLLING_BACK},
    S.SUCCEEDED: {"RollbackAsked": S.ROLLING_BACK, "Retried": S.CONVERGING},
}
#: Events that change more than the status, where they are not in BECOMES.
CHANGES: Mapping[Status, frozenset[str]] = {
    S.RUNNING: frozenset({"Judged", "Approved", "Resumed", "Superseded"}),
    S.PAUSED: frozenset({"Judged", "Approved", "Superseded"}),
    # Retried: the board that failed is tried again.
    S.CONVERGING: frozenset({"Resumed", "Superseded", "Retried"}),
    S.ROLLING_BACK: frozenset({"Resumed", "Superseded", "RollbackAsked"}),
    S.HALTED: frozenset({"Resumed", "Superseded"}),
    S.ROLLED_BACK: frozenset({"Resumed", "Superseded"}),
    S.ABORTED: frozenset({"Resumed", "Superseded"}),
    S.SUCCEEDED: frozenset(),
}


@pytest.mark.parametrize(("status", "kind"), itertools.product(Status, EVENTS))
def test_every_event_in_every_status(status: Status, kind: str) -> None:
    before = stories.in_status(status)

    after = tell(before, EVENTS[kind])

    assert status is before.status
    assert BECOMES[status].get(kind, status) is after.status
    assert before.events + 1 == after.events
    if kind not in BECOMES[status] and kind not in CHANGES[status]:
        assert stories.like(before) == stories.like(after)


@pytest.mark.parametrize(("status", "kind"), itertools.product(Status, EVENTS))
def test_what_is_told_twice_changes_nothing_more(status: Status, kind: str) -> None:
    once = tell(stories.in_status(status), EVENTS[kind])
    if kind == "Judged" and once.wave == 1:
        # The same words can't be of the next wave.
        assert tell(once, EVENTS[kind]).wave == 1
        return
    if kind == "Retried" and once.status is not status:
        # Asked for again while it goes on: nothing has failed anew.
        assert stories.like(once) == stories.like(tell(once, EVENTS[kind]))
        return

    assert stories.like(once) == stories.like(tell(once, EVENTS[kind]))


def one(*events: Event) -> Rollout:
    """Return a rollout of one board to which that happened."""
    return tell(engine.begin(stories.plan(1)), *events)


#: How a board gets into each phase.
BOARD_ROADS: Mapping[str, tuple[Event, ...]] = {
    "waiting": (),
    "queued": (WaveBegan(wave=0),),
    "queued, missed": (WaveBegan(wave=0), claimed("a"), missed("a")),
    "pushing": (WaveBegan(wave=0), claimed("a")),
    "serving": (WaveBegan(wave=0), claimed("a"), deployed("a")),
    "serving, undo": (WaveBegan(wave=0), claimed("a"), deployed("a"), RollbackAsked()),
    "failed": (WaveBegan(wave=0), claimed("a"), failed("a")),
    "superseded": (WaveBegan(wave=0), Superseded(boards=("a",), by_rollout="x")),
    "undoing": (WaveBegan(wave=0), claimed("a"), deployed("a"), RollbackAsked(), undo("a")),
    "undone": (WaveBegan(wave=0), claimed("a"), deployed("a"), RollbackAsked(), undo("a"), Undone(board="a")),
    "stuck": (WaveBegan(wave=0), claimed("a"), deployed("a", before=None), RollbackAsked()),
}
BOARD_EVENTS: Mapping[str, Event] = {
    "Claimed": claimed("a", 2),
    "Deployed": deployed("a"),
    "Missed": missed("a", T0 + 50),
    "Born": Born(board="a"),
    "Failed": failed("a"),
    "UndoClaimed": undo("a"),
    "Undone": Undone(board="a"),
    "UndoMissed": UndoMissed(board="a", error="UnreachableError", detail="no answer", again_at=T0 + 50),
    "UndoFailed": UndoFailed(board="a", error="ConflictError", detail="nothing to go back to"),
}
#: What a board becomes; an event that isn't there leaves it as it is, but for the Born that end a wait.
BOARD_BECOMES: Mapping[str, Mapping[str, BoardPhase]] = {
    "waiting": {},
    # No end of a push where none was claimed, or where none can have begun.
    "queued": {"Claimed": P.PUSHING, "Born": P.QUEUED},
    "queued, missed": {"Claimed": P.PUSHING, "Born": P.QUEUED, "Deployed": P.SERVING, "Failed": P.FAILED},
    "pushing": {"Deployed": P.SERVING, "Missed": P.QUEUED, "Failed": P.FAILED},
    "serving": {},
    "serving, undo": {
        "Born": P.SERVING,
        "UndoClaimed": P.UNDOING,
        "Undone": P.UNDONE,
        "UndoFailed": P.STUCK,
    },
    "failed": {},
    "superseded": {},
    "undoing": {"Undone": P.UNDONE, "UndoMissed": P.SERVING, "UndoFailed": P.STUCK},
    "undone": {},
    "stuck": {},
}


@pytest.mark.parametrize(("phase", "kind"), itertools.product(BOARD_ROADS, BOARD_EVENTS))
def test_every_event_in_every_phase_of_a_board(phase: str, kind: str) -> None:
    before = one(*BOARD_ROADS[phase])

    after = tell(before, BOARD_EVENTS[kind], at=T0 + 9)

    assert phase.split(",")[0] == before.boards["a"].phase.value
    assert BOARD_BECOMES[phase].get(kind, before.boards["a"].phase) is after.boards["a"].phase
    if kind not in BOARD_BECOMES[phase]:
        assert stories.like(before) == stories.like(after)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("kind", BOARD_EVENTS)
def test_what_a_board_says_moves_only_that_board(status: Status, kind: str) -> None:
    before = stories.in_status(status)

    after = tell(before, BOARD_EVENTS[kind])

    assert [before.boards[name] for name in "bcd"] == [after.boards[name] for name in "bcd"]
    assert status is after.status


def test_an_event_of_a_board_that_nobody_planned_changes_nothing() -> None:
    before = stories.in_status(Status.RUNNING)

    assert stories.like(before) == stories.like(tell(before, deployed("zz"), Retried(boards=("zz",))))


@pytest.mark.parametrize("word", [Paused(), Aborted(), RollbackAsked()])
def test_a_claim_that_was_decided_before_a_person_stopped_it_is_void(word: Event) -> None:
    rollout = one(WaveBegan(wave=0), word)

    after = tell(rollout, claimed("a"))

    assert rollout.boards == after.boards
    assert not engine.under_way(after, claimed("a"))


def test_a_push_that_ends_while_everything_is_undone_is_undone_too() -> None:
    rollout = one(WaveBegan(wave=0), claimed("a"), RollbackAsked())

    after = tell(rollout, deployed("a"))

    assert (P.SERVING, True, S.ROLLING_BACK) == (after.boards["a"].phase, after.boards["a"].undo, after.status)


def test_a_push_whose_end_comes_after_everything_was_undone_is_undone_too() -> None:
    rollout = one(WaveBegan(wave=0), claimed("a"), missed("a", begun=False), RollbackAsked(), Finished(), Resumed())
    assert S.ROLLED_BACK is rollout.status
    void = tell(one(WaveBegan(wave=0), claimed("a"), missed("a"), RollbackAsked()), undo("a"), Undone(board="a"))

    assert not rollout.boards["a"].undo
    assert P.UNDONE is void.boards["a"].phase


def test_a_push_that_was_cut_may_have_gone_through_so_its_board_is_asked_when_all_is_undone() -> None:
    cut = one(WaveBegan(wave=0), claimed("a"), missed("a"), RollbackAsked())
    never = one(WaveBegan(wave=0), claimed("a"), missed("a", begun=False), RollbackAsked())

    assert (True, False) == (cut.boards["a"].undo, never.boards["a"].undo)
    late = tell(cut, undo("a"), UndoMissed(board="a", error="BusyError", detail="", again_at=T0 + 9))
    assert (P.QUEUED, True) == (late.boards["a"].phase, late.boards["a"].undo)


def test_a_board_that_is_back_does_not_say_any_more_why_it_could_not_be_reached() -> None:
    rolled = one(WaveBegan(wave=0), claimed("a"), deployed("a"), RollbackAsked(), undo("a"))
    missed_once = tell(rolled, UndoMissed(board="a", error="UnreachableError", detail="no answer", again_at=T0 + 9))

    back = tell(missed_once, undo("a"), Undone(board="a")).boards["a"]

    assert (P.UNDONE, None, "") == (back.phase, back.error, back.detail)


def test_whoever_resumes_claims_anew_and_listens_anew() -> None:
    rollout = tell(
        engine.begin(stories.plan(2)), WaveBegan(wave=0), claimed("a"), deployed("a"), claimed("b"), RollbackAsked()
    )
    void = tell(rollout, undo("a"), Resumed(), at=T0 + 9)
    assert [(P.SERVING, True), (P.QUEUED, True)] == [(void.boards[b].phase, void.boards[b].undo) for b in "ab"]

    soaking = tell(stories.in_status(Status.RUNNING), Resumed(), at=T0 + 50)
    assert T0 + 50 + 60 == soaking.soak_until


def test_a_board_that_had_the_bundle_already_goes_back_to_what_the_plan_found() -> None:
    """Its deployment went through, and the host that would have heard of it was killed."""
    after = one(
        WaveBegan(wave=0), claimed("a"), missed("a"), claimed("a", 2), deployed("a", changed=False, before=None)
    )

    assert OLD == after.boards["a"].before


def test_a_retry_is_a_new_round_with_a_new_id() -> None:
    rollout = engine.begin(stories.plan(1))
    rollout, first = stories.settle(rollout, {}, now=T0)
    again = tell(rollout, failed("a"), Halted(reason="", undo=False), Retried(boards=("a",)))

    _rollout, second = stories.settle(again, {}, now=T0)

    (one_id,) = [event.deployment for event in first if hasattr(event, "deployment")]
    (other_id,) = [event.deployment for event in second if hasattr(event, "deployment")]
    assert one_id != other_id
    assert (1, 0, S.RUNNING) == (again.boards["a"].round, again.boards["a"].attempts, again.status)


def test_a_board_that_is_stuck_and_retried_is_undone_once_more() -> None:
    rollout = tell(
        stories.in_status(Status.ROLLING_BACK),
        undo("a"),
        UndoFailed(board="a", error="BoardError", detail="disk full"),
        Finished(),
    )

    after = tell(rollout, Retried(boards=("a",)))

    assert (S.ROLLED_BACK, S.ROLLING_BACK) == (rollout.status, after.status)
    assert (P.SERVING, True) == (after.boards["a"].phase, after.boards["a"].undo)


def test_who_aborts_leaves_boards_as_they_are() -> None:
    after = tell(stories.in_status(Status.ROLLING_BACK), Aborted())

    assert (P.SERVING, False) == (after.boards["a"].phase, after.boards["a"].undo)
    assert () == engine.next_actions(after, {}, now=T0 + 999, free=9)


@pytest.mark.parametrize("status", Status)
def test_what_stands_beside_the_boards_is_what_counting_them_gives(status: Status) -> None:
    from tflotilla.host.rollouts.deciding.board_transitions import is_bad, is_open

    rollout = tell(stories.in_status(status), Retried(boards=ALL), Superseded(boards=("b", "d"), by_rollout="x"))

    boards = {name: board for name, board in rollout.boards.items() if board.wave is not None}
    assert {name: board.wave for name, board in boards.items() if is_open(board)} == dict(rollout.open)
    for counted, holds in ((rollout.bad, is_bad), (rollout.taken, lambda board: board.phase is P.SUPERSEDED)):
        waves = [board.wave for board in boards.values() if holds(board)]
        assert {wave: waves.count(wave) for wave in set(waves)} == dict(counted)


def test_folding_many_is_folding_one_after_the_other() -> None:
    events = [*stories.ROADS[Status.SUCCEEDED], RollbackAsked()]
    each = engine.begin(stories.plan(1, 3))
    for event in events:
        each = engine.fold(each, event, at=T0)

    assert each == tell(engine.begin(stories.plan(1, 3)), *events)
    assert len(events) == each.events


def test_a_rollout_stays_as_it_is_when_it_is_folded_on() -> None:
    before = stories.in_status(Status.RUNNING)
    kept = (dict(before.boards), dict(before.open))

    tell(before, RollbackAsked(), undo("a"), Undone(board="a"))

    assert kept == (before.boards, before.open)


def test_a_verdict_of_a_wave_that_is_over_changes_nothing() -> None:
    rollout = stories.in_status(Status.CONVERGING)
    late = Judged(wave=0, ok=False, boards=("a",), misbehaved=("a",), results=(), reason="late")

    assert stories.like(rollout) == stories.like(tell(rollout, late))
    assert NEW == rollout.plan.bundle
