"""Hear everything a fleet reports while something else goes on, and count it.

A thread folds messages into a FleetView; `tally` counts predictions by board and bundle, which is how the demo proves
who served when. It does NOT judge: that is the story's business.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tflotilla.host.telemetry import mqtt
from tflotilla.host.telemetry.fleet_view import FleetView, understood
from tflotilla.shared.contract import topics
from tflotilla.shared.contract.messages import Predictions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tflotilla.host.telemetry.inbox import Received
    from tflotilla.shared.contract.agent_config import MqttConfig

_TICK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Predictions so far. Keys are (board, bundle digest)."""

    predictions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    correct: Mapping[tuple[str, str], int] = field(default_factory=dict)
    #: Board → reports that were numbered and never arrived.
    missing: Mapping[str, int] = field(default_factory=dict)

    def since(self, earlier: Tally) -> Tally:
        """Return what was counted between `earlier` and this."""
        return Tally(
            predictions=_difference(self.predictions, earlier.predictions),
            correct=_difference(self.correct, earlier.correct),
            missing={board: count - earlier.missing.get(board, 0) for board, count in self.missing.items()},
        )

    def of_bundle(self, digest: str) -> int:
        """Return the predictions of one bundle on all boards."""
        return sum(count for (_, bundle), count in self.predictions.items() if bundle == digest)

    @property
    def total(self) -> int:
        """All predictions."""
        return sum(self.predictions.values())

    @property
    def accuracy(self) -> float | None:
        """The share that named the class in the file's name; None without predictions."""
        return sum(self.correct.values()) / self.total if self.total else None


def _difference(
    now: Mapping[tuple[str, str], int], earlier: Mapping[tuple[str, str], int]
) -> dict[tuple[str, str], int]:
    counted = {key: count - earlier.get(key, 0) for key, count in now.items()}
    return {key: count for key, count in counted.items() if count}


class Listener:
    """A thread with a broker connection; a context manager. `truth` names the right label of an item."""

    def __init__(self, config: MqttConfig, *, folder: Path, fleet: str, truth: Callable[[str], str]) -> None:
        self._config = config
        self._folder = folder
        self._truth = truth
        self._view = FleetView(fleet=fleet)
        self._predictions: Counter[tuple[str, str]] = Counter()
        self._correct: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._ready = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)

    def __enter__(self) -> Self:
        """Connect and subscribe before anything can be missed. Raises BrokerError."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_details: object) -> None:
        """Stop listening."""
        self._ending.set()
        self._thread.join()

    @property
    def view(self) -> FleetView:
        """The fleet as it is known now."""
        with self._lock:
            return self._view

    @property
    def tally(self) -> Tally:
        """What was counted until now."""
        with self._lock:
            return Tally(
                predictions=dict(self._predictions),
                correct=dict(self._correct),
                missing={name: board.missing for name, board in self._view.boards.items()},
            )

    def wait_until(self, holds: Callable[[FleetView], bool], *, timeout_s: float) -> bool:
        """Wait until the view has come to be as asked; False when it hasn't in time."""
        deadline = time.monotonic() + timeout_s
        while not holds(self.view):
            if time.monotonic() > deadline:
                return False
            time.sleep(_TICK_S)
        return True

    def _listen(self) -> None:
        try:
            with mqtt.connect(self._config, folder=self._folder) as broker:
                broker.subscribe(topics.every_board(self._view.fleet))
                self._ready.set()
                while not self._ending.is_set():
                    received = broker.receive(timeout_s=_TICK_S)
                    self._count(received)
        except Exception as error:  # noqa: BLE001 - carried to the thread that waits for it
            self._failure = error
        finally:
            self._ready.set()

    def _count(self, received: tuple[Received, ...]) -> None:
        with self._lock:
            for each in received:
                before = self._view.boards
                self._view = self._view.folding([(each.topic, each.payload, each.at)])
                message = understood(each.topic, each.payload)
                if message is None or not isinstance(message.body, Predictions) or message.bundle is None:
                    continue
                known = before.get(message.board)
                if known and self._view.boards[message.board].duplicates > known.duplicates:
                    continue  # delivered twice
                key = (message.board, message.bundle)
                for result in message.body.results:
                    self._predictions[key] += 1
                    self._correct[key] += bool(result.top) and result.top[0].label == self._truth(result.item)
