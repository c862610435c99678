"""Convert one source to several schemes with one load of TensorFlow. Runs in a child process: see `convert`.

What is done for a runtime that is older than the converter: the same conversion is tried again with newer forms of
operators switched off, until the runtime's table of op versions accepts the file. The integer schemes share one
calibration, and the int8 ones one file: what differs between them is the type at the edges.

What it does NOT do: judge whether a file computes right (`fidelity`), or put files where the user wants them.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import compatibility, datasets, finders, quantizable, sources
from tflotilla.host.models import samples as sample_data
from tflotilla.host.models.calibration import probe
from tflotilla.host.models.calibration.probe import Data
from tflotilla.host.models.child import report_progress
from tflotilla.host.models.inspect import inspect_bytes
from tflotilla.host.models.sources import SourceOptions
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import ConversionError, ModelError, TflotillaError
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import QuantizationScheme
from tflotilla.shared.inference import goldens, preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from tflotilla.host.models.compatibility import RuntimeVerdict
    from tflotilla.host.models.inspect import ModelInspection
    from tflotilla.host.models.integer_quantizer import Calibrated
    from tflotilla.host.models.sources import SourceModel
    from tflotilla.shared.contract.tensors import TensorSpec

    #: The input tensors of one inference, real-valued.
    Inputs = tuple[NDArray[Any], ...]

#: Which scheme is being made; left behind when the converter crashes on it.
CURRENT = "current"
COMPARING = "comparing"
#: Names the operators that explain a crash.
RISK = "risk"
#: Suffix of the file that says why a scheme was refused.
REFUSED = ".refused"
REFERENCE = "reference.npz"
_CHECKED_SAMPLES = 8
#: Operators that only move numbers take the scale of their neighbours. Whether TensorFlow's quantizer gets to them
#: depends on the order of a set of pointers: one unrolled LSTM kept a SPLIT in float every second time.
_MOVING_OPS = frozenset(
    {"SPLIT", "SPLIT_V", "STRIDED_SLICE", "SLICE", "CONCATENATION", "RESHAPE", "TRANSPOSE", "PACK", "UNPACK"}
)
_INT8_TRIES = 6
_CONTROL_FLOW = frozenset({"WHILE", "IF", "CALL_ONCE"})
_IMAGE_DIMENSIONS = 4
_PER_TENSOR = "_experimental_disable_per_channel"
_PER_TENSOR_DENSE = "_experimental_disable_per_channel_quantization_for_dense_layers"
#: Converter settings tried in turn until a runtime's table accepts the file.
_SETTINGS: tuple[tuple[str, ...], ...] = (
    (),
    (_PER_TENSOR_DENSE,),
    (_PER_TENSOR_DENSE, "_experimental_disable_fuse_mul_and_fc", _PER_TENSOR),
)
_NEEDED_OPS = re.compile(r"(?:TF Select ops|Custom ops|Flex ops):\s*([A-Za-z0-9_, ]+)")
_UNQUANTIZABLE = re.compile(r"(?:not yet supported for op|Quantization not supported for op):?\s*'?([A-Za-z0-9_]+)'?")
_REASON_LENGTH = 240


def run(
    *,
    source: str,
    format: str,  # noqa: A002 - the word of the field
    options: Mapping[str, Any],
    schemes: Sequence[str],
    calibration: str | None,
    preprocess: str | Mapping[str, Any] | None,
    target: Mapping[str, Any] | None,
    samples: int,
    compare: bool,
    folder: str,
    per_channel: bool = True,
) -> dict[str, Any]:
    """Write `SCHEME.tflite` into `folder` for every scheme that can be made, and `reference.npz` when there can be one.

    Returns the source's inputs, output names and notes, and the reason of every scheme that can't be made.

    Raises:
        ModelError, UsageError, DatasetError, ConversionError: the source or the data can't be used at all.

    """
    choices = codec.decode(SourceOptions, options, "options")
    data = None if calibration is None else datasets.Calibration.open(Path(calibration))
    report_progress("loading TensorFlow")
    model = sources.load(Path(source), format, choices)
    chosen = parse_preprocessing(preprocess, model.inputs)
    inputs = None if data is None else data.load(model.inputs, chosen, limit=samples)
    notes = list(model.notes)
    if data is not None and inputs is not None:
        known = Data(
            samples=inputs, preprocessing=chosen, pixels=data.holds_pixels(model.inputs), files=data.holds_files
        )
        notes += [suspicion.message for suspicion in probe.look(model, known)]
    if compare:
        report_progress("running the source on samples")
        (Path(folder) / CURRENT).write_text(COMPARING)
        problem = _write_reference(model, inputs, chosen, Path(folder) / REFERENCE)
        if problem is not None:
            notes.append(f"the files were not compared with the source: {problem}")
    offer = None if target is None else codec.decode(RuntimeOffer, target, "target")
    failures = {}
    maker = Maker(model, inputs, offer, per_channel=per_channel, tell_risk=(Path(folder) / RISK).write_text)
    for number, scheme in enumerate(map(QuantizationScheme, schemes), 1):
        report_progress(f"converting to {scheme.value} ({number} of {len(schemes)})")
        (Path(folder) / CURRENT).write_text(scheme.value)
        try:
            (Path(folder) / f"{scheme.value}.tflite").write_bytes(maker.make(scheme))
        except TflotillaError as error:
            failures[scheme.value] = str(error)
            (Path(folder) / f"{scheme.value}{REFUSED}").write_text(str(error))
    return {
        "inputs": codec.encode(model.inputs),
        "outputs": list(model.output_names),
        "notes": notes,
        "loops": model.loops,
        "failures": failures,
        "preprocessing": codec.encode(chosen),
    }


def parse_preprocessing(given: str | Mapping[str, Any] | None, specs: tuple[TensorSpec, ...]) -> Preprocessing | None:
    """Read what stands behind `--preprocess`, for a model of these inputs. Raises UsageError."""
    if given is None or not isinstance(given, str):
        return None if given is None else codec.decode(Preprocessing, dict(given), "preprocessing")
    shape = specs[0].shape
    return preprocessing.parse(given, channels=shape[-1] if len(shape) == _IMAGE_DIMENSIONS else None)


def _write_reference(
    model: SourceModel, inputs: Sequence[Inputs] | None, chosen: Preprocessing | None, path: Path
) -> str | None:
    """Write what the source computes on a few samples; return why it can't, when it can't."""
    if inputs is None and model.loops:
        return "it loops until a value says so, and on random inputs perhaps for ever; give --calibration"
    try:
        known = sample_data.noise(model.inputs, chosen, count=_CHECKED_SAMPLES) if inputs is None else inputs
        count = min(len(known), _CHECKED_SAMPLES)
        asked = [known[i * len(known) // count] for i in range(count)]
        answers = [model.run(sample) for sample in asked]
        again = model.run(asked[0])
    except ModelError as error:
        return str(error)
    if any(output.dtype.kind not in "fiub" or not output.size for answer in answers for output in answer):
        return "its outputs are not numbers, or none on these inputs"
    if any(
        not np.isfinite(np.concatenate(list(map(np.ravel, outputs)))).any() for outputs in zip(*answers, strict=True)
    ):
        return "the source itself answers no finite number on any sample; do its weights hold NaN or infinity?"
    if any(not np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(answers[0], again, strict=True)):
        return "it gives another answer each time"
    path.write_bytes(goldens.save(goldens.GoldenVectors(inputs=tuple(asked), outputs=tuple(answers))))
    return None


class Maker:
    """Makes the schemes of one source, for one runtime or for any."""

    def __init__(
        self,
        model: SourceModel,
        inputs: Sequence[Inputs] | None,
        offer: RuntimeOffer | None,
        *,
        per_channel: bool,
        tell_risk: Callable[[str], object] = str,
    ) -> None:
        """Prepare; `tell_risk` is told the operators on which quantizers may crash, before they do."""
        self._model = model
        self._inputs = inputs
        self._offer = offer
        self._per_channel = per_channel
        self._tell_risk = tell_risk
        #: The float file that was calibrated last, and its ranges: the same one for int8 and int16x8.
        self._calibrated: tuple[bytes, Calibrated] | None = None
        #: The int8 file with float edges, made once for the three int8 schemes; or why it can't be made.
        self._int8: bytes | ConversionError | None = None
        self._settings: frozenset[str] = frozenset()
        #: What made the int8 file; more of its kind come from here.
        self._ranges: Calibrated | None = None
        self._int8_settings: frozenset[str] = frozenset()
        #: Operators of the int8 file that were never to be quantized.
        self._stays: frozenset[str] = frozenset()

    def make(self, scheme: QuantizationScheme) -> bytes:
        """Return the file. Raises ConversionError naming the op that stands in the way."""
        if scheme in (QuantizationScheme.INT8_IO_UINT8, QuantizationScheme.INT8_IO_INT8):
            return self._integer_only(scheme)
        if scheme is QuantizationScheme.INT8:
            return self._shared_int8()
        return self._accepted(scheme)

    def calibrated(self) -> bytes:
        """Return the float file whose operators `mixed` names. Raises ConversionError: there is no int8 file."""
        self._shared_int8()
        assert self._ranges is not None  # noqa: S101 - there is an int8 file
        return self._ranges.model

    def mixed(self, kept: Collection[str], *, finish: Callable[[bytes], bytes] | None = None) -> bytes:
        """Return int8 with float edges and some operators in float, with the settings of the int8 file.

        Args:
            kept: the operators that stay float, each named by its first output tensor.
            finish: changes the file before the target runtime's table judges it.

        Raises:
            ConversionError: there is no int8 file, TensorFlow can't make this one, or the runtime can't run it.

        """
        self._shared_int8()
        assert self._ranges is not None  # noqa: S101 - there is an int8 file
        try:
            made = self._ranges.quantize(
                kept={*kept, *self._stays},
                per_channel=self._per_channel and _PER_TENSOR not in self._int8_settings,
                per_channel_dense=_PER_TENSOR_DENSE not in self._int8_settings,
            )
        except Exception as error:  # the quantizer raises whatever its passes raise
            raise ConversionError(_explain(error)) from error
        made = made if finish is None else finish(made)
        verdict = self._verdict(made, QuantizationScheme.INT8)
        if verdict is not None and not verdict.ok:
            raise ConversionError(f"{self._offer} can't run it: {verdict}")
        return made

    def _shared_int8(self) -> bytes:
        if self._int8 is None:
            try:
                self._int8 = self._most_integer()
            except ConversionError as error:
                self._int8 = error
            else:
                self._ranges = None if self._calibrated is None else self._calibrated[1]
                self._int8_settings = self._settings
        if isinstance(self._int8, ConversionError):
            raise self._int8
        return self._int8

    def _most_integer(self) -> bytes:
        """Convert to int8; again where the order in which TensorFlow looked at the operators left some in float."""
        best: tuple[int, bytes] | None = None
        for _ in range(_INT8_TRIES):
            made = self._accepted(QuantizationScheme.INT8)
            left = inspect_bytes(made, QuantizationScheme.INT8.value).float_ops
            if best is None or len(left) < best[0]:
                best = (len(left), made)
            if not left or not {name for name, _ in left} <= _MOVING_OPS:
                break
        assert best is not None  # noqa: S101 - at least one try
        return best[1]

    def _integer_only(self, scheme: QuantizationScheme) -> bytes:
        """Return int8 with integer edges: what TFLITE_BUILTINS_INT8 promises, and an error where it can't be kept."""
        import tensorflow as tf
        from tensorflow.lite.python.util import modify_model_io_type

        shared = self._shared_int8()
        found = inspect_bytes(shared, scheme.value)
        if found.float_ops:
            raise ConversionError(_stayed_float(found))
        edge = tf.uint8 if scheme is QuantizationScheme.INT8_IO_UINT8 else tf.int8
        try:
            made = bytes(modify_model_io_type(shared, edge, edge))
        except (ValueError, RuntimeError) as error:
            raise ConversionError(f"its inputs and outputs can't be {edge.name}: {_reason(error)}") from error
        left = inspect_bytes(made, scheme.value)
        if not left.integer_only:
            raise ConversionError(_stayed_float(left))
        return _with_names(made, found)

    def _accepted(self, scheme: QuantizationScheme) -> bytes:
        """Try settings until the target runtime's table accepts the file. Raises ConversionError with its reason."""
        verdict = None
        for settings in _SETTINGS:
            made = self._convert(scheme, settings)
            verdict = self._verdict(made, scheme)
            if verdict is None or verdict.ok:
                return made
        raise ConversionError(f"{self._offer} can't run it: {verdict}")

    def _verdict(self, made: bytes, scheme: QuantizationScheme) -> RuntimeVerdict | None:
        """Judge a file by the target's table; None when any runtime will do. Raises ConversionError: none would."""
        try:
            found = inspect_bytes(made, scheme.value)
        except ModelError as error:
            reason = str(error).removeprefix(f"{scheme.value}: corrupt TFLite file: ")
            raise ConversionError(f"what TensorFlow makes of it can't run: {reason}") from error
        return None if self._offer is None else compatibility.check_runtime(found.requirements, self._offer)

    def _convert(self, scheme: QuantizationScheme, settings: Sequence[str]) -> bytes:
        import tensorflow as tf

        converter = self._model.converter()
        ops = tf.lite.OpsSet
        if scheme is not QuantizationScheme.FLOAT32:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if scheme is QuantizationScheme.FLOAT16:
            converter.target_spec.supported_types = [tf.float16]
        if scheme is QuantizationScheme.INT16X8:
            # With the plain ops beside it, an operator that has no 16-bit kernel stays float, and the report says so.
            converter.target_spec.supported_ops = [
                ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
                ops.TFLITE_BUILTINS,
            ]
        if scheme.needs_calibration:
            if self._inputs is None:
                raise ConversionError("needs calibration data, and there are none")
            converter.representative_dataset = self._calibrate
            # In its place the converter would measure the ranges again for every scheme, and twice for int16x8.
            converter._quantize = self._quantize  # noqa: SLF001 - it offers no other way
        for name in (*settings, *(() if self._per_channel else (_PER_TENSOR,))):
            setattr(converter, name, True)
        self._settings = frozenset(settings)
        try:
            made = bytes(converter.convert())
        except ConversionError:
            raise
        except Exception as error:  # the converter raises whatever its passes raise
            raise ConversionError(_explain(error)) from error
        return made

    def _quantize(
        self,
        model: bytes,
        input_type: Any,  # noqa: ANN401 - TensorFlow has no types
        output_type: Any,  # noqa: ANN401
        activations_type: Any,  # noqa: ANN401
        *_: Any,  # noqa: ANN401 - what only other schemes need
    ) -> bytes:
        """Quantize as TFLiteConverter's own method of this name, whose arguments these are."""
        import tensorflow as tf

        from tflotilla.host.models.integer_quantizer import Calibrated

        assert input_type == output_type == tf.float32  # noqa: S101 - integer edges are made afterwards
        model = quantizable.prepared(bytes(model), bits=16 if activations_type == tf.int16 else 8)
        if self._calibrated is None or self._calibrated[0] != model:
            loops = sorted({op.name for op in inspect_bytes(model, "the float file").ops} & _CONTROL_FLOW)
            if loops:
                self._tell_risk(", ".join(loops))
            self._calibrated = (bytes(model), Calibrated(bytes(model), self._calibrate()))
        calibrated = self._calibrated[1]
        options = {
            "per_channel": self._per_channel and _PER_TENSOR not in self._settings,
            "per_channel_dense": _PER_TENSOR_DENSE not in self._settings,
            "deduplicate": False,
        }
        if activations_type == tf.int16:
            return calibrated.quantize_16x8(**options)
        self._stays = finders.kept(calibrated.model)
        return calibrated.quantize(kept=self._stays, **options)

    def _calibrate(self) -> Iterator[list[NDArray[Any]]]:
        for sample in self._inputs or ():
            # Not ascontiguousarray: of a single number it makes an array of one.
            yield [np.asarray(tensor, order="C") for tensor in sample]


def _with_names(data: bytes, named: ModelInspection) -> bytes:
    """Give the edges the names they have in `named`: without its QUANTIZE an input would have that operator's."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    graph = model.subgraphs[0]
    for indices, specs in ((graph.inputs, named.inputs), (graph.outputs, named.outputs)):
        for index, spec in zip(indices, specs, strict=True):
            graph.tensors[index].name = spec.name.encode()
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _stayed_float(found: ModelInspection) -> str:
    obstacles = [(name, count) for name, count in found.float_ops if name in finders.OBSTACLES]
    ops = ", ".join(f"{name} ({count})" for name, count in obstacles or found.float_ops) or "an operator at its edges"
    around = " with what leads to them" if obstacles else ""
    return f"{ops} can't be quantized and would stay float{around}; scheme int8 keeps float where it must"


def _explain(error: Exception) -> str:
    """Turn the converter's pages into a sentence that names the op."""
    text = str(error)
    needed = sorted({op.strip() for found in _NEEDED_OPS.findall(text) for op in found.split(",") if op.strip()})
    if needed:
        return f"TFLite has no operator for {', '.join(needed)}"
    if "TensorListReserve" in text:
        return (
            "a loop over time steps (LSTM, GRU) was saved for batches of any size, and TFLite needs one; "
            "convert the Keras model itself (.keras or .h5)"
        )
    refused = sorted(set(_UNQUANTIZABLE.findall(text)))
    if refused:
        return f"{', '.join(refused)} can't be quantized"
    return f"the converter refuses it: {_reason(error)}"


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words: Callable[[str], bool] = lambda line: "error:" in line  # noqa: E731 - a predicate of one word
    told = next(filter(words, lines), lines[0] if lines else type(error).__name__)
    with contextlib.suppress(ValueError):
        told = told[told.index("error:") + len("error:") :].strip() or told
    return told[:_REASON_LENGTH]
