"""`tflotilla rollout pause`, `approve` and `abort`: a person's word, which whoever conducts the rollout obeys."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import output, rollout_story, selecting

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.rollouts.deciding.people import Word


def pause(
    rollout: rollout_story.Name = None, fleet: selecting.FleetFile = None, as_json: selecting.Json = False
) -> None:
    """Begin nothing new; pushes under way are finished. `resume` goes on.

    Example: tflotilla rollout pause

    Exit codes: 0 paused, 2 there is no such rollout, 3 fleet.toml, 11 it is over or paused.
    """
    then = "`tflotilla rollout resume {name}` goes on"
    _say(fleet, rollout, "pause", then=then, as_json=as_json)


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
    then = "`tflotilla rollout resume {name}` or the controller goes on"
    _say(fleet, rollout, "approve", wave=None if wave is None else wave - 1, then=then, as_json=as_json)


def abort(
    rollout: rollout_story.Name = None, fleet: selecting.FleetFile = None, as_json: selecting.Json = False
) -> None:
    """End a rollout: boards that have the bundle keep it, no other board gets it. `rollback` brings them back.

    Example: tflotilla rollout abort

    Exit codes: 0 aborted, 2 there is no such rollout, 3 fleet.toml, 11 it is over.
    """
    then = "`tflotilla rollout rollback {name}` would bring boards back that have it"
    _say(fleet, rollout, "abort", then=then, as_json=as_json)


def _say(
    fleet: Path | None, rollout: str | None, said: Word, *, then: str, as_json: bool, wave: int | None = None
) -> None:
    """Write a word down and tell who obeys; where nobody does, what `then` may be done."""
    from tflotilla.host.rollouts.deciding import people

    with rollout_story.opened(fleet) as (_loaded, journal):
        found = rollout_story.found(journal, rollout)
        name = found.plan.rollout
        rollout_story.say(journal, name, said, people.word(found, said, wave=wave))
        conductor = journal.conductor(name, at=time.time())
    if as_json:
        output.emit_json({"rollout": name, "said": said, "conductor": conductor})
        return
    who = f"nobody conducts it now; {then.format(name=name)}" if conductor is None else f"{conductor} obeys"
    typer.echo(f"{name}: {said} is written down; {who}")
