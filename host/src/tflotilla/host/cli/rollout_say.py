"""`tflotilla rollout pause`, `approve` and `abort`: a person's word, which whoever conducts the rollout obeys."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import output, rollout_story, selecting
from tflotilla.shared.contract.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from tflotilla.host.rollouts.events import Event
    from tflotilla.host.rollouts.journal.port import Journal
    from tflotilla.host.rollouts.rollout import Rollout


def pause(
    rollout: rollout_story.Name = None, fleet: selecting.FleetFile = None, as_json: selecting.Json = False
) -> None:
    """Begin nothing new; pushes under way are finished. `resume` goes on.

    Example: tflotilla rollout pause

    Exit codes: 0 paused, 2 there is no such rollout, 3 fleet.toml, 11 it is over or paused.
    """
    from tflotilla.host.rollouts.events import Paused

    with rollout_story.opened(fleet) as (_loaded, journal):
        found = rollout_story.found(journal, rollout)
        if found.status.over or found.status == "paused":
            raise ConflictError(f"{found.plan.rollout} is {found.status.value} already")
        if found.status == "rolling_back":
            name = found.plan.rollout
            raise ConflictError(
                f"{name} is rolling back, which nothing pauses; `tflotilla rollout abort {name}` ends it"
            )
        then = "`tflotilla rollout resume {name}` goes on"
        _say(journal, found, "pause", Paused(), then=then, as_json=as_json)


def approve(
    rollout: rollout_story.Name = None,
    wave: Annotated[
        int | None, typer.Option("--wave", min=1, help="Which one, counted from 1; default: the one that waits.")
    ] = None,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Let a wave begin that waits for a person.

    Example: tflotilla rollout approve birds-2.0.0-7f3a

    Exit codes: 0 approved, 2 there is no such rollout or wave, 3 fleet.toml, 11 nothing waits for approval.
    """
    from tflotilla.host.rollouts.events import Approved

    with rollout_story.opened(fleet) as (_loaded, journal):
        found = rollout_story.found(journal, rollout)
        name, waves = found.plan.rollout, found.plan.waves
        if wave is not None and wave > len(waves):
            raise UsageError(f"{name} has {len(waves)} waves, there is no wave {wave}")
        number = found.wave if wave is None else wave - 1
        if found.status.over or found.status == "rolling_back":
            raise ConflictError(f"{name} is {found.status.value}; nothing waits for approval")
        if number >= len(waves) or not waves[number].approval or number in found.approved or number < found.wave:
            raise ConflictError(f"{name}: wave {min(number, len(waves) - 1) + 1} doesn't wait for approval")
        then = "`tflotilla rollout resume {name}` or the controller goes on"
        _say(journal, found, "approve", Approved(wave=number), then=then, as_json=as_json)


def abort(
    rollout: rollout_story.Name = None, fleet: selecting.FleetFile = None, as_json: selecting.Json = False
) -> None:
    """End a rollout: boards that have the bundle keep it, no other board gets it. `rollback` brings them back.

    Example: tflotilla rollout abort

    Exit codes: 0 aborted, 2 there is no such rollout, 3 fleet.toml, 11 it is over.
    """
    from tflotilla.host.rollouts.events import Aborted

    with rollout_story.opened(fleet) as (_loaded, journal):
        found = rollout_story.found(journal, rollout)
        if found.status.over:
            raise ConflictError(f"{found.plan.rollout} is {found.status.value} already")
        then = "`tflotilla rollout rollback {name}` would bring boards back that have it"
        _say(journal, found, "abort", Aborted(), then=then, as_json=as_json)


def _say(journal: Journal, found: Rollout, action: str, event: Event, *, then: str, as_json: bool) -> None:
    """Write a word down and tell who obeys; where nobody does, what `then` may be done."""
    name = found.plan.rollout
    rollout_story.say(journal, name, action, event)
    conductor = journal.conductor(name, at=time.time())
    if as_json:
        output.emit_json({"rollout": name, "said": action, "conductor": conductor})
        return
    who = f"nobody conducts it now; {then.format(name=name)}" if conductor is None else f"{conductor} obeys"
    typer.echo(f"{name}: {action} is written down; {who}")
