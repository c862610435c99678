"""A float `.tflite` that exists already: what the converter made of a model whose source is lost, or never was here.

    load → choose the signature → refuse what isn't float numbers → fix the shapes → `FloatFile`

Rules it keeps: float32 is the file itself, byte for byte, when nothing had to be fixed; the integer schemes are made by
the quantizers that TFLiteConverter uses (`integer_quantizer`), the others by storing weights differently
(`stored_weights`); weights of 16 bits are made float32 first. What it does NOT do: quantize again what is quantized.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import flatbuffer, stored_weights
from tflotilla.host.models.inspect import inspect_bytes, looks_like_tflite
from tflotilla.host.models.op_table import CUSTOM_OPS
from tflotilla.host.models.sources import finite, shapes, static_shapes, subgraphs
from tflotilla.shared.contract.errors import ConversionError, ModelError, UsageError
from tflotilla.shared.contract.tensors import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from tflotilla.host.models.inspect import ModelInspection
    from tflotilla.host.models.sources import SourceModel, SourceOptions

_EDGE_TPU_OP = "edgetpu-custom-op"
_INTEGERS = ("int8", "uint8", "int16")
#: Nothing but weights is ever stored so, with scales or with blocks of them.
_PACKED = ("int4", "uint4", "int2")
_LOOP = "WHILE"
_METADATA = "TFLITE_METADATA"
#: Where the data begin, of a buffer that lies behind the flatbuffer.
_OUTSIDE = 1


def recognizes(path: Path, head: bytes) -> bool:
    """Whether it has the mark of a TFLite flatbuffer."""
    del path
    return looks_like_tflite(head)


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Read the file.

    Raises:
        ModelError: corrupt, or its weights hold NaN or infinity.
        ConversionError: quantized already, or of operators or values that can't be converted; names which.
        UsageError: a signature or shapes that don't fit it.

    """
    if options.input_arrays or options.output_arrays:
        raise UsageError("--input-arrays and --output-arrays are for graphs of TensorFlow 1; a .tflite has its own")
    data = path.read_bytes()
    found = inspect_bytes(data, str(path))
    _refuse(found, str(path))
    model = flatbuffer.read(data)
    if any(buffer.offset > _OUTSIDE for buffer in model.buffers):
        raise ConversionError(f"{path}: its weights lie behind the flatbuffer, as of files above 2 GB; none can change")
    notes = []
    changed = subgraphs.choose_signature(model, options.signature, str(path))
    halves = stored_weights.from_float16(model)
    if halves:
        notes.append(f"{halves} weights that were stored in 16 bits are float32 again")
    if changed:
        found = inspect_bytes(flatbuffer.write(model), str(path))
    fixed = _fixed_shapes(found, options)
    reshaped = static_shapes.fix(model, list(fixed.values()), str(path))
    finite.check_flatbuffer(model, str(path))
    associated = _associated_files(path)
    if _METADATA in found.metadata or associated:
        what = f" and {', '.join(associated)}" if associated else ""
        notes.append(
            f"TFLite metadata{what}: kept in float32 when that is the file as it was, left out of the other schemes"
        )
    model.metadata = None
    stored_weights.tidy(model)
    return FloatFile(
        flatbuffer.write(model),
        # float32 is the user's own file when nothing in it had to change.
        original=None if changed or halves or reshaped else data,
        specs=[TensorSpec(name=s.name, shape=fixed[i], dtype=s.dtype) for i, s in enumerate(found.inputs)],
        output_names=[spec.name for spec in found.outputs],
        notes=notes,
        loops=any(op.name == _LOOP for op in found.ops),
    )


class FloatFile:
    """A float TFLite file in memory, with every dimension known."""

    def __init__(
        self,
        data: bytes,
        *,
        original: bytes | None,
        specs: list[TensorSpec],
        output_names: list[str],
        notes: list[str],
        loops: bool,
    ) -> None:
        self._data = data
        self._original = original
        self._interpreter: Any = None
        self.inputs = tuple(specs)
        self.output_names = tuple(output_names)
        self.notes = tuple(notes)
        self.loops = loops

    def converter(self) -> Any:  # noqa: ANN401 - it stands for a class of TensorFlow's
        """Return what takes the place of a TFLiteConverter."""
        return FlatbufferConverter(self._data, self._original)

    def run(self, inputs: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
        """Compute with TensorFlow's own TFLite interpreter. Raises ModelError."""
        import tensorflow as tf

        try:
            if self._interpreter is None:
                # The plain kernels: what a delegate makes of the file is for the runtimes to show.
                resolver = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                self._interpreter = tf.lite.Interpreter(
                    model_content=self._data, experimental_op_resolver_type=resolver
                )
                self._interpreter.allocate_tensors()
            engine = self._interpreter
            engine.reset_all_variables()
            for detail, value in zip(engine.get_input_details(), inputs, strict=True):
                engine.set_tensor(detail["index"], np.ascontiguousarray(value))
            engine.invoke()
            return tuple(np.array(engine.get_tensor(detail["index"])) for detail in engine.get_output_details())
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"TFLite can't run the source: {' '.join(str(error).split())[:300]}") from error


class FlatbufferConverter:
    """The attributes and the one method of TFLiteConverter that conversion uses, on a float TFLite file."""

    def __init__(self, data: bytes, original: bytes | None) -> None:
        import tensorflow as tf

        self._data = data
        self._original = original
        self.optimizations: Any = []
        self.target_spec: Any = tf.lite.TargetSpec()
        self.representative_dataset: Any = None
        self._experimental_disable_per_channel = False
        self._experimental_disable_per_channel_quantization_for_dense_layers = False

    def convert(self) -> bytes:
        """Return the file in the scheme that the attributes ask for.

        Raises:
            Exception: whatever TensorFlow's passes raise.

        """
        import tensorflow as tf
        from tensorflow.lite.python.convert import deduplicate_readonly_buffers

        if not self.optimizations:
            return self._data if self._original is None else self._original
        if self.representative_dataset is not None:
            wide = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            made = self._quantize(
                self._data,
                tf.float32,
                tf.float32,
                tf.int16 if wide in self.target_spec.supported_ops else tf.int8,
            )
            return bytes(deduplicate_readonly_buffers(made))
        model = flatbuffer.read(self._data)
        if tf.float16 in self.target_spec.supported_types:
            stored_weights.to_float16(model)
        else:
            stored_weights.to_int8(
                model,
                per_channel=not self._experimental_disable_per_channel,
                per_channel_dense=not self._experimental_disable_per_channel_quantization_for_dense_layers,
            )
        return flatbuffer.write(model)

    def _quantize(self, *_: Any) -> bytes:  # noqa: ANN401 - the signature of TFLiteConverter's own
        """Quantize to integers. `quantize` puts its own here, as into a TFLiteConverter: one that calibrates once."""
        raise NotImplementedError


def _refuse(found: ModelInspection, where: str) -> None:
    """Refuse what is not a float computation on numbers, naming what. Raises ConversionError."""
    needs = found.requirements
    unknown = [name for name in needs.custom_ops if name not in CUSTOM_OPS]
    if not any(op.count for op in found.ops):
        raise ConversionError(f"{where}: it has no operators, so there is nothing to convert")
    if _EDGE_TPU_OP in unknown:
        raise ConversionError(f"{where}: compiled for an Edge TPU; convert the float model it was made from")
    if needs.flex_ops:
        names = ", ".join(name.removeprefix("Flex") for name in needs.flex_ops)
        raise ConversionError(f"{where}: TFLite has no operator for {names} (it calls TensorFlow's own, by Flex)")
    if unknown:
        raise ConversionError(f"{where}: no runtime has its custom operator {', '.join(unknown)}")
    for tensor in found.tensors:
        if tensor.sparse:
            raise ConversionError(
                f"{where}: tensor {tensor.name!r} is stored sparse; convert the file from before it was made sparse"
            )
        if tensor.dtype == "string":
            raise ConversionError(f"{where}: tensor {tensor.name!r} holds text; only numbers can be converted")
        if tensor.dtype in _PACKED or (tensor.dtype in _INTEGERS and tensor.quantization is not None):
            raise ConversionError(
                f"{where}: quantized already (tensor {tensor.name!r} is {tensor.dtype}); "
                "convert the float model it was made from"
            )
    if not found.float_ops:
        raise ConversionError(f"{where}: no operator of it computes in float, so there is nothing to convert")


def _fixed_shapes(found: ModelInspection, options: SourceOptions) -> Mapping[int, tuple[int, ...]]:
    names = [spec.name for spec in found.inputs]
    shapes.check_names(options.input_shapes, names)
    return {
        i: shapes.fix_shape(spec.name, [None if d < 0 else d for d in spec.shape], options.input_shapes, names)
        for i, spec in enumerate(found.inputs)
    }


def _associated_files(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return sorted(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return []
