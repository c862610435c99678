"""What a person may say of a rollout, by where it stands."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.host.rollouts.made import plan
from tflotilla.host.rollouts.deciding import engine, people
from tflotilla.host.rollouts.events import Aborted, Approved, Event, Paused, Resumed, RollbackAsked
from tflotilla.host.rollouts.rollout import Rollout, Status
from tflotilla.shared.contract.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from tflotilla.host.rollouts.deciding.people import Word

ANY = frozenset(Status)
OVER = frozenset(status for status in Status if status.over)
#: Word → its event, and the states in which it makes no sense.
WORDS: dict[Word, tuple[Event, frozenset[Status]]] = {
    "approve": (Approved(wave=0), OVER | {Status.ROLLING_BACK}),
    "pause": (Paused(), OVER | {Status.PAUSED, Status.ROLLING_BACK}),
    "resume": (Resumed(), ANY - {Status.PAUSED}),
    "abort": (Aborted(), OVER),
    "rollback": (RollbackAsked(), frozenset({Status.ROLLED_BACK})),
}


def standing(status: Status) -> Rollout:
    """Return a rollout in that state, whose first wave waits for approval."""
    made = plan()
    waves = (dataclasses.replace(made.waves[0], approval=True), *made.waves[1:])
    return dataclasses.replace(engine.begin(dataclasses.replace(made, waves=waves)), status=status)


@pytest.mark.parametrize("said", WORDS)
@pytest.mark.parametrize("status", Status)
def test_a_word_is_an_event_or_a_conflict_that_names_the_rollout(said: Word, status: Status) -> None:
    event, refused = WORDS[said]
    rollout = standing(status)
    if status in refused:
        with pytest.raises(ConflictError, match=rollout.plan.rollout):
            people.word(rollout, said)
    else:
        assert event == people.word(rollout, said)


def test_only_a_wave_that_waits_is_approved() -> None:
    rollout = standing(Status.RUNNING)

    with pytest.raises(ConflictError, match="wave 2 doesn't wait for approval"):
        people.word(rollout, "approve", wave=1)
    with pytest.raises(ConflictError, match="wave 1 doesn't wait for approval"):
        people.word(dataclasses.replace(rollout, approved=frozenset({0})), "approve")
    with pytest.raises(UsageError, match="has 2 waves, there is no wave 3"):
        people.word(rollout, "approve", wave=2)
