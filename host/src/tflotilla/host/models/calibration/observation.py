"""Runs a float TFLite file with every activation as an output, and int8 files beside it. In a child, with a runtime.

Rules it keeps: no TensorFlow; the values are those of the runtime's own float kernels; only the main graph is looked
into (the bodies of loops are run, not watched). What it does NOT do: judge, or read labelled data.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import flatbuffer, metrics
from tflotilla.host.models.calibration import ranges, saturation
from tflotilla.host.models.child import report_progress
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import BoardError, DatasetError, ModelError
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.preprocessing import from_real
from tflotilla.shared.inference.quantization import dequantize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tflotilla.shared.inference.runtime import LoadedModel, Runtime

    Inputs = tuple[NDArray[Any], ...]

_PROGRESS_EVERY_S = 0.5
_INT8 = "int8"
#: As a board would load a file, with one thread.
_OPTIONS = runtimes.LoadOptions()


def run_here(
    *,
    model: str,
    half: str | None,
    variants: Mapping[str, str],
    samples: str,
    calibrated_with: int,
    watched: int,
    compare_from: int,
    names: Sequence[str],
) -> dict[str, Any]:
    """Observe in this process; `measurement` calls it in a child.

    Args:
        model: the float file.
        half: the int8 file whose ranges the first `calibrated_with` samples gave; None without one.
        variants: name → int8 file, to be compared with the float file.
        samples: a .npz as `making` writes it.
        calibrated_with: how many of the first samples `half` has seen.
        watched: how many of the first samples ranges are taken of.
        compare_from: the sample from which on the variants are compared.
        names: PyPI names of runtimes; the first that is installed is taken.

    Raises:
        ModelError: the runtime can't run the float file.
        BoardError: none is installed.

    """
    engine = _engine(names)
    with np.load(samples, allow_pickle=False) as archive:
        columns = [archive[f"input{i}"] for i in range(len(archive.files))]
    rows = [tuple(column[i] for column in columns) for i in range(len(columns[0]))]
    document = flatbuffer.read(Path(model).read_bytes())
    limits = {} if half is None else _limits(flatbuffer.read(Path(half).read_bytes()))
    tensors = _Watched(document, limits)
    expected: list[list[NDArray[Any]]] = []
    loaded = engine.load(tensors.data, _OPTIONS)
    said = time.monotonic()
    for number, row in enumerate(rows):
        values = _run(loaded, row)
        if number < watched:
            tensors.add(row, values, held_out=number >= calibrated_with)
        if number >= compare_from:
            expected.append([np.asarray(value) for value in values[: tensors.outputs]])
        if time.monotonic() - said > _PROGRESS_EVERY_S:
            said = time.monotonic()
            report_progress(f"looking into sample {number + 1} of {len(rows)}")
    report_progress("comparing the int8 files with the float one")
    asked = rows[compare_from:]
    return {
        "runtime": str(engine.offer),
        "ranges": codec.encode(tensors.ranges()),
        "saturation": codec.encode(tensors.saturation()),
        "compared": {name: _compare(engine, Path(path), asked, expected) for name, path in variants.items()},
    }


class _Watched:
    """A float file whose activations are all outputs, and what they showed."""

    def __init__(self, document: Any, limits: Mapping[str, saturation.Limits]) -> None:  # noqa: ANN401 - generated code
        graph = document.subgraphs[0]
        own = [int(index) for index in graph.outputs]
        self.outputs = len(own)
        made: dict[int, tuple[str, int]] = {}
        for number, operator in enumerate(graph.operators):
            for index in operator.outputs:
                made.setdefault(int(index), (flatbuffer.op_name(document, operator), number))
        shown = [index for index in made if index not in own and _is_activation(document, graph.tensors[index])]
        graph.outputs = np.asarray([*own, *shown], dtype=np.int32)
        # A signature names the file's own outputs; ranges that calibration left in the tensors are no quantization.
        document.signatureDefs = []
        for tensor in graph.tensors:
            if flatbuffer.dtype(tensor) == "float32":
                tensor.quantization = None
        self.data = flatbuffer.write(document)
        self._seen: dict[int, tuple[ranges.Observed, saturation.HeldOut | None]] = {}
        self._inputs: dict[int, tuple[ranges.Observed, saturation.HeldOut | None]] = {}
        for place, index in enumerate([*own, *shown]):
            tensor = graph.tensors[index]
            if index in made and flatbuffer.dtype(tensor) == "float32":
                op, number = made[index]
                self._seen[place] = _watch(flatbuffer.tensor_name(tensor), op, number, limits)
        for place, index in enumerate(graph.inputs):
            tensor = graph.tensors[int(index)]
            if flatbuffer.dtype(tensor) == "float32":
                self._inputs[place] = _watch(flatbuffer.tensor_name(tensor), "INPUT", -1, limits)

    def add(self, inputs: Inputs, values: Sequence[NDArray[Any]], *, held_out: bool) -> None:
        """Take what one sample made of every tensor."""
        for watched, arrays in ((self._inputs, inputs), (self._seen, values)):
            for place, (observed, outside) in watched.items():
                observed.add(arrays[place])
                if held_out and outside is not None:
                    outside.add(arrays[place])

    def ranges(self) -> tuple[ranges.TensorRange, ...]:
        """Return the ranges, worst first."""
        found = (observed.result() for observed, _ in (*self._inputs.values(), *self._seen.values()))
        return ranges.worst_first(entry for entry in found if entry is not None)

    def saturation(self) -> tuple[saturation.TensorSaturation, ...]:
        """Return how much the held-out samples are clipped, worst first."""
        watched = (outside for _, outside in (*self._inputs.values(), *self._seen.values()) if outside is not None)
        found = (outside.result() for outside in watched)
        return saturation.worst_first(entry for entry in found if entry is not None)


def _watch(
    tensor: str, op: str, number: int, limits: Mapping[str, saturation.Limits]
) -> tuple[ranges.Observed, saturation.HeldOut | None]:
    known = limits.get(tensor)
    judged = known is not None and op not in ranges.FIXED_RANGE_OPS and op not in ranges.MOVING_OPS
    outside = saturation.HeldOut(tensor=tensor, op=op, operator=number, calibrated=known) if known and judged else None
    return ranges.Observed(tensor=tensor, op=op, operator=number), outside


def _limits(document: Any) -> dict[str, saturation.Limits]:  # noqa: ANN401 - generated code without types
    """Return what each int8 activation of a file can hold, by the tensor's name."""
    found: dict[str, saturation.Limits] = {}
    graph = document.subgraphs[0]
    for operator in graph.operators:
        for index in (*operator.outputs, *(() if operator.inputs is None else operator.inputs)):
            tensor = graph.tensors[int(index)] if index >= 0 else None
            if tensor is None or flatbuffer.dtype(tensor) != _INT8 or tensor.quantization is None:
                continue
            scales, zeros = tensor.quantization.scale, tensor.quantization.zeroPoint
            data = document.buffers[tensor.buffer].data
            if scales is not None and len(scales) == 1 and (data is None or not len(data)):
                made = saturation.limits(_INT8, float(scales[0]), int(zeros[0]))
                found.setdefault(flatbuffer.tensor_name(tensor), made)
    # A quantized input is a QUANTIZE of the float one, which keeps its own name.
    for operator in graph.operators:
        if flatbuffer.op_name(document, operator) == "QUANTIZE":
            source, target = (graph.tensors[int(indices[0])] for indices in (operator.inputs, operator.outputs))
            known = found.get(flatbuffer.tensor_name(target))
            if known is not None and flatbuffer.dtype(source) == "float32":
                found.setdefault(flatbuffer.tensor_name(source), known)
    return found


def _is_activation(document: Any, tensor: Any) -> bool:  # noqa: ANN401 - generated code without types
    data = document.buffers[tensor.buffer].data
    return flatbuffer.dtype(tensor) == "float32" and not tensor.isVariable and (data is None or not len(data))


def _engine(names: Sequence[str]) -> Runtime:
    first: BoardError | None = None
    for name in names:
        try:
            return runtimes.find(name)
        except BoardError as error:
            first = first or error
    raise first or BoardError("no runtime is installed here")


def _run(loaded: LoadedModel, row: Inputs) -> tuple[NDArray[Any], ...]:
    loaded.set_inputs(tuple(from_real(value, spec) for value, spec in zip(row, loaded.inputs, strict=True)))
    loaded.invoke()
    return loaded.get_outputs()


def _compare(
    engine: Runtime, path: Path, rows: Sequence[Inputs], expected: Sequence[Sequence[NDArray[Any]]]
) -> dict[str, Any]:
    """Return the worst output's SQNR and the share of equal best classes; None where there is nothing to compare."""
    try:
        loaded = engine.load(path, _OPTIONS)
        answers = [
            [dequantize(value, spec) for value, spec in zip(_run(loaded, row), loaded.outputs, strict=True)]
            for row in rows
        ]
    except (ModelError, DatasetError, ValueError) as error:
        return {"sqnr_db": None, "agreement": None, "reason": " ".join(str(error).split())[:240]}
    worst: float | None = None
    for output in range(len(expected[0])):
        pairs = [(np.float64(e[output]), np.float64(a[output])) for e, a in zip(expected, answers, strict=True)]
        if any(e.shape != a.shape or not np.isfinite(e).all() for e, a in pairs):
            continue
        signal = sum(float(np.sum(e**2)) for e, _ in pairs)
        noise = sum(float(np.sum((e - a) ** 2)) for e, a in pairs)
        found = metrics.sqnr_db(signal, noise)
        worst = found if worst is None else min(worst, found)
    return {"sqnr_db": worst, "agreement": _agreement(expected, answers), "reason": None}


def _agreement(expected: Sequence[Sequence[NDArray[Any]]], answers: Sequence[Sequence[NDArray[Any]]]) -> float | None:
    """Return the share of samples with the same best class; of one output (1, classes) alone that is one."""
    first = expected[0]
    if len(first) != 1 or first[0].size < 2 or first[0].size != first[0].shape[-1]:  # noqa: PLR2004 - two classes
        return None
    same = [int(e[0].argmax()) == int(a[0].argmax()) for e, a in zip(expected, answers, strict=True)]
    return sum(same) / len(same)
