"""Whether a converted file computes what its source computes, on a real runtime.

Version numbers can't be trusted: a runtime may accept a file and answer zeros. So every file is run, in a child
process, on samples whose answers the source gave in TensorFlow, and the signal-to-quantization-noise ratio is taken:

    SQNR = 20 log10(deviation of the source's output / RMS of the difference)   in dB; all zeros give 0 or less

What it does NOT do: measure accuracy. A good SQNR on few samples is sanity, not proof; `evaluate` proves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import child, flatbuffer
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import BoardError, DatasetError, ModelError
from tflotilla.shared.contract.tensors import QuantizationScheme
from tflotilla.shared.inference import goldens
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.preprocessing import from_real
from tflotilla.shared.inference.quantization import dequantize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


#: Below these a file does not compute what its source does, in dB. Quantized files may be coarse, never unrelated.
_LEAST_DB = {QuantizationScheme.FLOAT32: 30.0, QuantizationScheme.FLOAT16: 10.0}
_LEAST_QUANTIZED_DB = 1.0
_BEST_DB = 200.0
_LEAST_STEPS = 2.0
#: Rows nearer than this, in deviations of their outputs, are the same thing found.
_SAME_ROW = 0.25
TIMEOUT_S = 600.0
#: For models that loop until a value says so: quantized, that value may never be reached.
LOOPING_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How closely one file follows its source on one runtime; `reason` is set when it doesn't."""

    runtime: RuntimeOffer | None
    #: The worst output's; None when nothing could be compared.
    sqnr_db: float | None
    reason: str | None = None


def measure(
    files: Mapping[QuantizationScheme, Path], reference: Path, runtime: str, *, timeout_s: float = TIMEOUT_S
) -> dict[QuantizationScheme, Fidelity]:
    """Run every file on one runtime, in one child; again one by one when a file crashes it or takes too long.

    Raises:
        BoardError: the runtime isn't installed here.

    """
    try:
        return _measure(files, reference, runtime, timeout_s)
    except ModelError as error:
        if len(files) == 1:
            return dict.fromkeys(files, Fidelity(runtime=None, sqnr_db=None, reason=str(error)))
    found: dict[QuantizationScheme, Fidelity] = {}
    for scheme, path in files.items():
        found |= measure({scheme: path}, reference, runtime, timeout_s=timeout_s)
    return found


def _measure(
    files: Mapping[QuantizationScheme, Path], reference: Path, runtime: str, timeout_s: float
) -> dict[QuantizationScheme, Fidelity]:
    arguments = {
        "files": {scheme.value: str(path) for scheme, path in files.items()},
        "reference": str(reference),
        "runtime": runtime,
    }
    answer = child.call(
        "tflotilla.host.models.fidelity:run_here",
        arguments,
        doing=f"{runtime} on the converted file",
        timeout_s=timeout_s * len(files),
    )
    return {QuantizationScheme(scheme): codec.decode(Fidelity, entry, "fidelity") for scheme, entry in answer.items()}


def run_here(*, files: Mapping[str, str], reference: str, runtime: str) -> dict[str, Any]:
    """Run files in this process; `measure` calls it in a child."""
    vectors = goldens.load(Path(reference))
    engine = runtimes.find(runtime)
    return {
        scheme: codec.encode(_follow(QuantizationScheme(scheme), Path(path), engine, vectors))
        for scheme, path in files.items()
    }


def _follow(
    scheme: QuantizationScheme, path: Path, engine: runtimes.Runtime, vectors: goldens.GoldenVectors
) -> Fidelity:
    try:
        loaded = engine.load(path, runtimes.LoadOptions())
        answers = []
        for inputs in vectors.inputs:
            loaded.set_inputs(tuple(from_real(v, spec) for v, spec in zip(inputs, loaded.inputs, strict=True)))
            loaded.invoke()
            answers.append(
                tuple(dequantize(v, spec) for v, spec in zip(loaded.get_outputs(), loaded.outputs, strict=True))
            )
    except (ModelError, DatasetError, BoardError, ValueError) as error:
        return Fidelity(runtime=engine.offer, sqnr_db=None, reason=" ".join(str(error).split()))
    varying = tuple(-1 in spec.shape for spec in loaded.outputs)
    sqnr_db, reason = judge(scheme, vectors.outputs, answers, varying, _output_steps(path.read_bytes()))
    return Fidelity(runtime=engine.offer, sqnr_db=sqnr_db, reason=reason)


def judge(
    scheme: QuantizationScheme,
    expected: Sequence[Sequence[NDArray[Any]]],
    actual: Sequence[Sequence[NDArray[Any]]],
    varying: Sequence[bool] = (),
    steps: Sequence[float] = (),
) -> tuple[float | None, str | None]:
    """Compare the source's outputs with a file's, per sample and output; return (worst SQNR, what is wrong). Pure.

    `steps` are the quantization steps of the file's outputs, 0 for real ones. A source whose output varies by less than
    two of them (an untrained classifier) can't be followed by any file, nor contradicted: that output is left out.

    Outputs of which `varying` says that they have as many rows as are found (boxes) are compared row by row, each with
    the file's nearest, in whatever order. Others that differ in size are left out.
    """
    worst: float | None = None
    found = [output for output, varies in enumerate(varying) if varies]
    if found and len(actual[0]) == len(expected[0]):
        worst, reason = _judge_found(
            scheme, *([[sample[output] for output in found] for sample in side] for side in (expected, actual))
        )
        if reason is not None:
            return worst, reason
    for output in range(len(expected[0])):
        if output in found:
            continue
        if len(actual[0]) != len(expected[0]):
            return None, f"it gives {len(actual[0])} outputs, the source {len(expected[0])}"
        pairs = [
            (e[output].astype(np.float64).ravel(), a[output].astype(np.float64).ravel())
            for e, a in zip(expected, actual, strict=True)
        ]
        if any(len(e) != len(a) for e, a in pairs):
            continue
        source, file = (np.concatenate(side) for side in zip(*pairs, strict=True))
        usable = np.isfinite(source)
        if not usable.any():
            continue
        source, file = source[usable], file[usable]
        if not np.isfinite(file).all():
            return None, f"output {output} is not a finite number where the source's is"
        if steps and _below_resolution(source, file, steps[output]):
            continue
        sqnr_db = _sqnr_db(source, file)
        worst = sqnr_db if worst is None else min(worst, sqnr_db)
        if sqnr_db < _LEAST_DB.get(scheme, _LEAST_QUANTIZED_DB):
            flat = file.size > 1 and float(np.ptp(file)) == 0.0 and float(np.ptp(source)) > 0.0
            if flat:
                return sqnr_db, f"all numbers of output {output} are {file[0]:g}, the source's are not"
            return sqnr_db, f"output {output} does not follow the source's ({sqnr_db:.1f} dB)"
    return worst, None


def _judge_found(
    scheme: QuantizationScheme,
    expected: Sequence[Sequence[NDArray[Any]]],
    actual: Sequence[Sequence[NDArray[Any]]],
) -> tuple[float | None, str | None]:
    """Compare what was found: outputs whose rows belong together (a box, its score, its landmarks)."""
    outputs = range(len(expected[0]))
    if any(len({len(output) if output.ndim else -1 for output in side}) != 1 for side in (*expected, *actual)):
        return None, None  # their rows don't belong together
    scales = []
    for output in outputs:
        values = np.concatenate([sample[output].astype(np.float64).ravel() for sample in expected])
        # An output that hardly changes, like the score of what is certain, is measured by its height.
        scale = max(float(values.std()), float(np.sqrt(np.mean(values**2))) / 10) if values.size else 0.0
        scales.append(scale or 1.0)
    differences: list[float] = []
    wanted = got = 0
    for sample, answer in zip(expected, actual, strict=True):
        source, file = (
            np.concatenate(
                [
                    side[i].reshape(len(side[i]), math.prod(side[i].shape[1:])).astype(np.float64) / scales[i]
                    for i in outputs
                ],
                1,
            )
            for side in (sample, answer)
        )
        wanted += len(source)
        got += len(file)
        differences += _nearest(source, file)
    if not wanted:
        return None, f"it finds {got} rows where the source finds none" if got else None
    alike = [difference for difference in differences if difference < _SAME_ROW]
    if len(alike) * 2 < wanted or got > 2 * wanted:
        return None, f"it finds {len(alike)} of the {wanted} rows that the source finds, and {got - len(alike)} others"
    noise = math.sqrt(float(np.mean(np.square(alike))))
    sqnr_db = _BEST_DB if noise == 0.0 else min(_BEST_DB, -20 * math.log10(noise))
    if sqnr_db < _LEAST_DB.get(scheme, _LEAST_QUANTIZED_DB):
        return sqnr_db, f"the rows that it finds do not follow the source's ({sqnr_db:.1f} dB)"
    return sqnr_db, None


def _nearest(source: NDArray[np.float64], file: NDArray[np.float64]) -> list[float]:
    """Return the RMS difference of every row of the source that gets one of the file's, nearest pairs first."""
    if not len(source) or not len(file):
        return []
    distances = np.stack([np.sqrt(np.mean((file - row) ** 2, 1)) for row in source])
    taken: list[float] = []
    rows, columns = set(range(len(source))), set(range(len(file)))
    for flat in np.argsort(distances, axis=None, kind="stable"):
        row, column = divmod(int(flat), len(file))
        if row in rows and column in columns:
            rows.remove(row)
            columns.remove(column)
            taken.append(float(distances[row, column]))
    return taken


def _below_resolution(source: NDArray[np.float64], file: NDArray[np.float64], step: float) -> bool:
    blurred = float(np.ptp(source)) < _LEAST_STEPS * step
    return blurred and float(np.max(np.abs(source - file))) <= _LEAST_STEPS * step


def _output_steps(data: bytes) -> tuple[float, ...]:
    """Return the scale of each output, also where a DEQUANTIZE makes it real; 0 for what was never quantized."""
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    made_by = {int(operator.outputs[0]): operator for operator in graph.operators if operator.outputs is not None}
    steps = []
    for index in graph.outputs:
        operator = made_by.get(int(index))
        if operator is not None and flatbuffer.op_name(model, operator) == "DEQUANTIZE":
            index = operator.inputs[0]  # noqa: PLW2901 - the same output, before it was made real
        found = graph.tensors[index].quantization
        steps.append(float(found.scale[0]) if found is not None and found.scale is not None and len(found.scale) else 0)
    return tuple(steps)


def _sqnr_db(source: NDArray[np.float64], file: NDArray[np.float64]) -> float:
    noise = math.sqrt(float(np.mean((source - file) ** 2)))
    # Of an output that never changes, its height is all the signal there is.
    signal = float(source.std()) or math.sqrt(float(np.mean(source**2)))
    if noise == 0.0:
        return _BEST_DB
    if signal == 0.0:
        return _BEST_DB if noise < np.finfo(np.float32).eps else 0.0
    return min(_BEST_DB, 20 * math.log10(signal / noise))
