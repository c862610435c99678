"""What a report says: values only. The JSON form of a report is these values, encoded.

Rule: what could not be measured is None or empty, and a sentence in `notes` says why. Nothing is made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tflotilla.shared.contract.tensors import QuantizationScheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One variant on one runtime of this machine."""

    #: Name and version: `ai-edge-litert==2.1.0`.
    runtime: str
    #: By what it was judged (accuracy, map, cosine, sqnr), and how; None where nothing could be judged.
    metric: str | None = None
    value: float | None = None
    #: `value` less that of the float variant on the same runtime; None without one. In the metric's own unit.
    gained: float | None = None
    top5: float | None = None
    #: Share of samples with the float variant's best class, and with it among the float variant's best five.
    agreement: float | None = None
    top5_agreement: float | None = None
    samples: int = 0
    #: Of single invokes on one thread.
    p50_ns: int | None = None
    p90_ns: int | None = None
    runs: int = 0
    #: Whether there were runs enough for a p90 at 99 % confidence.
    enough_for_p90: bool = False
    #: Why this runtime does not run it.
    refused: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Whether one version of a runtime accepts the ops; `reason` names op and version when it doesn't."""

    runtime: str
    version: str
    ok: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNoise:
    """One layer's own error, against its float reference."""

    layer: str
    op: str
    tensor: str
    sqnr_db: float
    rmse_over_scale: float | None
    #: Share of values that fall outside of the representable range.
    saturated_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One file."""

    #: Told apart from every other one of the report.
    name: str
    sha256: str
    scheme: QuantizationScheme
    size_bytes: int
    #: With zlib at level 9: about what a download takes.
    compressed_bytes: int
    inputs: str
    outputs: str
    ops: int
    #: Operators that compute in float, with their number.
    float_ops: Mapping[str, int]
    is_reference: bool
    figures: tuple[Figures, ...] = ()
    fits: tuple[Fit, ...] = ()
    #: The worst layers first; empty for float files.
    layers: tuple[LayerNoise, ...] = ()
    layers_note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One thing that a detector found: edges as shares of the picture."""

    label: str
    score: float
    ymin: float
    xmin: float
    ymax: float
    xmax: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """One class with its score."""

    label: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one variant says of one sample."""

    variant: str
    #: The best classes, best first.
    top: tuple[Guess, ...] = ()
    boxes: tuple[Box, ...] = ()
    #: Whether its best class is the reference's; None for the reference, and for detectors.
    agrees: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample with everybody's answers."""

    name: str
    #: A small JPEG or PNG as a data URI; "" for samples that are no pictures.
    picture: str
    truth: str | None
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A file that could not be reported on."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One page's worth."""

    title: str
    #: Name of the data's folder or file; None without data.
    data: str | None
    variants: tuple[Variant, ...]
    broken: tuple[Broken, ...] = ()
    samples: tuple[Sample, ...] = ()
    notes: tuple[str, ...] = ()
