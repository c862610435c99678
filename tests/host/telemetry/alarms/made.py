"""A board's messages as they arrive, for tests of whatever is fed with them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.host.telemetry import fake_board
from tflotilla.host.telemetry.inbox import Received
from tflotilla.shared import sketches
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from tflotilla.shared.contract.manifest import Reference

FLEET = "barn"
BUNDLE = "ab" * 32
MS = 1_000_000


def latency(*values_ms: float) -> messages.StageLatency:
    """Return the latency of some runs, with its sketch."""
    values = np.array([value * MS for value in values_ms], dtype=np.int64)
    made = fake_board.latency(int(np.median(values)), len(values))
    return dataclasses.replace(made, sketch=sketches.of(values))


def window(*values_ms: float, labels: dict[str, int] | None = None, **changes: Any) -> messages.Metrics:  # noqa: ANN401
    """Return a window of runs that took so long."""
    values_ms = values_ms or (5.0,) * 200
    counted = {"seven": len(values_ms)} if labels is None else labels
    made = dataclasses.replace(
        fake_board.metrics(len(values_ms)),
        stages={"total": latency(*values_ms)},
        labels=tuple(messages.LabelCount(label=label, count=count, mean_score=0.9) for label, count in counted.items()),
        scores=(0,) * 9 + (len(values_ms),),
    )
    return dataclasses.replace(made, **changes)


def card(reference: Reference | None) -> messages.ModelCard:
    """Return what serves."""
    return messages.ModelCard(
        digest=BUNDLE,
        name="digits",
        version="1.0.0",
        release=1,
        scheme=QuantizationScheme.INT8,
        size_bytes=1,
        reference=reference,
    )


@dataclasses.dataclass(kw_only=True)
class Speaker:
    """One board; numbers what it says."""

    board: str = "pi-1"
    boot: str = "boot-1"
    #: How far its clock is from ours.
    ahead_s: float = 0.0
    seq: int = 0

    def says(
        self,
        channel: topics.Channel,
        body: Any,  # noqa: ANN401 - any body
        *,
        at: float,
        done_at: float | None = None,
        bundle: str = BUNDLE,
        retained: bool = False,
    ) -> Received:
        """Return a message as it arrives at `at`, having been written at `done_at`."""
        numbered = channel not in topics.MOMENTARY
        self.seq += numbered
        message = messages.Message(
            board=self.board,
            boot=self.boot,
            seq=self.seq if numbered else 0,
            time=(at if done_at is None else done_at) + self.ahead_s,
            bundle=bundle,
            body=body,
        )
        return Received(
            topic=topics.topic(FLEET, self.board, channel), payload=message.to_bytes(), at=at, retained=retained
        )

    def is_online(self, at: float) -> Received:
        """Return its birth."""
        return self.says("availability", messages.Availability(status="online"), at=at, retained=True)

    def is_offline(self, at: float) -> Received:
        """Return its last will."""
        return self.says("availability", messages.Availability(status="offline"), at=at, done_at=0.0, retained=True)
