"""The values that travel between the search's child process and its parent, and into JSON."""

from __future__ import annotations

from dataclasses import dataclass

from tflotilla.host.models.accuracy_aware.edges import Edges
from tflotilla.host.models.accuracy_aware.intervals import Interval
from tflotilla.host.models.accuracy_aware.search import Layer, Prefer
from tflotilla.host.models.metrics import Metric
from tflotilla.host.models.sources import SourceOptions
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import QuantizationScheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the child is asked; paths are absolute."""

    source: str
    format: str
    options: SourceOptions
    max_drop: float
    calibration: str
    samples: int
    #: Labelled, or not for cosine and sqnr.
    data: str
    #: As behind `--preprocess`, or the value itself.
    preset: str | None
    preprocessing: Preprocessing | None
    labels: str | None
    label_offset: int
    limit: int | None
    metric: Metric | None
    #: Without a metric: likeness to float, labelled or not.
    by_likeness: bool
    runtime: str
    num_threads: int
    target: RuntimeOffer | None
    schemes: tuple[QuantizationScheme, ...]
    prefer: Prefer
    edges: Edges
    max_steps: int
    hold_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One variant on the path. What was not measured is None."""

    scheme: QuantizationScheme
    #: Layers kept in float, each by its first output tensor, in the order of the ranking.
    kept: tuple[str, ...] = ()
    #: Inputs and outputs are float though integers were asked for.
    float_edges: bool = False
    value: float | None = None
    #: Against float, by `metrics.drop`.
    drop: float | None = None
    size_bytes: int | None = None
    #: Median of an invoke on this machine, side by side with the others; and of how many.
    p50_ns: int | None = None
    runs: int | None = None
    #: Why it could not be made or run.
    refused: str | None = None
    #: Whether it loses no more than allowed.
    meets: bool = False
    #: Whether no other variant beats it in drop, size and latency at once.
    pareto: bool = False
    taken: bool = False
    #: Its name in the folder.
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The variant that is taken, on samples that the search has not seen."""

    samples: int
    float_value: float
    value: float
    drop: float
    meets: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the child answers."""

    metric: Metric
    #: Of the data the search was judged on.
    samples: int
    float_value: float
    float_size_bytes: int
    float_p50_ns: int | None
    float_runs: int | None
    #: Name and version.
    runtime: str
    steps: tuple[Step, ...]
    #: As ranked, the first to keep first; empty when int8 was good enough.
    layers: tuple[Layer, ...]
    #: Of the drop of the variant that is taken; accuracy only, and on the proof half where there is one.
    interval: Interval | None
    proofs: tuple[Proof, ...]
    notes: tuple[str, ...]
    preprocessing: Preprocessing | None
