"""Whether percentiles of a fleet are right, and what keeping its reports costs: through the real store, on a disk.

Percentiles: 1,000 boards × 1 hour, a window a minute, one inference a second, all samples kept beside them. Boards
differ, drift with the hour, and have tails: what an average of the boards' percentiles gets wrong is shown.
Cost: 10,000 boards that report a window each second, in batches as a collector writes them; processor time of this
process, and what summing up takes on top. What it does NOT measure: MQTT (`collector` does).
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tflotilla.host.telemetry.store import database, history
from tflotilla.host.telemetry.store.port import Arrival
from tflotilla.shared import sketches
from tflotilla.shared.contract.messages import LabelCount, Message, Metrics, StageLatency

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

LIMIT = 0.01
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
BOARDS = 1000
_MINUTES, _PER_MINUTE = 60, 60
_BEGIN = 1_750_075_200.0
_DIGEST = "sha256:" + "a" * 64
#: A fleet whose boards say so much that a collector needs a good part of a core.
MANY_BOARDS, RATE = 10_000, 10_000
_SECONDS, _BATCHES_A_SECOND = 20, 4
LIMIT_APPEND, LIMIT_ALL = 0.25, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """One percentile of `invoke`, in milliseconds: of all samples, of the store, and as an average of the boards'."""

    percent: float
    exact_ms: float
    stored_ms: float
    averaged_ms: float

    @property
    def error(self) -> float:
        """How far off the store's is."""
        return abs(self.stored_ms / self.exact_ms - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketches:
    """What came out; shares are of one core at 10,000 messages a second."""

    samples: int
    percentiles: tuple[Percentile, ...]
    message_bytes: float
    append_share: float
    summing_share: float
    #: The longest that one batch of a quarter of a second took, nobody summing up.
    slowest_batch_s: float

    @property
    def is_right(self) -> bool:
        """Whether the percentiles' promise holds."""
        return all(each.error <= LIMIT for each in self.percentiles)

    @property
    def is_cheap(self) -> bool:
        """Whether the costs' promise holds."""
        return self.append_share < LIMIT_APPEND and self.append_share + self.summing_share < LIMIT_ALL


def measure(folder: Path, *, boards: int = BOARDS) -> Sketches:
    """Fill two stores in a folder and ask them."""
    folder.mkdir()
    samples, percentiles = _right(folder / "right.db", boards)
    message_bytes, append_s, summing_s, slowest_s = _cheap(folder / "cheap.db")
    return Sketches(
        samples=samples,
        percentiles=percentiles,
        message_bytes=message_bytes,
        append_share=append_s * RATE,
        summing_share=summing_s * RATE,
        slowest_batch_s=slowest_s,
    )


def _window(stages: dict[str, npt.NDArray[np.int64]]) -> Metrics:
    count = max(values.size for values in stages.values())
    found = {}
    for stage, values in stages.items():
        at = np.sort(values)
        found[stage] = StageLatency(
            count=values.size,
            mean_ns=round(float(values.mean())),
            min_ns=int(at[0]),
            p50_ns=int(at[values.size // 2]),
            p90_ns=int(at[int(values.size * 0.9)]),
            p99_ns=int(at[int(values.size * 0.99)]),
            max_ns=int(at[-1]),
            sketch=sketches.of(values),
        )
    return Metrics(
        window_s=float(count),
        count=count,
        errors=0,
        dropped=0,
        stages=found,
        labels=(LabelCount(label="cat", count=count, mean_score=0.75, std_score=0.1),),
        rss_bytes=60 << 20,
        temperature_c=55.5,
        scores=(0, 0, 0, 0, 0, 0, 0, count, 0, 0),
        low_confidence=0,
        throttled=False,
    )


def _arrival(board: str, seq: int, at: float, body: Metrics) -> Arrival:
    payload = Message(board=board, boot="boot", seq=seq, time=at, bundle=_DIGEST, body=body).to_bytes()
    return Arrival(
        board=board, boot="boot", seq=seq, channel="metrics", time=at, at=at, bundle=_DIGEST, payload=payload
    )


def _right(file: Path, boards: int) -> tuple[int, tuple[Percentile, ...]]:
    chance = np.random.default_rng(2019)
    medians = chance.lognormal(np.log(20e6), 0.4, boards)
    samples = np.empty((boards, _MINUTES, _PER_MINUTE), dtype=np.int64)
    with database.open_store(str(file)) as store:
        for minute in range(_MINUTES):
            # They get warmer, and one inference in fifty meets something else that runs.
            warm = 1 + 0.3 * minute / _MINUTES
            values = medians[:, None] * warm * chance.lognormal(0, 0.08, (boards, _PER_MINUTE))
            values *= np.where(chance.random(values.shape) < 0.02, chance.pareto(2.5, values.shape) + 1.5, 1.0)
            samples[:, minute] = values
            at = _BEGIN + 60 * minute + 59
            store.append(
                [
                    _arrival(f"pi-{number:04}", minute + 1, at, _window({"invoke": samples[number, minute]}))
                    for number in range(boards)
                ]
            )
            store.maintain(now=at + 1)
        answer = history.ask(store, history.Question(since=_BEGIN, until=_BEGIN + 3600))
        each = history.ask(store, history.Question(since=_BEGIN, until=_BEGIN + 3600, by=("board",)))
    ordered = np.sort(samples, axis=None)
    found = []
    for percent in PERCENTILES:
        exact = float(ordered[int(np.ceil(percent / 100 * ordered.size)) - 1])
        of_boards = [group.sums.percentile("invoke", percent) or 0.0 for group in each.groups]
        found.append(
            Percentile(
                percent=percent,
                exact_ms=exact / 1e6,
                stored_ms=(answer.groups[0].sums.percentile("invoke", percent) or 0.0) / 1e6,
                averaged_ms=sum(of_boards) / len(of_boards) / 1e6,
            )
        )
    return ordered.size, tuple(found)


def _cheap(file: Path) -> tuple[float, float, float, float]:
    """Return bytes of a message, processor seconds of appending one and of summing one up, and the slowest batch."""
    chance = np.random.default_rng(7)
    names = [f"pi-{number:05}" for number in range(MANY_BOARDS)]
    stages = {"decode": 3e6, "preprocess": 1e6, "invoke": 20e6, "postprocess": 2e5, "total": 24e6}
    bodies = [
        _window({stage: chance.lognormal(np.log(ns), 0.05, 10).astype(np.int64) for stage, ns in stages.items()})
        for _ in range(500)
    ]
    payloads = [_arrival("pi-00000", 1, _BEGIN, body).payload for body in bodies]
    part = MANY_BOARDS // _BATCHES_A_SECOND
    append_s, slowest_s = 0.0, 0.0
    with database.open_store(str(file)) as store:
        for step in range(_SECONDS * _BATCHES_A_SECOND):
            second, quarter = divmod(step, _BATCHES_A_SECOND)
            at = _BEGIN + second
            batch = [
                Arrival(
                    board=name,
                    boot="boot",
                    seq=second + 1,
                    channel="metrics",
                    time=at,
                    at=at,
                    bundle=_DIGEST,
                    payload=payloads[(number + step) % len(payloads)],
                )
                for number, name in enumerate(names[quarter * part : (quarter + 1) * part])
            ]
            gc.collect()
            began, clock = time.process_time(), time.perf_counter()
            store.append(batch)
            append_s += time.process_time() - began
            slowest_s = max(slowest_s, time.perf_counter() - clock)
        began = time.process_time()
        while store.maintain(now=_BEGIN + 60).more:
            pass
        summing_s = time.process_time() - began
    rows = _SECONDS * MANY_BOARDS
    return float(np.mean([len(payload) for payload in payloads])), append_s / rows, summing_s / rows, slowest_s
