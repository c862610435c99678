"""What boards say over MQTT. One envelope, one body per channel; JSON; full text: docs/contract.md.

A board numbers what it reports: (board, boot, seq) names a message for ever, so a receiver can drop duplicates and
count gaps exactly. `boot` is new each time the agent starts; seq counts from 1 within it, over all channels that go
through the outbox. `availability`, `state`, `model`, `thumbnail` and `flat` describe the present, carry seq 0 and are
not queued.
"""

from __future__ import annotations

import itertools
import math
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
from tflotilla.shared.contract.manifest import EvaluationSummary, Reference
from tflotilla.shared.contract.tensors import QuantizationScheme

SCHEMA = 1
#: What every reader of JSON takes for a whole number.
_GREATEST_SEQ = (1 << 53) - 1
#: So many ranges go into one Ack: a board reads it between two inferences.
ACK_RANGES = 10_000
#: Finer is no sketch but a list, coarser says nothing.
_LEAST_RELATIVE_ERROR, _MOST_RELATIVE_ERROR = 1e-4, 0.5
_LOG_OF_2_63 = 63 * math.log(2)
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
class LatencySketch:
    """Latencies that can be added up: a DDSketch (Masson, Rim, Lee: VLDB 2019) with logarithmic buckets.

    With g = (1 + e) / (1 - e), e being `relative_error`, bucket i counts the values in (g^(i-1), g^i] nanoseconds; any
    percentile that is read from it is within e of the value of that rank, whatever was merged into it.
    """

    relative_error: float
    #: Of the buckets that are not empty, ascending; `counts` are theirs.
    indices: tuple[int, ...]
    counts: tuple[int, ...]
    #: Values of zero have no logarithm.
    zeros: int = 0

    def __post_init__(self) -> None:
        """Refuse what no sketch is: merging it would spoil the others. Raises ValueError."""
        if not _LEAST_RELATIVE_ERROR <= self.relative_error <= _MOST_RELATIVE_ERROR:
            message = f"relative_error must be 0.0001..0.5, it is {self.relative_error}"
            raise ValueError(message)
        if len(self.indices) != len(self.counts) or self.zeros < 0 or any(count <= 0 for count in self.counts):
            message = "indices and counts must be as many, and counts above 0"
            raise ValueError(message)
        if any(a >= b for a, b in itertools.pairwise(self.indices)):
            message = "indices must ascend"
            raise ValueError(message)
        log_gamma = math.log((1 + self.relative_error) / (1 - self.relative_error))
        if self.indices and (self.indices[0] < 0 or (self.indices[-1] - 1) * log_gamma > _LOG_OF_2_63):
            message = "indices must be of latencies from 1 to 2^63 ns"
            raise ValueError(message)


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
    #: None from agents before it. The percentiles beside it are exact; only this may be added up.
    sketch: LatencySketch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCount:
    """How often a label won in a window, and how sure the model was."""

    label: str
    count: int
    mean_score: float
    #: Standard deviation over the window, of the population; None from agents before it.
    std_score: float | None = None


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
    #: Winners whose score was below `reporting.low_confidence_below`; None from agents before it.
    low_confidence: int | None = None
    #: Whether the board is slowed down now (heat, voltage); None where it can't be told.
    throttled: bool | None = None
    #: Some of the window's answers, drawn at random, for those who don't want all (`reporting.sample`).
    sample: tuple[Prediction, ...] = ()


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
class ModelCard:
    """What serves, as its manifest describes it (retained): who listens needs no bundle to know what to expect."""

    digest: str
    name: str
    version: str
    release: int
    scheme: QuantizationScheme
    size_bytes: int
    evaluation: EvaluationSummary | None = None
    reference: Reference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """What the model looked at a moment ago, small, and what it said; where `reporting.thumbnail_every_s` allows."""

    item: str
    time: float
    #: JPEG, base64.
    jpeg: str
    top: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat:
    """A window as plain numbers, for consumers that take nothing else; what isn't known is left out.

    Derived from the Metrics of the same window, which stays the truth: percentiles of windows don't add up.
    """

    window_s: float
    count: int
    errors: int
    unreadable: int
    dropped: int
    inferences_per_second: float
    rss_mib: float
    decode_p50_ms: float | None = None
    decode_p99_ms: float | None = None
    preprocess_p50_ms: float | None = None
    preprocess_p99_ms: float | None = None
    invoke_p50_ms: float | None = None
    invoke_p90_ms: float | None = None
    invoke_p99_ms: float | None = None
    postprocess_p50_ms: float | None = None
    postprocess_p99_ms: float | None = None
    total_p50_ms: float | None = None
    total_p90_ms: float | None = None
    total_p99_ms: float | None = None
    #: Of all winners of the window.
    mean_score: float | None = None
    top_label_share: float | None = None
    low_confidence_share: float | None = None
    temperature_c: float | None = None
    #: 0 or 1.
    throttled: int | None = None


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
    """Sent by a collector: of `boot`, all up to and including seq `up_to` is stored durably, and what is in `also`.

    `also` holds ranges (first, last) of numbers: collectors that share the work, or that began late, can't say "all up
    to". `boot` is the board's, and stands in the message in place of the collector's own.
    """

    boot: str
    up_to: int
    also: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what names no reports. Raises ValueError."""
        if not 0 <= self.up_to <= _GREATEST_SEQ:
            message = f"up_to must be 0..{_GREATEST_SEQ}, it is {self.up_to}"
            raise ValueError(message)
        if len(self.also) > ACK_RANGES:
            message = f"also holds {len(self.also)} ranges; at most {ACK_RANGES} go into one ack"
            raise ValueError(message)
        if any(len(pair) != 2 or not 1 <= pair[0] <= pair[1] <= _GREATEST_SEQ for pair in self.also):  # noqa: PLR2004 - a pair
            message = f"also must hold ranges (first, last) of 1..{_GREATEST_SEQ}"
            raise ValueError(message)


Body = (
    Availability
    | State
    | ModelCard
    | DeploymentStatus
    | Metrics
    | Predictions
    | Thumbnail
    | Flat
    | BenchmarkReport
    | Event
    | Ack
)
B = TypeVar("B")

#: The body of each channel.
BODIES: Mapping[str, type[Any]] = {
    "availability": Availability,
    "state": State,
    "model": ModelCard,
    "thumbnail": Thumbnail,
    "flat": Flat,
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
