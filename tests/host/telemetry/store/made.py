"""Messages of boards, made for tests of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tflotilla.host.telemetry.store.port import Arrival
from tflotilla.shared import sketches
from tflotilla.shared.contract.messages import LabelCount, Message, Metrics, StageLatency

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Noon, so that spans before and after it are easily told.
NOON = 1_750_075_200.0
DIGEST = "sha256:" + "a" * 64


def metrics(
    latencies_ns: Sequence[int] = (1_000_000,), *, label: str = "cat", errors: int = 0, score: float = 0.75
) -> Metrics:
    """Return a window with these latencies, all won by one label."""
    values = np.array(latencies_ns, dtype=np.int64)
    ordered = np.sort(values)
    latency = StageLatency(
        count=len(values),
        mean_ns=float(values.mean()),
        min_ns=int(ordered[0]),
        p50_ns=int(ordered[len(values) // 2]),
        p90_ns=int(ordered[-1]),
        p99_ns=int(ordered[-1]),
        max_ns=int(ordered[-1]),
        sketch=sketches.of(values),
    )
    bins = tuple(len(values) if number == int(score * 10) else 0 for number in range(10))
    return Metrics(
        window_s=1.0,
        count=len(values),
        errors=errors,
        dropped=0,
        stages={"total": latency},
        labels=(LabelCount(label=label, count=len(values), mean_score=score, std_score=0.1),),
        rss_bytes=50 << 20,
        temperature_c=51.5,
        scores=bins,
        low_confidence=0,
        throttled=False,
    )


def arrival(
    seq: int,
    *,
    board: str = "pi-1",
    boot: str = "boot-a",
    at: float = NOON,
    time: float | None = None,
    bundle: str | None = DIGEST,
    body: Metrics | None = None,
) -> Arrival:
    """Return metrics as they arrived."""
    time = at if time is None else time
    message = Message(board=board, boot=boot, seq=seq, time=time, bundle=bundle, body=body or metrics())
    return Arrival(
        board=board,
        boot=boot,
        seq=seq,
        channel="metrics",
        time=time,
        at=at,
        bundle=bundle,
        payload=message.to_bytes(),
    )
