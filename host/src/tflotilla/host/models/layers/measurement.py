"""Runs a quantized file beside its reference, in a child process, and takes the errors of every layer.

Rules it keeps: no TensorFlow; foreign files are run only in the child; nothing is written. What it does NOT do: judge.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import child, flatbuffer
from tflotilla.host.models.inspect import inspect_model
from tflotilla.host.models.layers import inputs, weights
from tflotilla.host.models.layers import reference as references
from tflotilla.host.models.layers.comparison import Comparison
from tflotilla.host.models.layers.report import (
    LayerError,
    LayerReport,
    OutputError,
    Unmeasured,
    WeightError,
    ranked,
)
from tflotilla.host.models.layers.twin import is_quantized, twin_of
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import BoardError, ModelError, UsageError
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.inference import runtime as runtimes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tflotilla.host.models.layers.reference import Reference

DEFAULT_SAMPLES = 20
#: LiteRT first: it has more operators.
_PREFERRED = tuple(sorted(runtimes.ADAPTERS))
_ALIASES = {"litert": "ai-edge-litert"}
_PROGRESS_EVERY_S = 0.5
#: Of one activation: quantized, in the twin, fed, made alone, and float64 while two are compared.
_BYTES_A_NUMBER = 32
_GIB = 1024**3
_CRASHED = "crashed ("


def measure(
    quantized: Path,
    *,
    against: Path | None = None,
    data: Path | None = None,
    preprocess: str | Preprocessing | None = None,
    samples: int = DEFAULT_SAMPLES,
    runtime: str | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> LayerReport:
    """Measure every layer of a quantized file, the worst first.

    Args:
        quantized: any .tflite with quantized weights or activations.
        against: the float .tflite it was made from; without it the reference is the file's float twin, which has the
            same (rounded) weights.
        data: image folder, .npy or .npz; seeded noise when None.
        preprocess: how pixels become inputs, as behind `--preprocess`, or the value itself.
        samples: how many samples to run at most, spread evenly over the data.
        runtime: PyPI name of the runtime; None takes LiteRT, else what is installed.
        on_progress: told what goes on.

    Raises:
        ModelError: corrupt, nothing in it is quantized, or no runtime can run it.
        DatasetError: the data can't be read or don't fit.
        UsageError: an unknown runtime or preprocessing; images without any.
        BoardError: no runtime is installed here.

    """
    found = inspect_model(quantized)
    if against is not None:
        inspect_model(against)
    try:
        anything = is_quantized(quantized.read_bytes())
    except ModelError as error:
        raise ModelError(f"{quantized}: {error}") from error
    if not anything:
        raise ModelError(f"{quantized}: nothing in it is quantized, so no layer has an error of quantization")
    chosen = inputs.parse(preprocess, found.inputs)
    names = _names(runtime)
    arguments = {
        "model": str(quantized),
        "against": None if against is None else str(against),
        "data": None if data is None else str(data),
        "preprocess": chosen,
        "samples": samples,
        "runtimes": list(names),
    }
    answer, note = _ask(arguments, quantized, on_progress)
    decode = codec.decode
    return LayerReport(
        model=quantized,
        against=against,
        scheme=found.scheme,
        runtime=answer["runtime"],
        samples=answer["samples"],
        layers=ranked([decode(LayerError, entry, "layers") for entry in answer["layers"]]),
        weights=tuple(decode(WeightError, entry, "weights") for entry in answer["weights"]),
        outputs=tuple(decode(OutputError, entry, "outputs") for entry in answer["outputs"]),
        unmeasured=tuple(decode(Unmeasured, entry, "unmeasured") for entry in answer["unmeasured"]),
        notes=(*answer["notes"], *note),
    )


def _names(runtime: str | None) -> tuple[str, ...]:
    if runtime is None:
        return _PREFERRED
    name = _ALIASES.get(runtime, runtime)
    if name not in runtimes.ADAPTERS:
        raise UsageError(f"--runtime {runtime!r}: known runtimes are {', '.join(runtimes.ADAPTERS)}")
    return (name,)


def _ask(
    arguments: Mapping[str, Any], quantized: Path, on_progress: Callable[[str], None] | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Call the child; once more without local errors when single operators take the runtime down."""
    function = "tflotilla.host.models.layers.measurement:run_here"
    doing = f"measuring the layers of {quantized}"
    try:
        whole: dict[str, Any] = child.call(
            function, {**arguments, "with_local": True}, doing=doing, on_progress=on_progress
        )
    except ModelError as error:
        if _CRASHED not in str(error):
            raise
    else:
        return whole, ()
    rest: dict[str, Any] = child.call(
        function, {**arguments, "with_local": False}, doing=doing, on_progress=on_progress
    )
    return rest, ("no local errors: the runtime crashes when this model's operators are run one by one",)


def run_here(
    *,
    model: str,
    against: str | None,
    data: str | None,
    preprocess: Mapping[str, Any] | None,
    samples: int,
    runtimes: list[str],
    with_local: bool,
) -> dict[str, Any]:
    """Measure in this process; `measure` calls it in a child."""
    content = Path(model).read_bytes()
    _check_memory(model)
    notes: list[str] = []
    engine = _engine(runtimes)
    try:
        reference = _reference(content, notes) if against is None else _other(content, Path(against), notes)
        comparison = Comparison(content, reference, engine, with_local=with_local)
        chosen = None if preprocess is None else codec.decode(Preprocessing, dict(preprocess), "preprocessing")
        where = None if data is None else Path(data)
        quantized, real = inputs.load(where, comparison.inputs, chosen, limit=samples)
        if data is None:
            notes.append("random noise was fed; with --calibration the figures are those of real data")
        said = time.monotonic()
        for number, sample in enumerate(quantized):
            comparison.add(sample, None if real is None else real[number])
            if time.monotonic() - said > _PROGRESS_EVERY_S:
                said = time.monotonic()
                child.report_progress(f"{number + 1} of {len(quantized)} samples")
        found = comparison.findings()
        stored = weights.measure(flatbuffer.read(content), reference)
    except ModelError as error:
        raise ModelError(
            str(error) if str(error).startswith((model, against or model)) else f"{model}: {error}"
        ) from error
    return {
        "runtime": str(engine.offer),
        "samples": len(quantized),
        "layers": codec.encode(found.layers),
        "weights": codec.encode(stored),
        "outputs": codec.encode(found.outputs),
        "unmeasured": codec.encode(found.unmeasured),
        "notes": notes,
    }


def _check_memory(model: str) -> None:
    """Refuse what would take the machine down. Raises ModelError."""
    found = inspect_model(Path(model))
    numbers = sum(math.prod(abs(size) for size in t.shape) for t in found.tensors if not t.constant_bytes)
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if numbers * _BYTES_A_NUMBER > here / 2:
        needs, has = numbers * _BYTES_A_NUMBER / _GIB, here / _GIB
        raise ModelError(
            f"{model}: comparing its {numbers:,} activations takes {needs:,.0f} GiB, more than half of this machine's "
            f"{has:,.0f}"
        )


def _engine(names: list[str]) -> runtimes.Runtime:
    first: BoardError | None = None
    for name in names:
        try:
            return runtimes.find(name)
        except BoardError as error:
            first = first or error
    raise first or BoardError("no runtime is installed here")


def _reference(content: bytes, notes: list[str]) -> Reference:
    twin = twin_of(content)
    if twin.clamped:
        notes.append(
            f"{len(twin.clamped)} operators have no activation, but an output range from 0: its float twin has the "
            "RELU or RELU6 that this range stands for"
        )
    return references.of_twin(twin)


def _other(content: bytes, against: Path, notes: list[str]) -> Reference:
    model = flatbuffer.read(content)
    try:
        found = references.of_float_model(model, against.read_bytes())
    except ModelError as error:
        raise ModelError(f"{against}: {error}") from error
    if is_quantized(against.read_bytes()):
        notes.append(f"{against.name} has rounded weights too: they count as exact")
    alone = len(found.model.subgraphs[0].operators) - len(set(found.operators.values()))
    if alone:
        notes.append(f"{alone} operators of {against.name} have no partner in the quantized model")
    return found
