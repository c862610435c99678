"""The table of a deployment: every state by {what it awaits, error, killed, repeated}, whole chains compared."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest

from tflotilla.device import install
from tflotilla.device.choice import Choice
from tflotilla.device.install import (
    MAX_ATTEMPTS,
    Action,
    Behaved,
    Broke,
    Choose,
    Clear,
    Collect,
    Event,
    Journal,
    Misbehaved,
    Observe,
    Point,
    Probe,
    Probed,
    Refused,
    Report,
    Save,
    Serve,
    Serves,
    Shadowed,
    Verified,
    Verify,
)
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.deployment import FOLLOWERS, DeploymentState, ShadowReport

OLDEST, OLD, NEW = "0" * 64, "a" * 64, "b" * 64
RUNTIME = RuntimeOffer(name="ai-edge-litert", version="2.3.0")
DEPLOY = Journal(kind="deploy", deployment="d1", candidate=NEW, title="digits-2", champion=OLD, previous=OLDEST)
ROLLBACK = Journal(kind="rollback", deployment="r1", candidate=OLDEST, title="digits-0", champion=OLD, previous=OLDEST)
BEFORE = Choice(runtime=RuntimeOffer(name="tflite-runtime", version="2.14.0"))
TUNED = InferenceConfig(runtime="ai-edge-litert", num_threads=4, xnnpack=False, affinity=(2, 3))
#: What serves is to be served otherwise.
AGAIN = replace(DEPLOY, candidate=OLD, title="digits-1", asked=TUNED, before=BEFORE)
KEPT = (OLD, OLDEST)
REFUSED = Refused(error="ProbeError", detail="7 LSB off")
BROKE = Broke(error="BoardError", detail="disk full")
MISBEHAVED = Misbehaved(detail="crashed twice")
#: What each state awaits, and a good answer to it.
GOOD: dict[DeploymentState, Event] = {
    DeploymentState.VERIFYING: Verified(),
    DeploymentState.PROBING: Probed(choice=Choice(runtime=RUNTIME)),
    DeploymentState.SWITCHING: Serves(),
    DeploymentState.CONFIRMING: Behaved(detail="100 results"),
}
SHADOWED = Shadowed(report=ShadowReport(inputs=1, agreed=1))
EVENTS: tuple[Event, ...] = (*GOOD.values(), SHADOWED, MISBEHAVED, REFUSED, BROKE)


@dataclass(slots=True, kw_only=True)
class Board:
    """Does actions as an ideal installer would: two links, a worker, a journal, and what was told."""

    current: str | None = OLD
    previous: str | None = OLDEST
    serving: str | None = OLD
    journal: Journal | None = None
    told: list[str] = field(default_factory=list)
    chosen: dict[str, Choice | None] = field(default_factory=dict)

    def act(self, action: Action) -> None:
        if isinstance(action, Save):
            self.journal = action.journal
        elif isinstance(action, Clear):
            self.journal = None
        elif isinstance(action, Report):
            self.told.append(action.state.value)
        elif isinstance(action, Point):
            self.current, self.previous = action.current, action.previous
        elif isinstance(action, Choose):
            self.chosen[action.candidate] = action.choice
        elif isinstance(action, Serve):
            assert action.bundle == self.current, "serves what `current` names, at every moment"
            self.serving = action.bundle

    def act_all(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            self.act(action)


def _play(journal: Journal, board: Board, events: dict[DeploymentState, Event]) -> Journal:
    """Run a deployment to its end, answering each state with its event."""
    after, actions = install.begin(journal)
    return _go_on(after, actions, board, events)


def _go_on(
    journal: Journal, actions: tuple[Action, ...], board: Board, events: dict[DeploymentState, Event]
) -> Journal:
    board.act_all(actions)
    while not journal.state.final:
        journal, actions = install.step(journal, events[journal.state])
        board.act_all(actions)
    return journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way a deployment can go."""

    name: str
    journal: Journal = DEPLOY
    events: dict[DeploymentState, Event] = field(default_factory=dict)
    chain: str
    links: tuple[str | None, str | None]


S = DeploymentState
CASES = (
    Case(name="all is well", chain="verifying probing switching confirming succeeded", links=(NEW, OLD)),
    Case(
        name="refused in verifying",
        events={S.VERIFYING: REFUSED},
        chain="verifying rejected",
        links=(OLD, OLDEST),
    ),
    Case(name="error in verifying", events={S.VERIFYING: BROKE}, chain="verifying failed", links=(OLD, OLDEST)),
    Case(
        name="refused in probing",
        events={S.PROBING: REFUSED},
        chain="verifying probing rejected",
        links=(OLD, OLDEST),
    ),
    Case(name="error in probing", events={S.PROBING: BROKE}, chain="verifying probing failed", links=(OLD, OLDEST)),
    Case(
        name="refused in switching",
        events={S.SWITCHING: REFUSED},
        chain="verifying probing switching rolled_back",
        links=(OLD, OLDEST),
    ),
    Case(
        name="error in switching",
        events={S.SWITCHING: BROKE},
        chain="verifying probing switching rolled_back",
        links=(OLD, OLDEST),
    ),
    Case(
        name="misbehaved in confirming",
        events={S.CONFIRMING: MISBEHAVED},
        chain="verifying probing switching confirming rolled_back",
        links=(OLD, OLDEST),
    ),
    Case(
        name="refused in confirming",
        events={S.CONFIRMING: REFUSED},
        chain="verifying probing switching confirming rolled_back",
        links=(OLD, OLDEST),
    ),
    Case(
        name="error in confirming",
        events={S.CONFIRMING: BROKE},
        chain="verifying probing switching confirming rolled_back",
        links=(OLD, OLDEST),
    ),
    Case(name="served otherwise", journal=AGAIN, chain="verifying probing switching confirming succeeded", links=KEPT),
    Case(
        name="served otherwise and refused",
        journal=AGAIN,
        events={S.PROBING: REFUSED},
        chain="verifying probing rejected",
        links=KEPT,
    ),
    Case(
        name="served otherwise and undone",
        journal=AGAIN,
        events={S.CONFIRMING: MISBEHAVED},
        chain="verifying probing switching confirming rolled_back",
        links=KEPT,
    ),
    Case(name="rollback", journal=ROLLBACK, chain="verifying switching succeeded", links=(OLDEST, OLD)),
    Case(
        name="rollback refused in verifying",
        journal=ROLLBACK,
        events={S.VERIFYING: REFUSED},
        chain="verifying rejected",
        links=(OLD, OLDEST),
    ),
    Case(
        name="error of a rollback in verifying",
        journal=ROLLBACK,
        events={S.VERIFYING: BROKE},
        chain="verifying failed",
        links=(OLD, OLDEST),
    ),
    Case(
        name="rollback refused in switching",
        journal=ROLLBACK,
        events={S.SWITCHING: REFUSED},
        chain="verifying switching rolled_back",
        links=(OLD, OLDEST),
    ),
    Case(
        name="error of a rollback in switching",
        journal=ROLLBACK,
        events={S.SWITCHING: BROKE},
        chain="verifying switching rolled_back",
        links=(OLD, OLDEST),
    ),
)
BY_NAME = [pytest.param(case, id=case.name) for case in CASES]


@pytest.mark.parametrize("case", BY_NAME)
def test_a_deployment_goes_its_way_and_leaves_these_links(case: Case) -> None:
    board = Board()

    _play(case.journal, board, GOOD | case.events)

    assert " ".join(board.told) == case.chain
    assert (board.current, board.previous) == case.links
    assert board.serving == board.current
    assert board.journal is None


@pytest.mark.parametrize("case", BY_NAME)
def test_every_chain_is_one_that_the_contract_allows(case: Case) -> None:
    states = [DeploymentState(word) for word in case.chain.split()]

    assert all(after in FOLLOWERS[before] for before, after in itertools.pairwise(states))
    assert states[-1].final


@pytest.mark.parametrize("case", BY_NAME)
@pytest.mark.parametrize("twice", [False, True], ids=["killed once", "killed again while recovering"])
def test_killed_between_any_two_actions_the_end_is_the_same(case: Case, *, twice: bool) -> None:
    """The chain may begin anew; where it ends, and what serves then, may not differ from the undisturbed one."""
    undisturbed = Board()
    expected = _play(case.journal, undisturbed, GOOD | case.events)
    kills = _count_actions(case)
    assert kills >= 5
    for kill_at in range(kills):
        board = Board()
        _play_until_killed(case, board, kill_at)
        _recover(case, board, actions=1 if twice else None)
        if twice:
            _recover(case, board)
        begun = bool(board.told)
        links = (board.current, board.previous)
        assert links == case.links or (not begun and links == (OLD, OLDEST)), kill_at
        assert board.serving == board.current, kill_at
        assert board.journal is None, kill_at
        if begun:
            assert board.told[-1] == expected.state.value, kill_at


@pytest.mark.parametrize("kind", ["deploy", "rollback"])
def test_what_serves_first_after_a_kill_is_one_whole_bundle(kind: Literal["deploy", "rollback"]) -> None:
    case = next(case for case in CASES if case.journal.kind == kind)
    for kill_at in range(_count_actions(case)):
        board = Board()
        _play_until_killed(case, board, kill_at)
        _journal, actions = install.recover(board.journal, board.current)
        first = next(action for action in actions if isinstance(action, Serve))
        assert first.bundle in (case.journal.candidate, OLD)
        links = [action for action in actions[: actions.index(first)] if isinstance(action, Point)]
        assert first.bundle == (links[-1].current if links else board.current)


@pytest.mark.parametrize("state", [S.VERIFYING, S.PROBING, S.SWITCHING, S.CONFIRMING])
def test_killed_too_often_it_gives_up_and_the_old_bundle_serves(state: DeploymentState) -> None:
    candidate_serves = state in (S.SWITCHING, S.CONFIRMING)
    board = Board(
        current=NEW if candidate_serves else OLD,
        previous=OLD if candidate_serves else OLDEST,
        journal=replace(DEPLOY, state=state, attempts=MAX_ATTEMPTS),
    )

    after, actions = install.recover(board.journal, board.current)
    board.act_all(actions)

    assert after is not None
    assert after.detail == f"the agent or the board died 3 times during {state.value}; gave up"
    assert board.told == ["rolled_back" if candidate_serves else "failed"]
    assert (board.current, board.previous, board.serving, board.journal) == (OLD, OLDEST, OLD, None)


@pytest.mark.parametrize("kind", ["deploy", "rollback"])
def test_killed_again_and_again_it_ends(kind: Literal["deploy", "rollback"]) -> None:
    case = next(case for case in CASES if case.journal.kind == kind)
    for kill_at in range(_count_actions(case)):
        board = Board()
        _play_until_killed(case, board, kill_at)
        deaths = 0
        while board.journal is not None:
            # As far as the longest recovery that only tidies up gets: point, serve, report, clear.
            _recover(case, board, actions=4)
            deaths += 1
            assert deaths <= 2 * MAX_ATTEMPTS, kill_at
        assert board.current in (OLD, case.journal.candidate)


@pytest.mark.parametrize("state", list(DeploymentState))
def test_what_a_state_does_not_await_changes_nothing(state: DeploymentState) -> None:
    awaited = {
        S.VERIFYING: (Verified, Refused, Broke),
        S.PROBING: (Probed, Refused, Broke),
        S.SWITCHING: (Serves, Refused, Broke),
        S.CONFIRMING: (Behaved, Misbehaved, Refused, Broke),
    }.get(state, ())
    journal = replace(DEPLOY, state=state)

    for event in EVENTS:
        after, actions = install.step(journal, event)
        if isinstance(event, awaited):
            assert after.state in FOLLOWERS[state]
            assert actions
        else:
            assert (after, actions) == (journal, ())


@pytest.mark.parametrize("case", BY_NAME)
def test_told_twice_a_state_acts_once(case: Case) -> None:
    events = GOOD | case.events
    journal, _actions = install.begin(case.journal)
    while not journal.state.final:
        event = events[journal.state]
        journal, _actions = install.step(journal, event)
        if not isinstance(event, (Refused, Broke)):
            assert install.step(journal, event) == (journal, ())


def test_the_actions_of_a_good_deployment_in_their_order() -> None:
    switching = replace(DEPLOY, state=S.SWITCHING, choice=Choice(runtime=RUNTIME))
    succeeded = replace(switching, state=S.SUCCEEDED, detail="100 results")

    steps = {
        "verifying": install.begin(DEPLOY)[1],
        "probing": install.step(DEPLOY, GOOD[S.VERIFYING])[1],
        "switching": install.step(replace(DEPLOY, state=S.PROBING), GOOD[S.PROBING])[1],
        "confirming": install.step(switching, GOOD[S.SWITCHING])[1],
        "succeeded": install.step(replace(switching, state=S.CONFIRMING), GOOD[S.CONFIRMING])[1],
    }

    assert steps == {
        "verifying": (Save(journal=DEPLOY), Report(state=S.VERIFYING), Verify(candidate=NEW, kind="deploy")),
        "probing": (
            Save(journal=replace(DEPLOY, state=S.PROBING)),
            Report(state=S.PROBING),
            Probe(candidate=NEW),
        ),
        "switching": (
            Save(journal=switching),
            Report(state=S.SWITCHING, detail="with ai-edge-litert==2.3.0"),
            Choose(candidate=NEW, choice=Choice(runtime=RUNTIME)),
            Point(current=NEW, previous=OLD),
            Serve(bundle=NEW, report=True),
        ),
        "confirming": (
            Save(journal=replace(switching, state=S.CONFIRMING)),
            Report(state=S.CONFIRMING),
            Observe(candidate=NEW),
        ),
        "succeeded": (
            Save(journal=succeeded),
            Report(state=S.SUCCEEDED, detail="100 results"),
            Clear(),
            Collect(keep=(OLD, NEW)),
        ),
    }


def test_the_way_to_run_that_was_asked_is_probed_told_and_chosen() -> None:
    probing, actions = install.step(replace(DEPLOY, asked=TUNED), Verified())
    assert actions[-1] == Probe(candidate=NEW, asked=TUNED)

    choice = Choice(runtime=RUNTIME, inference=TUNED, kernel="6.6.31")
    _after, actions = install.step(probing, Probed(choice=choice))

    told, chosen = actions[1:3]
    assert told == Report(
        state=S.SWITCHING,
        detail="with ai-edge-litert==2.3.0, 4 threads, without XNNPACK, on processor 2, 3, as tuned",
    )
    assert chosen == Choose(candidate=NEW, choice=choice)


def test_why_it_does_not_run_as_tuned_is_told_to_the_end() -> None:
    note = "not as tuned (4 threads): its delegate is not active: gone"
    switching, actions = install.step(
        replace(DEPLOY, state=S.PROBING, asked=TUNED), Probed(choice=Choice(runtime=RUNTIME), note=note)
    )
    assert Report(state=S.SWITCHING, detail=f"with ai-edge-litert==2.3.0, {note}") in actions

    _after, actions = install.step(replace(switching, state=S.CONFIRMING), Behaved(detail="100 results"))
    assert Report(state=S.SUCCEEDED, detail=f"100 results; {note}") in actions


def test_what_is_only_served_otherwise_keeps_its_links_and_gets_its_old_way_back_when_undone() -> None:
    switching, actions = install.step(
        replace(AGAIN, state=S.PROBING), Probed(choice=Choice(runtime=RUNTIME, inference=TUNED))
    )
    assert Point(current=OLD, previous=OLDEST) in actions

    after, actions = install.step(replace(switching, state=S.CONFIRMING), MISBEHAVED)
    assert actions == (
        Save(journal=after),
        Choose(candidate=OLD, choice=BEFORE),
        Point(current=OLD, previous=OLDEST),
        Serve(bundle=OLD, report=False),
        Report(state=S.ROLLED_BACK, detail="crashed twice", error="ProbeError"),
        Clear(),
        Collect(keep=(OLDEST, OLD)),
    )

    _after, actions = install.step(replace(switching, state=S.CONFIRMING), GOOD[S.CONFIRMING])
    assert actions[-1] == Collect(keep=(OLDEST, OLD))


def test_undoing_is_noted_before_it_is_done() -> None:
    after, actions = install.step(replace(DEPLOY, state=S.CONFIRMING), MISBEHAVED)

    assert after.state is S.ROLLED_BACK
    assert actions == (
        Save(journal=after),
        Point(current=OLD, previous=OLDEST),
        Serve(bundle=OLD, report=False),
        Report(state=S.ROLLED_BACK, detail="crashed twice", error="ProbeError"),
        Clear(),
        Collect(keep=(OLDEST, OLD, NEW)),
    )


def test_a_refused_candidate_is_kept_so_that_trying_again_sends_nothing() -> None:
    _after, actions = install.step(replace(DEPLOY, state=S.PROBING), REFUSED)

    assert actions[-1] == Collect(keep=(OLDEST, OLD, NEW))


def test_without_a_journal_the_current_bundle_is_served() -> None:
    assert install.recover(None, OLD) == (None, (Serve(bundle=OLD, report=False),))
    assert install.recover(None, None) == (None, (Serve(bundle=None, report=False),))


def test_a_journal_survives_being_written() -> None:
    journal = replace(DEPLOY, state=S.CONFIRMING, attempts=2, choice=Choice(runtime=RUNTIME))

    assert codec.decode(Journal, codec.parse_json(codec.canonical_json(journal), "j"), "j") == journal


class _KilledError(Exception):
    """The agent is gone."""


@dataclass(slots=True, kw_only=True)
class _MortalBoard(Board):
    """Dies before action number `dies_at`."""

    dies_at: int
    acted: int = 0

    def act(self, action: Action) -> None:
        if self.acted == self.dies_at:
            raise _KilledError
        self.acted += 1
        Board.act(self, action)


def _count_actions(case: Case) -> int:
    board = _MortalBoard(dies_at=-1)
    _play(case.journal, board, GOOD | case.events)
    return board.acted


def _play_until_killed(case: Case, board: Board, kill_at: int) -> None:
    mortal = _MortalBoard(dies_at=kill_at)
    with pytest.raises(_KilledError):
        _play(case.journal, mortal, GOOD | case.events)
    # The worker dies with its supervisor; links, journal and choices are on the disk.
    board.current, board.previous, board.journal, board.serving = mortal.current, mortal.previous, mortal.journal, None
    board.told, board.chosen = mortal.told, mortal.chosen


def _recover(case: Case, board: Board, *, actions: int | None = None) -> None:
    """Start again: all the way, or killed again after so many actions."""
    journal, todo = install.recover(board.journal, board.current)
    if actions is not None:
        board.act_all(todo[:actions])
        board.serving = None
    elif journal is None:
        board.act_all(todo)
    else:
        _go_on(journal, todo, board, GOOD | case.events)
