"""What a person may say of a rollout as it stands, and the event that is written down for it. Pure.

    event = word(rollout, "approve")

What it does NOT do: write anything down, or carry anything out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, assert_never

from tflotilla.host.rollouts.events import Aborted, Approved, Paused, Resumed, RollbackAsked
from tflotilla.host.rollouts.rollout import Status
from tflotilla.shared.contract.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from tflotilla.host.rollouts.events import Event
    from tflotilla.host.rollouts.rollout import Rollout

Word = Literal["approve", "pause", "resume", "abort", "rollback"]


def word(rollout: Rollout, said: Word, *, wave: int | None = None) -> Event:
    """Return the event of a person's word; `wave` is which one to approve, counted from 0, None the one that waits.

    Raises:
        ConflictError: it makes no sense where the rollout stands, and why.
        UsageError: there is no such wave.

    """
    match said:
        case "approve":
            return _approved(rollout, wave)
        case "pause":
            return _paused(rollout)
        case "resume":
            return _resumed(rollout)
        case "abort":
            if rollout.status.over:
                raise ConflictError(f"{rollout.plan.rollout} is {rollout.status.value} already")
            return Aborted()
        case "rollback":
            if rollout.status is Status.ROLLED_BACK:
                raise ConflictError(f"{rollout.plan.rollout} is rolled back already")
            return RollbackAsked()
    assert_never(said)


def _approved(rollout: Rollout, wave: int | None) -> Event:
    name, waves = rollout.plan.rollout, rollout.plan.waves
    if wave is not None and wave >= len(waves):
        raise UsageError(f"{name} has {len(waves)} waves, there is no wave {wave + 1}")
    number = rollout.wave if wave is None else wave
    if rollout.status.over or rollout.status is Status.ROLLING_BACK:
        raise ConflictError(f"{name} is {rollout.status.value}; nothing waits for approval")
    if number >= len(waves) or not waves[number].approval or number in rollout.approved or number < rollout.wave:
        raise ConflictError(f"{name}: wave {min(number, len(waves) - 1) + 1} doesn't wait for approval")
    return Approved(wave=number)


def _paused(rollout: Rollout) -> Event:
    name = rollout.plan.rollout
    if rollout.status.over or rollout.status is Status.PAUSED:
        raise ConflictError(f"{name} is {rollout.status.value} already")
    if rollout.status is Status.ROLLING_BACK:
        raise ConflictError(f"{name} is rolling back, which nothing pauses; `tflotilla rollout abort {name}` ends it")
    return Paused()


def _resumed(rollout: Rollout) -> Event:
    if rollout.status is not Status.PAUSED:
        raise ConflictError(f"{rollout.plan.rollout} is {rollout.status.value}; only what is paused is resumed")
    return Resumed()
