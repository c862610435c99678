"""Every metric we give to Prometheus: its name, kind, labels and meaning. `docs/prometheus.md` lists the same ones.

Names keep the rules of Prometheus: base units (seconds, bytes, celsius), counters end in `_total`, what only carries
words is an `_info` of value 1. The names here are without these ends, as OpenMetrics has them.

Rules it keeps: the values of every label come from a set that is bounded: boards, three bundles per board, five stages,
a few labels per model. No figure has the name of a picture, a time or an error's text in a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "info"]
#: What is appended to a metric's name in its samples.
_ENDS: dict[Kind, tuple[str, ...]] = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "info": ("_info",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric; `labels` in the order in which samples give their values."""

    name: str
    kind: Kind
    labels: tuple[str, ...] = ()
    meaning: str

    @property
    def samples(self) -> tuple[str, ...]:
        """The names under which its samples are asked for."""
        return tuple(self.name + end for end in _ENDS[self.kind])


_BUNDLE = ("board", "model", "version")

LATENCY = Metric(
    name="tflotilla_latency_seconds",
    kind="histogram",
    labels=(*_BUNDLE, "stage"),
    meaning="How long a stage of an inference took; total is all of them.",
)
INFERENCES = Metric(
    name="tflotilla_inferences", kind="counter", labels=_BUNDLE, meaning="Inferences that gave an answer."
)
ERRORS = Metric(name="tflotilla_inference_errors", kind="counter", labels=_BUNDLE, meaning="Inferences that failed.")
UNREADABLE = Metric(
    name="tflotilla_unreadable_inputs", kind="counter", labels=_BUNDLE, meaning="Inputs that could not be read."
)
DROPPED = Metric(
    name="tflotilla_dropped_results",
    kind="counter",
    labels=_BUNDLE,
    meaning="Answers that were made and thrown away, because the agent did not take them in time.",
)
LOW_CONFIDENCE = Metric(
    name="tflotilla_low_confidence",
    kind="counter",
    labels=_BUNDLE,
    meaning="Answers whose winner scored below reporting.low_confidence_below.",
)
PREDICTED = Metric(
    name="tflotilla_predicted_labels",
    kind="counter",
    labels=("model", "version", "label"),
    meaning="How often a label won, over all boards; those beyond the most frequent are (other).",
)
SCORE = Metric(
    name="tflotilla_winner_score",
    kind="histogram",
    labels=("model", "version"),
    meaning="The score of the winning label, over all boards.",
)
MODEL = Metric(
    name="tflotilla_model",
    kind="info",
    labels=("model", "version", "release", "scheme"),
    meaning="What serves somewhere in the fleet.",
)
ACCURACY = Metric(
    name="tflotilla_model_accuracy_ratio",
    kind="gauge",
    labels=("model", "version"),
    meaning="The share of right answers on the host's labelled data, as the bundle says it.",
)
ENROLLED = Metric(
    name="tflotilla_board_enrolled", kind="gauge", labels=("board",), meaning="1 for every board of fleet.toml."
)
LABELS = Metric(
    name="tflotilla_board_labels",
    kind="info",
    labels=("board",),
    meaning="The board's labels in fleet.toml, as label_*.",
)
BOARD = Metric(
    name="tflotilla_board",
    kind="info",
    labels=("board", "agent_version", "arch", "hardware"),
    meaning="What the board is.",
)
SERVING = Metric(
    name="tflotilla_board_serving",
    kind="info",
    labels=(*_BUNDLE, "digest", "runtime", "threads", "delegate_requested", "delegate_active"),
    meaning="What the board serves, and how.",
)
ONLINE = Metric(
    name="tflotilla_board_online",
    kind="gauge",
    labels=("board",),
    meaning="1 while the board is connected to the broker, 0 after its last will.",
)
LAST_SEEN = Metric(
    name="tflotilla_board_last_seen_timestamp_seconds",
    kind="gauge",
    labels=("board",),
    meaning="When the board last said something, by the bridge's clock.",
)
FAILING = Metric(
    name="tflotilla_board_failing", kind="gauge", labels=("board",), meaning="1 while the board's model fails to run."
)
FALLBACK = Metric(
    name="tflotilla_board_delegate_fallback",
    kind="gauge",
    labels=("board",),
    meaning="1 while a delegate is asked for and the model runs without it.",
)
TEMPERATURE = Metric(
    name="tflotilla_board_temperature_celsius", kind="gauge", labels=("board",), meaning="Of the processor."
)
THROTTLED = Metric(
    name="tflotilla_board_throttled",
    kind="gauge",
    labels=("board",),
    meaning="1 while the board is slowed down for its heat or its supply.",
)
MEMORY = Metric(
    name="tflotilla_board_resident_memory_bytes",
    kind="gauge",
    labels=("board",),
    meaning="What the process that runs the model holds in memory.",
)
OUTBOX = Metric(
    name="tflotilla_board_outbox_reports",
    kind="gauge",
    labels=("board",),
    meaning="Reports that wait on the board to be delivered.",
)
OUTBOX_DROPPED = Metric(
    name="tflotilla_board_outbox_dropped_reports",
    kind="gauge",
    labels=("board",),
    meaning="Reports that the board threw away, because its outbox was full.",
)
MESSAGES = Metric(
    name="tflotilla_board_messages", kind="counter", labels=("board",), meaning="Messages of the board that arrived."
)
MISSING = Metric(
    name="tflotilla_board_missing_messages",
    kind="gauge",
    labels=("board",),
    meaning="Messages between two that arrived, and that did not (yet); over the last 8 starts of the agent.",
)
DUPLICATES = Metric(
    name="tflotilla_board_duplicate_messages",
    kind="gauge",
    labels=("board",),
    meaning="Messages that arrived more than once; over the last 8 starts of the agent.",
)
DEPLOYMENTS = Metric(
    name="tflotilla_deployments",
    kind="counter",
    labels=("board", "outcome"),
    meaning="Deployments that ended: succeeded, rolled_back, failed or rejected.",
)
BRIDGE = Metric(name="tflotilla_bridge", kind="info", labels=("fleet",), meaning="The fleet that is listened to.")
CONNECTED = Metric(
    name="tflotilla_bridge_connected",
    kind="gauge",
    meaning="1 while there is a connection to the broker; what boards are now is not known without.",
)
CONNECTIONS = Metric(
    name="tflotilla_bridge_connections",
    kind="counter",
    meaning="Connections to the broker; what boards said between two may have come to others, and counts as missing.",
)
LISTENING_SINCE = Metric(
    name="tflotilla_bridge_start_time_seconds", kind="gauge", meaning="Since when counters count, in Unix seconds."
)
GARBAGE = Metric(
    name="tflotilla_bridge_garbage_messages",
    kind="counter",
    meaning="Payloads on the fleet's topics that break the contract.",
)
FOREIGN = Metric(
    name="tflotilla_bridge_foreign_messages",
    kind="counter",
    meaning="Messages that are not this fleet's.",
)
IMPLAUSIBLE = Metric(
    name="tflotilla_bridge_implausible_windows",
    kind="counter",
    meaning="Windows that keep the contract's form, with figures that can't be: not added up.",
)

CATALOGUE: tuple[Metric, ...] = (
    LATENCY,
    INFERENCES,
    ERRORS,
    UNREADABLE,
    DROPPED,
    LOW_CONFIDENCE,
    PREDICTED,
    SCORE,
    MODEL,
    ACCURACY,
    ENROLLED,
    LABELS,
    BOARD,
    SERVING,
    ONLINE,
    LAST_SEEN,
    FAILING,
    FALLBACK,
    TEMPERATURE,
    THROTTLED,
    MEMORY,
    OUTBOX,
    OUTBOX_DROPPED,
    MESSAGES,
    MISSING,
    DUPLICATES,
    DEPLOYMENTS,
    BRIDGE,
    CONNECTED,
    CONNECTIONS,
    LISTENING_SINCE,
    GARBAGE,
    FOREIGN,
    IMPLAUSIBLE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One value of a metric under these values of its labels; `more` are labels that not all of its figures have."""

    labels: tuple[str, ...]
    value: float
    more: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """One histogram: how many values are in each bucket alone, the last one having no bound, and the sum of all."""

    labels: tuple[str, ...]
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A metric with what is known of it now; a histogram has distributions, the others figures."""

    metric: Metric
    figures: tuple[Figure, ...] = ()
    distributions: tuple[Distribution, ...] = ()
