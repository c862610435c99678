"""The bundle manifest: what a release is, needs and promises. Full text: docs/contract.md.

The digest of a bundle is the SHA-256 of its manifest's bytes; the manifest names every other file by size and
SHA-256, so one signature over `manifest.json` covers every behaviour-bearing byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tflotilla.shared.contract import codec, digest
from tflotilla.shared.contract.errors import ContractError
from tflotilla.shared.contract.processing import Postprocessing, Preprocessing
from tflotilla.shared.contract.tensors import QuantizationScheme, TensorSpec

SCHEMA = 1
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
MODEL = "model.tflite"
LABELS = "labels.txt"
GOLDENS = "goldens.npz"
#: SSHSIG namespace: a signature made for another purpose is not a signature of a bundle.
SIGNATURE_NAMESPACE = "tflotilla-bundle"

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z]([0-9A-Za-z.+-]{0,62})?")
#: What every reader of JSON takes for a whole number.
_SCORE_BINS = 10
_GREATEST_RELEASE = (1 << 53) - 1
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """Size and digest of one file of the bundle."""

    size: int
    sha256: str

    def __post_init__(self) -> None:
        """Refuse what can't be a file. Raises ValueError."""
        digest.check(self.sha256)
        if self.size < 0:
            message = f"size must not be negative, it is {self.size}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class OpRequirement:
    """One operator at one version: the pair a runtime's resolver accepts or refuses."""

    name: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequirements:
    """What a runtime and a board must offer to run the model."""

    ops: tuple[OpRequirement, ...]
    custom_ops: tuple[str, ...] = ()
    #: TensorFlow ops that need the Flex delegate.
    flex_ops: tuple[str, ...] = ()
    #: From the file's `min_runtime_version` metadata; advisory: op versions decide.
    min_runtime_version: str | None = None
    #: Lower bound of the memory for activations, None when a shape is dynamic.
    arena_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenPolicy:
    """How closely a board must reproduce `goldens.npz`.

    Integer outputs may differ by `tolerance_lsb` quantization steps, float outputs by `tolerance_absolute` plus
    `tolerance_relative` times the largest magnitude of that output.

    `elementwise` compares number by number. `detections` is for the outputs of TFLite_Detection_PostProcess, where
    boxes of nearly equal score swap places between kernels: every detection of either side that scores `min_score` or
    more needs one of its own on the other, of the same class, with an intersection over union of `min_iou` and a score
    within the tolerance of floats. A reader that doesn't know the word compares number by number: too strict, not too
    lax.
    """

    count: int
    runtime: str
    tolerance_lsb: int = 1
    tolerance_absolute: float = 1e-4
    tolerance_relative: float = 1e-3
    #: Runtimes of the host that load the model and compute something else, `tflite-runtime==2.14.0`: preflight refuses
    #: boards that have no other.
    not_reproduced_by: tuple[str, ...] = ()
    comparison: Literal["elementwise", "detections"] = "elementwise"
    min_iou: float = 0.5
    min_score: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSummary:
    """What the model scored on the host, on labelled data, with the runtime named."""

    samples: int
    accuracy: float
    runtime: str
    float_accuracy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What the model answered on the host, on data that is like what it was made for: where drift is measured from."""

    samples: int
    #: How often each label won; those that never did may be missing.
    labels: Mapping[str, int]
    #: How many winners scored in [0, 0.1), [0.1, 0.2), … [0.9, 1].
    scores: tuple[int, ...]
    data: Literal["evaluation", "calibration"] = "evaluation"

    def __post_init__(self) -> None:
        """Refuse counts that aren't any. Raises ValueError."""
        if len(self.scores) != _SCORE_BINS or min(self.scores) < 0 or any(n < 0 for n in self.labels.values()):
            message = f"a reference has {_SCORE_BINS} bins of scores, and no count below 0"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPolicy:
    """When a candidate is refused in the probe, and when it is undone in the confirm window.

    None means "no limit". `max_p99_ratio` compares with the previous bundle on the same
    board, by the highest of p99, p90 and p50 for which both have enough runs.
    """

    probe_timeout_s: float = 60.0
    max_p99_ms: float | None = None
    max_rss_mib: float | None = None
    confirm_window_s: float = 10.0
    max_error_rate: float = 0.01
    max_p99_ratio: float | None = 5.0

    def __post_init__(self) -> None:
        """Refuse limits that nothing could keep. Raises ValueError."""
        for name in ("probe_timeout_s", "max_p99_ms", "max_rss_mib", "max_p99_ratio"):
            limit = getattr(self, name)
            if limit is not None and limit <= 0:
                message = f"{name} must be above 0, it is {limit:g}"
                raise ValueError(message)
        if self.confirm_window_s < 0:
            message = f"confirm_window_s must not be negative, it is {self.confirm_window_s:g}"
            raise ValueError(message)
        if not 0 <= self.max_error_rate <= 1:
            message = f"max_error_rate must be 0..1, it is {self.max_error_rate:g}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One release of a model."""

    schema: int
    name: str
    version: str
    #: Increases with every release of `name`; a board refuses one that is not newer, against replayed old bundles.
    release: int
    created: str
    scheme: QuantizationScheme
    files: Mapping[str, FileEntry]
    requirements: ModelRequirements
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    postprocessing: Postprocessing
    goldens: GoldenPolicy
    evaluation: EvaluationSummary | None = None
    health: HealthPolicy = field(default_factory=HealthPolicy)
    #: Board labels that must match for the bundle to be meant for a board; empty is "any board".
    audience: Mapping[str, str] = field(default_factory=dict)
    reference: Reference | None = None

    def __post_init__(self) -> None:
        """Refuse names that could leave a folder, and bundles without a model. Raises ValueError."""
        if not _NAME.fullmatch(self.name):
            message = f"name {self.name!r}: use lower-case letters, digits, '.', '_' and '-'; at most 64"
            raise ValueError(message)
        if not _VERSION.fullmatch(self.version):
            message = f"version {self.version!r}: use letters, digits, '.', '+' and '-'; at most 64"
            raise ValueError(message)
        if self.release < 1:
            message = f"release must be at least 1, it is {self.release}"
            raise ValueError(message)
        if self.release > _GREATEST_RELEASE:
            message = f"release must be at most {_GREATEST_RELEASE}, it is {self.release}"
            raise ValueError(message)
        for required in (MODEL, GOLDENS):
            if required not in self.files:
                message = f"files: {required!r} is missing"
                raise ValueError(message)
        for name in self.files:
            if not _FILE.fullmatch(name) or name in (MANIFEST, SIGNATURE):
                message = f"files: {name!r} is not a plain file name"
                raise ValueError(message)

    @property
    def title(self) -> str:
        """The name people read, `digits-1.0.0`; also the stem of the `.tflb` file."""
        return f"{self.name}-{self.version}"

    def to_bytes(self) -> bytes:
        """Serialize canonically; `Manifest.from_bytes(m.to_bytes()) == m`."""
        return codec.canonical_json(self) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, where: str = MANIFEST) -> Manifest:
        """Parse and check. Raises ContractError naming the place."""
        document: Any = codec.parse_json(data, where)
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            message = f"{where}: schema {schema!r} can't be read; this version reads schema {SCHEMA}"
            raise ContractError(message)
        return codec.decode(cls, document, where)
