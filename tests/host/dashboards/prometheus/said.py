"""What boards say, for tests of what is made of it: windows of given latencies, numbered, in a fold of their own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.host.telemetry import fake_board
from tflotilla.host.dashboards.bridges import News
from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
from tflotilla.host.telemetry.inbox import Received
from tflotilla.host.telemetry.live import Live
from tflotilla.shared import sketches
from tflotilla.shared.contract import messages, topics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tflotilla.shared.contract.messages import Message

FLEET = "barn"
DIGEST = "ab" * 32


def latency(values_ns: Sequence[int]) -> messages.StageLatency:
    values = np.sort(np.asarray(values_ns, dtype=np.int64))
    p50, p90, p99 = (int(np.percentile(values, q, method="inverted_cdf")) for q in (50, 90, 99))
    return messages.StageLatency(
        count=values.size,
        mean_ns=float(values.mean()),
        min_ns=int(values[0]),
        p50_ns=p50,
        p90_ns=p90,
        p99_ns=p99,
        max_ns=int(values[-1]),
        sketch=sketches.of(values),
    )


def window(values_ns: Sequence[int] = (2_000_000,) * 10, **changes: Any) -> messages.Metrics:  # noqa: ANN401
    values: dict[str, Any] = {
        "window_s": 1.0,
        "count": len(values_ns),
        "errors": 0,
        "dropped": 0,
        "stages": {stage: latency(values_ns) for stage in ("decode", "preprocess", "invoke", "postprocess", "total")},
        "labels": (messages.LabelCount(label="seven", count=len(values_ns), mean_score=0.95),),
        "rss_bytes": 50 << 20,
        "temperature_c": 61.5,
        "scores": (0, 0, 0, 0, 0, 0, 0, 0, 0, len(values_ns)),
        "low_confidence": 0,
        "throttled": False,
    }
    return messages.Metrics(**{**values, **changes})


class Said:
    """A fleet that speaks: `say` folds, `news` gives what was new since the last time."""

    def __init__(self, folder: Path, *boards: str, labels: Mapping[str, str] | None = None) -> None:
        self.fleet = Fleet.create(folder / "fleet.toml", name=FLEET)
        for board in boards:
            entry = BoardEntry(host="127.0.0.1", labels=labels or {})
            self.fleet = self.fleet.add(board, entry, "127.0.0.1 ssh-ed25519 AAAA")
        self.live = Live(FLEET, known=tuple(boards))
        self.numbers = itertools.count(1)
        self._new: list[Message[Any]] = []

    def payload(self, board: str, body: Any, *, bundle: str | None = DIGEST, seq: int = 0) -> bytes:  # noqa: ANN401
        return messages.Message(board=board, boot="boot-1", seq=seq, time=1000.0, bundle=bundle, body=body).to_bytes()

    def say(
        self,
        board: str,
        body: Any,  # noqa: ANN401 - any body
        *,
        bundle: str | None = DIGEST,
        seq: int | None = None,
        at: float = 1000.0,
        retained: bool = False,
    ) -> None:
        channel = next(name for name, kind in messages.BODIES.items() if kind is type(body))
        numbered = channel not in topics.MOMENTARY
        number = (next(self.numbers) if seq is None else seq) if numbered else 0
        payload = self.payload(board, body, bundle=bundle, seq=number)
        topic = f"tflotilla/{FLEET}/{board}/{channel}"
        self._new += self.live.hear([Received(topic=topic, payload=payload, at=at, retained=retained)])

    def hello(self, board: str) -> None:
        self.say(board, messages.Availability(status="online"))
        self.say(board, fake_board.state())

    def news(self, now: float = 1000.0, **changes: Any) -> News:  # noqa: ANN401 - any field
        new, self._new = self._new, []
        return News(**{"now": now, "fleet": self.fleet, "messages": new, **changes})
