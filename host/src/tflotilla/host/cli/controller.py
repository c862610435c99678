"""`tflotilla controller`: carries every rollout on by itself, for boards that come and go."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import conducting, interrupts, output, selecting
from tflotilla.host.cli import rollout_options as options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.rollouts.controller import Controller
    from tflotilla.host.rollouts.journal.port import Journal, Recorded
    from tflotilla.host.rollouts.rollout import Rollout

_TICK_S = 0.5
_AGAIN_S = 5.0


def controller(
    once: Annotated[
        bool, typer.Option("--once", help="One sweep: do what can be done now, then end. For cron.")
    ] = False,
    forks: options.Forks = None,
    limit_rate: options.LimitRate = None,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Conduct every rollout that nobody else conducts: waves, gates, boards that come back, and undoing.

    A board that was off is served when it says that it is there (its birth message), or at the next try. It may be
    stopped and killed at any moment and goes on where it was; several may run, each rollout has one conductor. With
    --json it writes a line of JSON per event.

    Example: tflotilla controller

    Exit codes: 0 stopped, or the sweep is done; 3 fleet.toml or the journal; 10 the broker refuses us.
    """
    from tflotilla.host.cli import quantities
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.rollouts.journal import database

    loaded = Fleet.load(fleet)
    rate = quantities.bytes_per_second("--limit-rate", limit_rate)
    journal = database.of_fleet(loaded, tell=output.note)
    interrupts.take_the_end_for_one()
    try:
        # One that can't be used at all is said at once; one that goes away later is waited for.
        journal.rollouts()
        _serve(loaded, journal, once=once, forks=forks, limit_rate=rate, as_json=as_json)
    except KeyboardInterrupt:
        output.note("stopped; rollouts stand where they are")
    finally:
        journal.close()


def _serve(
    fleet: Fleet, journal: Journal, *, once: bool, forks: int | None, limit_rate: float | None, as_json: bool
) -> None:
    from tflotilla.shared.contract.errors import BrokerError, InputError

    tell, on_events = (output.note, _write_json) if as_json else (_tell, _write_lines)
    while True:
        try:
            with conducting.controlled(
                fleet, journal, forks=forks, limit_rate=limit_rate, on_events=on_events, tell=tell
            ) as conductors:
                tell(f"controller of {fleet.name}: {len(journal.rollouts())} rollouts known")
                _sweep(conductors, once=once)
                return
        except (BrokerError, InputError) as error:
            if once:
                raise
            # Broker and journal come back: boards keep what they have to say, and what was to be done is written down.
            tell(f"{error}; trying again in {_AGAIN_S:.0f} s")
            time.sleep(_AGAIN_S)


def _tell(line: str) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')} {line}")


def _write_lines(rollout: Rollout, recorded: Sequence[Recorded]) -> None:
    from tflotilla.host.cli import rollout_words

    for line in rollout_words.event_lines(recorded, rollout.plan):
        _tell(f"{rollout.plan.rollout}  {line}")


def _write_json(rollout: Rollout, recorded: Sequence[Recorded]) -> None:
    from tflotilla.host.rollouts import events

    for each in recorded:
        document = {"rollout": rollout.plan.rollout, "number": each.number, "at": each.at, "by": each.by}
        typer.echo(json.dumps({**document, "event": events.to_document(each.event)}, sort_keys=True))


def _sweep(conductors: Controller, *, once: bool) -> None:
    while True:
        conductors.look_around()
        conductors.tick(timeout_s=_TICK_S)
        if once and conductors.rests():
            return
