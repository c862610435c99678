"""What boards say over MQTT. One envelope, one body per channel; JSON; full text: docs/contract.md.

A board numbers what it reports: (board, boot, seq) names a message for ever, so a receiver can drop duplicates and
count gaps exactly. `boot` is new each time the agent starts; seq counts from 1 within it, over all channels that go
through the outbox. `availability` and `state` describe the present, carry seq 0 and are not queued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from tflotilla.shared.contract import codec, topics
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.benchmark import BenchmarkReport, BenchmarkRequest
from tflotilla.shared.contract.board import BoardFacts, RuntimeOffer
from tflotilla.shared.contract.board import ServedBundle as ServedBundle  # noqa: PLC0414 - it is said here too
from tflotilla.shared.contract.deployment import DeploymentStatus
from tflotilla.shared.contract.errors import ContractError

SCHEMA = 1
#: The stages of one inference, in order; `total` is from the start of the first to the end of the last.
Stage = Literal["decode", "preprocess", "invoke", "postprocess", "total"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """`offline` is the last will."""

    status: Literal["online", "offline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegateReport:
    """What was asked for and what runs; `reason` says why they differ."""

    requested: str | None
    active: str | None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the board is doing now (retained)."""

    agent_version: str
    facts: BoardFacts
    serving: ServedBundle | None
    previous: ServedBundle | None
    worker: Literal["none", "starting", "running", "failing"]
    runtime: RuntimeOffer | None
    num_threads: int
    delegate: DelegateReport
    source: str
    uptime_s: float
    outbox_rows: int
    outbox_dropped: int
    #: Why the worker fails, when it does.
    problem: str | None = None
    #: How the worker runs the model: what agent.toml says, or what tuning found and a deployment brought.
    inference: InferenceConfig | None = None
    #: Whether the broker took a report of this run of the agent; None from agents that don't say.
    reporting: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLatency:
    """Latency of one stage over a window, in nanoseconds."""

    count: int
    mean_ns: float
    min_ns: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    max_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCount:
    """How often a label won in a window, and how sure the model was."""

    label: str
    count: int
    mean_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """One window of a worker's life."""

    window_s: float
    count: int
    #: Inferences that failed.
    errors: int
    #: Results made and thrown away, because the supervisor did not take them in time.
    dropped: int
    stages: Mapping[str, StageLatency]
    labels: tuple[LabelCount, ...]
    rss_bytes: int
    temperature_c: float | None = None
    #: Inputs that could not be read, empty or broken pictures say: not the model's doing, so no gate counts them.
    unreadable: int = 0
    #: How many winners had a score in [0, 0.1), [0.1, 0.2), … [0.9, 1]; empty from agents before this.
    scores: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One entry of an answer; `box` is (ymin, xmin, ymax, xmax) in 0..1 for detections."""

    label: str
    index: int
    score: float
    box: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One inference. `time` is Unix seconds at its end; stages in nanoseconds."""

    item: str
    time: float
    stages_ns: Mapping[str, int]
    top: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Every inference of a window, in order."""

    results: tuple[Prediction, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRequest:
    """Sent to `command/state`: publish the state now."""

    request: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something a person may want to know."""

    level: Literal["info", "warning", "error"]
    kind: str
    message: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Sent by a collector: everything of `boot` up to and including seq `up_to` is stored durably.

    `boot` is the board's, and stands in the message in place of the collector's own.
    """

    boot: str
    up_to: int


Body = Availability | State | DeploymentStatus | Metrics | Predictions | BenchmarkReport | Event | Ack
B = TypeVar("B")

#: The body of each channel.
BODIES: Mapping[str, type[Any]] = {
    "availability": Availability,
    "state": State,
    "deployment": DeploymentStatus,
    "metrics": Metrics,
    "predictions": Predictions,
    "benchmark": BenchmarkReport,
    "event": Event,
    "ack": Ack,
    "command/benchmark": BenchmarkRequest,
    "command/state": StateRequest,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Generic[B]):
    """An envelope with its body. `bundle` is the digest that served when it was written."""

    board: str
    boot: str
    seq: int
    time: float
    bundle: str | None
    body: B

    def to_bytes(self) -> bytes:
        """Serialize flat: the envelope's and the body's keys side by side.

        Where both have one, the body's counts: an Ack's `boot`, a BenchmarkRequest's `bundle`.
        """
        envelope = {
            "schema": SCHEMA,
            "board": self.board,
            "boot": self.boot,
            "seq": self.seq,
            "time": self.time,
            "bundle": self.bundle,
        }
        return codec.canonical_json(envelope | codec.encode(self.body))


def parse(topic: str, payload: bytes) -> tuple[topics.Address, Message[Any]]:
    """Read one MQTT message.

    Raises:
        ContractError: the topic is not ours, the payload not of this contract, or the board in the body is not the
            board in the topic.

    """
    address = topics.parse(topic)
    if address is None:
        message = f"{topic[:120]!r} is not a topic of this contract"
        raise ContractError(message)
    document = codec.parse_json(payload, topic)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        message = f"{topic}: not a message of schema {SCHEMA}"
        raise ContractError(message)
    envelope = codec.decode(_Envelope, document, topic)
    if envelope.board != address.board:
        message = f"{topic}: the message says it is from board {envelope.board[:80]!r}"
        raise ContractError(message)
    body = codec.decode(BODIES[address.channel], document, topic)
    return address, Message(
        board=envelope.board,
        boot=envelope.boot,
        seq=envelope.seq,
        time=envelope.time,
        bundle=envelope.bundle,
        body=body,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Envelope:
    board: str
    boot: str
    seq: int
    time: float
    bundle: str | None = None
