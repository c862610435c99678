"""Makes a controller as fleet.toml asks for it: its telemetry, its executor, and what remembers boards it hears of."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.rollouts.controller import Controller
    from tflotilla.host.rollouts.jobs import Executor
    from tflotilla.host.rollouts.journal.port import Journal, Recorded
    from tflotilla.host.rollouts.rollout import Rollout
    from tflotilla.host.rollouts.watcher import Presence, Telemetry


@contextlib.contextmanager
def controlled(
    fleet: Fleet,
    journal: Journal,
    *,
    forks: int | None,
    limit_rate: float | None,
    on_events: Callable[[Rollout, Sequence[Recorded]], None],
    tell: Callable[[str], None],
) -> Iterator[Controller]:
    """Yield a controller that listens to the fleet; at the end it gives its rollouts back."""
    from tflotilla.host.rollouts.controller import Controller

    with _telemetry(fleet) as (heard, hears):
        controller = Controller(
            journal,
            heard,
            executor=_executors(fleet, forks),
            fleet_file=str(fleet.path),
            limit_rate=limit_rate,
            hears=hears,
            on_events=on_events,
            on_presence=_presence(fleet),
            tell=tell,
        )
        try:
            yield controller
        finally:
            controller.close()


@contextlib.contextmanager
def _telemetry(fleet: Fleet) -> Iterator[tuple[Telemetry, Callable[[], bool]]]:
    """Listen to the fleet for the time of the block; yield where reports come from, and whether they can come now."""
    from tflotilla.host.rollouts.watcher import Silence
    from tflotilla.host.telemetry import mqtt
    from tflotilla.shared.contract import topics

    if fleet.mqtt is None:
        yield Silence(), lambda: True
        return
    with mqtt.connect(fleet.mqtt, folder=fleet.folder) as broker:
        broker.subscribe(topics.every_board(fleet.name))
        yield broker, lambda: broker.connected


def _presence(fleet: Fleet) -> Callable[[str, Presence, float], None]:
    """Return what remembers which boards said that they are there, for `not offline`."""
    from tflotilla.host.fleet.inventory import contacts

    return lambda board, status, at: contacts.heard(fleet.state, board, status, at=at)


def _executors(fleet: Fleet, forks: int | None) -> Callable[[], Executor]:
    """Return what makes the executor that fleet.toml asks for."""
    if fleet.rollouts.executor == "celery":
        from tflotilla.host.rollouts.executors.celery import CeleryExecutor

        return lambda: CeleryExecutor(fleet.rollouts.broker or "", forks=forks or fleet.rollouts.forks)
    from tflotilla.host.rollouts.executors.threads import ThreadExecutor

    return lambda: ThreadExecutor(forks=forks or fleet.rollouts.forks)
