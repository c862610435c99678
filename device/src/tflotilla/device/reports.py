"""What the agent's processes say to each other: values, and the lines they travel in.

The supervisor starts a child with `python -m tflotilla.device.<module>`, writes one JSON spec to its stdin and closes
it; the child answers with lines on its stdout. stderr is the child's log. A child that dies without its last line has
crashed; the supervisor never guesses.

    worker     WorkerSpec  → `R` + Ready, then per window `M` + Metrics body, `P` + Predictions body; `E` + problem;
                where allowed `T` + Thumbnail body
    probe      ProbeSpec   → one line: ProbeReport
    shadow     ShadowSpec  → one line: deployment.ShadowReport
    benchmark  CellSpec → `S` + Phase whenever something else begins, then `C` + benchmark.BenchmarkCell

The worker's bodies are finished JSON objects: the supervisor puts them into an envelope without decoding them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tflotilla.shared.contract.agent_config import InferenceConfig, ReportingConfig, SourceConfig
from tflotilla.shared.contract.benchmark import Configuration, Method
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.messages import DelegateReport

READY = b"R"
METRICS = b"M"
PREDICTIONS = b"P"
THUMBNAIL = b"T"
PROBLEM = b"E"
PHASE = b"S"
CELL = b"C"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """What a worker serves. `inference.runtime` is a concrete runtime, never `auto`."""

    #: The verified bundle's folder (manifest.json, model.tflite, labels.txt, goldens.npz).
    bundle: str
    inference: InferenceConfig
    source: SourceConfig
    reporting: ReportingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The worker's first line: the model is loaded, inference begins."""

    runtime: RuntimeOffer
    delegate: DelegateReport
    load_ns: int
    first_inference_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSpec:
    """Load a candidate once with one concrete runtime: goldens, latency, memory."""

    bundle: str
    inference: InferenceConfig
    #: Timed runs after the goldens.
    runs: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What the probe found; `ok` is False with a `reason` that names the figure and the limit."""

    ok: bool
    reason: str | None
    runtime: RuntimeOffer
    delegate: DelegateReport
    worst_lsb: int | None
    worst_absolute: float | None
    load_ns: int
    p50_ns: int
    p99_ns: int
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSpec:
    """Let two bundles answer the same inputs of the board's own source, each as it is served, or would be."""

    champion: str
    champion_inference: InferenceConfig
    challenger: str
    challenger_inference: InferenceConfig
    source: SourceConfig
    inputs: int
    #: Loading both and all inputs; what is done by then counts.
    at_most_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSpec:
    """One cell of a benchmark: one configuration, measured in one fresh process."""

    #: The verified bundle's folder.
    bundle: str
    #: With a concrete runtime, never `auto`.
    configuration: Configuration
    method: Method
    #: Where the samples lie that the method names.
    samples: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What the cell does from now on (`loading`, `warm-up`, …), and after how long it must be hanging."""

    doing: str
    at_most_s: float
