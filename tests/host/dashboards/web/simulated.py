"""A fleet that isn't there, as its boards' messages: what the page is made, shown and measured with.

Seeded: the same seed tells the same story. A few boards have something wrong, so that there is something to see.
"""

from __future__ import annotations

import base64
import io
import random
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from tests import facts_made
from tests.facts_made import LITERT, TFLITE
from tflotilla.host.telemetry.inbox import Received
from tflotilla.shared import sketches
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.board import ServedBundle
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.manifest import EvaluationSummary, Reference
from tflotilla.shared.contract.messages import (
    Availability,
    Candidate,
    DelegateReport,
    LabelCount,
    Message,
    Metrics,
    ModelCard,
    Prediction,
    Predictions,
    StageLatency,
    State,
    Thumbnail,
)
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tflotilla.shared.contract.topics import Channel

OLD, NEW = "cd" * 32, "ab" * 32
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "<b>nine</b>")
_STAGES = {"decode": 0.9, "preprocess": 0.35, "invoke": 4.2, "postprocess": 0.08}
_PER_WINDOW = 20
_REFERENCE = Reference(
    samples=2000, labels=dict.fromkeys(LABELS, 200), scores=(0, 0, 4, 16, 40, 80, 160, 300, 500, 900)
)
CARDS = {
    OLD: ModelCard(
        digest=OLD,
        name="digits",
        version="1.0.0",
        release=1,
        scheme=QuantizationScheme.INT8,
        size_bytes=412_000,
        evaluation=EvaluationSummary(
            samples=2000, accuracy=0.957, runtime="ai-edge-litert==2.3.0", float_accuracy=0.962
        ),
        reference=_REFERENCE,
    ),
    NEW: ModelCard(
        digest=NEW,
        name="digits",
        version="2.0.0",
        release=2,
        scheme=QuantizationScheme.INT8,
        size_bytes=298_000,
        evaluation=EvaluationSummary(
            samples=2000, accuracy=0.969, runtime="ai-edge-litert==2.3.0", float_accuracy=0.974
        ),
        reference=_REFERENCE,
    ),
}


def names(boards: int) -> list[str]:
    """Return the boards' names."""
    return [f"pi-{number:03d}" for number in range(1, boards + 1)]


def labels(number: int) -> dict[str, str]:
    """Return a board's labels."""
    return {
        "site": ("north", "south", "lab")[number % 3],
        "room": ("kitchen", "hall", "roof", "cellar")[number % 4],
        "gen": ("4", "5", "zero2w")[number % 3],
    }


class Board:
    """One board; `number` counts from 0 and decides what is wrong with it."""

    def __init__(self, name: str, number: int, *, fleet: str, seed: int = 0, predictions: bool = True) -> None:
        self.name = name
        self.number = number
        self._fleet = fleet
        self._dice = random.Random(seed * 100_003 + number)  # noqa: S311 - a simulation
        self._predictions = predictions
        self._seq = 0
        self.bundle = NEW if number % 5 == 0 else OLD
        self.trouble = {3: "offline", 7: "failing", 11: "throttled", 13: "slow", 17: "errors", 19: "silent"}.get(number)
        self._speed = (1.0, 0.6, 2.4)[number % 3] * (2.5 if self.trouble == "slow" else 1.0)

    def births(self, now: float) -> Iterator[Received]:
        """Yield what a board says when it comes, as the broker keeps it."""
        offline = self.trouble == "offline"
        yield self._said(
            "availability", Availability(status="offline" if offline else "online"), now, seq=0, old=offline
        )
        yield self._said("state", self._state(now), now, seq=0, old=offline)
        yield self._said("model", CARDS[self.bundle], now, seq=0, old=offline)
        if self.number % 6 == 1:
            deployment = DeploymentStatus(
                deployment=f"{self.name}-d1",
                candidate=self.bundle,
                title="digits-1.0.0",
                state=DeploymentState.SUCCEEDED,
                detail="probed in 2.1 s",
            )
            yield self._said("deployment", deployment, now - 3600)
        if self.trouble == "slow":
            undone = DeploymentStatus(
                deployment=f"{self.name}-d2",
                candidate=NEW,
                title="digits-2.0.0",
                state=DeploymentState.ROLLED_BACK,
                detail="p99 is 6.2 times that of the bundle before",
                error="ProbeError",
            )
            yield self._said("deployment", undone, now - 600)
        if self.number == 23:
            probing = DeploymentStatus(
                deployment=f"{self.name}-d3",
                candidate=NEW,
                title="digits-2.0.0",
                state=DeploymentState.PROBING,
                detail="goldens 5 of 8",
            )
            yield self._said("deployment", probing, now)

    def window(self, now: float) -> Iterator[Received]:
        """Yield what a board says in a second."""
        if self.trouble in ("offline", "failing", "silent"):
            return
        answers = [self._prediction(now - 1 + step / _PER_WINDOW) for step in range(_PER_WINDOW)]
        yield self._said("metrics", self._metrics(answers), now)
        if self._predictions:
            yield self._said("predictions", Predictions(results=tuple(answers)), now)
        if self._dice.random() < 0.01:
            event = messages.Event(level="warning", kind="source", message="the camera gave no frame for 2.0 s")
            yield self._said("event", event, now)

    def picture(self, now: float) -> Received:
        """Return a thumbnail of what it saw."""
        answer = self._prediction(now)
        picture = Image.new("RGB", (96, 96), (30 + self.number * 5 % 60, 44, 60))
        ImageDraw.Draw(picture).text((30, 14), str(self._dice.randrange(10)), fill=(240, 240, 230), font_size=64)
        written = io.BytesIO()
        picture.save(written, "JPEG", quality=70)
        jpeg = base64.b64encode(written.getvalue()).decode()
        return self._said("thumbnail", Thumbnail(item=answer.item, time=now, jpeg=jpeg, top=answer.top), now, seq=0)

    def benchmarked(self) -> None:
        """Nothing: what is asked of a simulated board is only counted by who asks."""

    def _said(self, channel: Channel, body: Any, now: float, *, seq: int | None = None, old: bool = False) -> Received:  # noqa: ANN401
        if seq is None:
            self._seq += 1
            seq = self._seq
        said = Message(
            board=self.name, boot="boot-1", seq=seq, time=now - (7200 if old else 0), bundle=self.bundle, body=body
        )
        topic = topics.topic(self._fleet, self.name, channel)
        return Received(topic=topic, payload=said.to_bytes(), at=now, retained=channel in topics.RETAINED)

    def _state(self, now: float) -> State:
        card = CARDS[self.bundle]
        old_runtime = self.number % 4 == 0
        wants_tpu = self.number % 9 == 2
        served = ServedBundle(digest=card.digest, name=card.name, version=card.version, release=card.release)
        return State(
            agent_version="0.4.0",
            facts=facts_made.facts(time=now, hostname=self.name, ram_bytes=(1 + self.number % 4) << 30),
            serving=served,
            previous=None,
            worker="failing" if self.trouble == "failing" else "running",
            runtime=TFLITE if old_runtime else LITERT,
            num_threads=1 + self.number % 4,
            delegate=DelegateReport(
                requested="libedgetpu.so.1" if wants_tpu else None,
                active=None,
                reason="no device found" if wants_tpu else None,
            ),
            source="folder",
            uptime_s=86400.0 * (1 + self.number % 9),
            outbox_rows=self.number % 3,
            outbox_dropped=0,
            problem="worker died 5 times in 60 s (SIGSEGV)" if self.trouble == "failing" else None,
            inference=InferenceConfig(num_threads=1 + self.number % 4),
            reporting=True,
        )

    def _prediction(self, at: float) -> Prediction:
        best = int(self._dice.triangular(0, 10, 1 + self.number % 8)) % 10
        score = min(0.999, max(0.2, self._dice.gauss(0.86, 0.12)))
        second = (best + 1 + self._dice.randrange(8)) % 10
        stages = {
            stage: int(usual * 1e6 * self._speed * self._dice.lognormvariate(0, 0.08))
            for stage, usual in _STAGES.items()
        }
        stages["total"] = sum(stages.values()) + 20_000
        top = (
            Candidate(label=LABELS[best], index=best, score=round(score, 4)),
            Candidate(label=LABELS[second], index=second, score=round((1 - score) * 0.7, 4)),
        )
        return Prediction(item=f"frame-{int(at * 20)}.jpg", time=at, stages_ns=stages, top=top)

    def _metrics(self, answers: list[Prediction]) -> Metrics:
        taken: Mapping[str, Any] = {
            stage: np.array([answer.stages_ns[stage] for answer in answers], dtype=np.int64)
            for stage in answers[0].stages_ns
        }
        won: dict[str, list[float]] = {}
        scores = [0] * 10
        for answer in answers:
            won.setdefault(answer.top[0].label, []).append(answer.top[0].score)
            scores[min(9, int(answer.top[0].score * 10))] += 1
        throttled = self.trouble == "throttled"
        return Metrics(
            window_s=1.0,
            count=len(answers),
            errors=3 if self.trouble == "errors" else 0,
            dropped=0,
            stages={stage: _latency(values) for stage, values in taken.items()},
            labels=tuple(
                LabelCount(
                    label=label, count=len(found), mean_score=float(np.mean(found)), std_score=float(np.std(found))
                )
                for label, found in won.items()
            ),
            rss_bytes=58 << 20,
            temperature_c=round((83.0 if throttled else 48.0 + self.number % 17) + self._dice.gauss(0, 0.3), 1),
            scores=tuple(scores),
            low_confidence=sum(answer.top[0].score < 0.5 for answer in answers),
            throttled=throttled,
        )


def _latency(values: Any) -> StageLatency:  # noqa: ANN401 - an array
    p50, p90, p99 = (int(np.percentile(values, percent, method="inverted_cdf")) for percent in (50, 90, 99))
    return StageLatency(
        count=int(values.size),
        mean_ns=float(values.mean()),
        min_ns=int(values.min()),
        p50_ns=p50,
        p90_ns=p90,
        p99_ns=p99,
        max_ns=int(values.max()),
        sketch=sketches.of(values),
    )
