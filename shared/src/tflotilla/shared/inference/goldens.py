"""Golden vectors: inputs with the outputs that the host's runtime gave, and the verdict on a board that repeats them.

Rules it keeps:
- `load(save(v))` holds the same tensors as `v`; equal vectors give equal bytes;
- nothing that is not finite passes, unless it is the same infinity; no file makes the reader unpickle or allocate more
  than its own size.

What it does NOT do: choose inputs. A model with state must be freshly loaded before `reproduce`.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tflotilla.shared.contract.errors import ContractError, ModelError
from tflotilla.shared.contract.manifest import GOLDENS
from tflotilla.shared.inference import detections, stored_zip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tflotilla.shared.contract.manifest import GoldenPolicy
    from tflotilla.shared.contract.tensors import TensorSpec
    from tflotilla.shared.inference.runtime import LoadedModel, Tensor

    Tensors = tuple[Tensor, ...]

_MEMBER = re.compile(r"(input|output)\.(\d{5})\.(\d{3})\.npy")
_MAX_MEMBERS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GoldenVectors:
    """One tuple of input tensors and one of output tensors per vector."""

    inputs: tuple[Tensors, ...]
    outputs: tuple[Tensors, ...]

    def __post_init__(self) -> None:
        """Refuse inputs without outputs. Raises ValueError."""
        if len(self.inputs) != len(self.outputs):
            message = f"{len(self.inputs)} inputs but {len(self.outputs)} outputs"
            raise ValueError(message)

    def __len__(self) -> int:
        """How many vectors there are."""
        return len(self.inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenVerdict:
    """Whether outputs are close enough; the worst differences are None where no output is of that kind.

    `worst_lsb` is in quantization steps of integer outputs, `worst_absolute` in the units of float outputs.
    """

    ok: bool
    worst_lsb: int | None
    worst_absolute: float | None
    reason: str | None = None


def save(vectors: GoldenVectors) -> bytes:
    """Serialize to an .npz that `numpy.load` reads too; equal vectors give equal bytes.

    Raises:
        ValueError: a tensor holds Python objects.

    """
    target = io.BytesIO()
    # Stored, not deflated: bundles travel compressed anyway.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for kind, rows in (("input", vectors.inputs), ("output", vectors.outputs)):
            for row, tensors in enumerate(rows):
                for column, tensor in enumerate(tensors):
                    stored_zip.add_tensor(archive, f"{kind}.{row:05}.{column:03}.npy", _plain(tensor))
    return target.getvalue()


def load(source: bytes | Path) -> GoldenVectors:
    """Read what `save` wrote.

    Raises:
        ContractError: it is something else, or damaged.

    """
    where = GOLDENS if isinstance(source, bytes) else str(source)
    found: dict[str, dict[tuple[int, int], NDArray[Any]]] = {"input": {}, "output": {}}
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            if len(archive.infolist()) > _MAX_MEMBERS:
                message = f"{where}: more than {_MAX_MEMBERS} tensors"
                raise ContractError(message)
            for member in archive.infolist():
                name = _MEMBER.fullmatch(member.filename)
                if name is None:
                    message = f"{where}: {member.filename[:80]!r} is not a golden tensor"
                    raise ContractError(message)
                found[name[1]][int(name[2]), int(name[3])] = stored_zip.read_tensor(archive, member)
        return GoldenVectors(inputs=_rows(found["input"]), outputs=_rows(found["output"]))
    except stored_zip.ERRORS as error:
        message = f"{where} can't be read: {' '.join(str(error).split()) or type(error).__name__}"
        raise ContractError(message) from error


def compare(expected: Tensors, actual: Tensors, specs: tuple[TensorSpec, ...], policy: GoldenPolicy) -> GoldenVerdict:
    """Compare the outputs of one vector.

    Quantized integers may differ by `tolerance_lsb` steps; floats by `tolerance_absolute` plus `tolerance_relative`
    times the largest finite magnitude expected in that output; everything else (indices, texts) must be equal.
    The detections of a detector are compared as sets instead where the policy says so.
    """
    if not len(expected) == len(actual) == len(specs):
        reason = f"{len(actual)} outputs, {len(expected)} expected by the goldens, {len(specs)} by the model"
        return GoldenVerdict(ok=False, worst_lsb=None, worst_absolute=None, reason=reason)
    if policy.comparison == "detections":
        return _compare_detections(expected, actual, specs, policy)
    return _merge(
        [_compare_output(e, a, spec, policy) for e, a, spec in zip(expected, actual, specs)]  # noqa: B905 - see above
    )


def reproduce(loaded: LoadedModel, vectors: GoldenVectors, policy: GoldenPolicy) -> GoldenVerdict:
    """Run every vector through a freshly loaded model and compare; goes on after the first miss, to find the worst."""
    if len(vectors) < max(policy.count, 1):
        reason = f"{len(vectors)} golden vectors, the manifest promises {policy.count}"
        return GoldenVerdict(ok=False, worst_lsb=None, worst_absolute=None, reason=reason)
    verdicts = []
    for number, (inputs, expected) in enumerate(zip(vectors.inputs, vectors.outputs)):  # noqa: B905 - equal lengths
        try:
            loaded.set_inputs(inputs)
            loaded.invoke()
        except (ValueError, ModelError) as error:
            reason = f"golden vector {number}: {error}"
            verdicts.append(GoldenVerdict(ok=False, worst_lsb=None, worst_absolute=None, reason=reason))
            break
        verdict = compare(expected, loaded.get_outputs(), loaded.outputs, policy)
        reason_here = None if verdict.reason is None else f"golden vector {number}: {verdict.reason}"
        verdicts.append(
            GoldenVerdict(
                ok=verdict.ok,
                worst_lsb=verdict.worst_lsb,
                worst_absolute=verdict.worst_absolute,
                reason=reason_here,
            )
        )
    return _merge(verdicts)


def _compare_detections(
    expected: Tensors, actual: Tensors, specs: tuple[TensorSpec, ...], policy: GoldenPolicy
) -> GoldenVerdict:
    def missed(reason: str, absolute: float | None = None) -> GoldenVerdict:
        return GoldenVerdict(ok=False, worst_lsb=None, worst_absolute=absolute, reason=reason)

    for wanted, got, spec in zip(expected, actual, specs):  # noqa: B905 - `compare` has counted
        if (objection := _form_objection(wanted, got)) is not None:
            return missed(f"output {spec.name!r} {objection}")
    try:
        golden, found = detections.read(expected, specs), detections.read(actual, specs)
    except (ModelError, ValueError) as error:
        return missed(str(error))
    tolerance = policy.tolerance_absolute + policy.tolerance_relative * golden.best
    matching = detections.match(
        golden, found, floor=policy.min_score, score_tolerance=tolerance, min_iou=policy.min_iou
    )
    limits = f"same class, score within {tolerance:.3g}, boxes that overlap by {policy.min_iou:.0%}"
    if matching.lost:
        return missed(f"a detection of {matching.lost[0]} is not there ({limits})", matching.worst_score)
    if matching.extra:
        return missed(f"a detection of {matching.extra[0]} was not expected ({limits})", matching.worst_score)
    return GoldenVerdict(ok=True, worst_lsb=None, worst_absolute=matching.worst_score)


def _compare_output(
    expected: NDArray[Any], actual: NDArray[Any], spec: TensorSpec, policy: GoldenPolicy
) -> GoldenVerdict:
    def missed(reason: str, lsb: int | None = None, absolute: float | None = None) -> GoldenVerdict:
        return GoldenVerdict(ok=False, worst_lsb=lsb, worst_absolute=absolute, reason=f"output {spec.name!r} {reason}")

    expected, actual = _plain(expected), _plain(actual)
    if (objection := _form_objection(expected, actual)) is not None:
        return missed(objection)
    kind = _kind(expected.dtype, spec)
    if kind == "exact":
        if np.array_equal(expected, actual):
            return GoldenVerdict(ok=True, worst_lsb=None, worst_absolute=None)
        return missed("differs; it is not quantized, so it must be equal")
    if kind == "quantized":
        # Python numbers have no overflow: int64 steps may be far apart.
        steps = np.abs(expected.astype(np.int64) - actual.astype(np.int64))
        lsb = int(steps.max(initial=0))
        if lsb > policy.tolerance_lsb:
            return missed(f"differs by {lsb} LSB, at most {policy.tolerance_lsb} allowed", lsb=lsb)
        return GoldenVerdict(ok=True, worst_lsb=lsb, worst_absolute=None)
    return _compare_floats(expected.astype(np.float64), actual.astype(np.float64), policy, missed)


def _form_objection(expected: NDArray[Any], actual: NDArray[Any]) -> str | None:
    same_dtype = expected.dtype == actual.dtype or expected.dtype.kind == actual.dtype.kind == "S"
    if expected.shape == actual.shape and same_dtype:
        return None
    return f"is {actual.dtype} {actual.shape}, expected {expected.dtype} {expected.shape}"


def _compare_floats(
    expected: NDArray[np.float64],
    actual: NDArray[np.float64],
    policy: GoldenPolicy,
    missed: Callable[..., GoldenVerdict],
) -> GoldenVerdict:
    comparable = ~(np.isinf(expected) & (expected == actual))
    expected, actual = expected[comparable], actual[comparable]
    if not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        return missed("holds NaN or an infinity that was not expected")
    absolute = float(np.abs(expected - actual).max(initial=0.0))
    allowed = policy.tolerance_absolute + policy.tolerance_relative * float(np.abs(expected).max(initial=0.0))
    if absolute > allowed:
        return missed(f"differs by {absolute:.3g}, at most {allowed:.3g} allowed", absolute=absolute)
    return GoldenVerdict(ok=True, worst_lsb=None, worst_absolute=absolute)


def _kind(dtype: np.dtype[Any], spec: TensorSpec) -> Literal["float", "quantized", "exact"]:
    if dtype.kind == "f":
        return "float"
    # 8 and 16 bit integers are quantized even where the file doesn't say how; wider ones are indices and counts.
    return "quantized" if dtype.kind in "iu" and (spec.quantization is not None or dtype.itemsize <= 2) else "exact"  # noqa: PLR2004


def _merge(verdicts: Sequence[GoldenVerdict]) -> GoldenVerdict:
    first_miss = next((verdict for verdict in verdicts if not verdict.ok), None)
    return GoldenVerdict(
        ok=first_miss is None,
        worst_lsb=max((v.worst_lsb for v in verdicts if v.worst_lsb is not None), default=None),
        worst_absolute=max((v.worst_absolute for v in verdicts if v.worst_absolute is not None), default=None),
        reason=None if first_miss is None else first_miss.reason,
    )


def _plain(tensor: NDArray[Any]) -> NDArray[Any]:
    # Runtimes give texts as Python objects, which no file may hold.
    return np.asarray(tensor.astype(np.bytes_) if tensor.dtype.kind in "OU" else tensor, order="C")


def _rows(found: dict[tuple[int, int], NDArray[Any]]) -> tuple[Tensors, ...]:
    rows: list[list[Tensor]] = []
    for row, column in sorted(found):
        if row == len(rows):
            rows.append([])
        if row != len(rows) - 1 or column != len(rows[row]):
            message = f"tensor {row}.{column} follows a gap"
            raise ValueError(message)
        rows[row].append(found[row, column])
    return tuple(tuple(row) for row in rows)
