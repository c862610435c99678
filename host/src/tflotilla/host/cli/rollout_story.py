"""What commands on a rollout share: the fleet's journal, the rollout that is meant, a person's word in both logs."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.rollouts.events import Event
    from tflotilla.host.rollouts.journal.port import Journal
    from tflotilla.host.rollouts.rollout import Rollout

Name = Annotated[str | None, typer.Argument(metavar="[ROLLOUT]", help="Its name; default: the newest.")]


@contextlib.contextmanager
def opened(path: Path | None) -> Iterator[tuple[Fleet, Journal]]:
    """Load the fleet and open its journal for the time of the block."""
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.rollouts.journal import database

    fleet = Fleet.load(path)
    journal = database.of_fleet(fleet, tell=output.note)
    try:
        yield fleet, journal
    finally:
        journal.close()


def found(journal: Journal, rollout: str | None) -> Rollout:
    """Return the rollout of that name, or the newest, as it stands. Raises UsageError when there is none."""
    from tflotilla.host.rollouts.journal import register

    return register.load(journal, rollout or register.latest(journal))


def say(journal: Journal, name: str, action: str, event: Event) -> None:
    """Write a person's word into the audit log and the story."""
    from tflotilla.host.rollouts.journal import register

    audit(journal, name, action)
    journal.append(name, [event], by=register.person(), at=time.time())


def audit(journal: Journal, name: str, action: str, **detail: str) -> None:
    """Write into the audit log what a person did, or wanted."""
    from tflotilla.host.rollouts.journal import register

    journal.audit(action, by=register.person(), at=time.time(), rollout=name, detail=detail)
