"""Tiny .tflite models for tests, made without TensorFlow, and the images they tell apart.

`read(name)` returns a committed file of tests/data: that works everywhere, also where no flatbuffer package is. The
functions below build the same bytes anew (flatbuffers and tflite are the host's packages), and a test proves that files
and functions agree. `python -m tests.models_made` writes the files.

The classifier is real: 10 patterns of an 8x8 image are rows of a Hadamard matrix, orthogonal to each other, so the
image of class k scores above 0.99 as k. It has the graph that a TFLITE_BUILTINS_INT8 conversion with uint8 I/O has:
QUANTIZE (uint8 to int8), FULLY_CONNECTED, SOFTMAX, QUANTIZE (int8 to uint8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parent / "data"
SIDE = 8
CLASSES = 10
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LABELS_TXT = "".join(f"{label}\n" for label in LABELS).encode()

# BuiltinOperator numbers of the TFLite schema.
_FULLY_CONNECTED, _SOFTMAX, _QUANTIZE, _CUSTOM = 9, 25, 114, 32
# TensorType numbers of the TFLite schema.
_TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int8": 9}


def read(name: str) -> bytes:
    """Return the bytes of a committed model, see `MADE` for the names."""
    return (DATA / f"{name}.tflite").read_bytes()


def pattern(label: int) -> NDArray[np.uint8]:
    """Return the image of a class, (8, 8) uint8 of 0 and 255."""
    hadamard = np.ones((1, 1), dtype=np.int8)
    while len(hadamard) < SIDE * SIDE:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    # Row 0 is constant; the next ones differ in every quarter of the image.
    image: NDArray[np.uint8] = np.where(hadamard[5 * label + 3] > 0, 255, 0).astype(np.uint8).reshape(SIDE, SIDE)
    return image


def noisy(label: int, seed: int) -> NDArray[np.uint8]:
    """Return the pattern of a class with noise that does not change its class, (8, 8) uint8."""
    noise = np.random.default_rng(seed).integers(-60, 60, (SIDE, SIDE))
    image: NDArray[np.uint8] = np.clip(pattern(label).astype(np.int64) + noise, 0, 255).astype(np.uint8)
    return image


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    name: str
    shape: Sequence[int]
    dtype: str
    data: NDArray[Any] | None = None
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Op:
    builtin: int
    version: int
    inputs: Sequence[int]
    outputs: Sequence[int]
    custom: str | None = None


def tiny_classifier(
    *, shift: int = 0, fully_connected_version: int = 4, custom_op: str | None = None, channels: int = 1
) -> bytes:
    """Build the int8 classifier: image (1, 8, 8, channels) uint8 to scores (1, 10) uint8.

    Args:
        shift: another model of the same shape: the image of class k scores as (k + shift) modulo 10.
        fully_connected_version: the op version that the file claims; 4 is the true one.
        custom_op: adds a custom op of that name behind the scores.
        channels: 1 (gray) or 3.

    """
    step = 1 / 255
    weights = _weights(shift, channels)
    weight_scale = float(np.abs(weights).max()) / 127
    tensors = [
        _Tensor(name="image", shape=(1, SIDE, SIDE, channels), dtype="uint8", scale=step),
        _Tensor(name="image_int8", shape=(1, SIDE, SIDE, channels), dtype="int8", scale=step, zero_point=-128),
        _Tensor(
            name="weights",
            shape=weights.shape,
            dtype="int8",
            data=np.rint(weights / weight_scale).astype(np.int8),
            scale=weight_scale,
        ),
        _Tensor(
            name="bias",
            shape=(CLASSES,),
            dtype="int32",
            data=np.zeros(CLASSES, dtype=np.int32),
            scale=step * weight_scale,
        ),
        _Tensor(name="logits", shape=(1, CLASSES), dtype="int8", scale=1 / 15),
        _Tensor(name="scores_int8", shape=(1, CLASSES), dtype="int8", scale=1 / 256, zero_point=-128),
        _Tensor(name="scores", shape=(1, CLASSES), dtype="uint8", scale=1 / 256),
    ]
    ops = [
        _Op(builtin=_QUANTIZE, version=1, inputs=(0,), outputs=(1,)),
        _Op(builtin=_FULLY_CONNECTED, version=fully_connected_version, inputs=(1, 2, 3), outputs=(4,)),
        _Op(builtin=_SOFTMAX, version=2, inputs=(4,), outputs=(5,)),
        _Op(builtin=_QUANTIZE, version=1, inputs=(5,), outputs=(6,)),
    ]
    if custom_op is not None:
        tensors.append(_Tensor(name="beyond", shape=(1, CLASSES), dtype="uint8", scale=1 / 256))
        ops.append(_Op(builtin=_CUSTOM, version=1, inputs=(6,), outputs=(7,), custom=custom_op))
    return _serialize(tensors, ops, inputs=(0,), outputs=(len(tensors) - 1,))


def float_classifier(*, shift: int = 0, channels: int = 1, dynamic_batch: bool = False) -> bytes:
    """Build the same classifier in float32: image (1, 8, 8, channels) of 0..1 to scores (1, 10)."""
    weights = _weights(shift, channels)
    tensors = [
        _Tensor(name="image", shape=(1, SIDE, SIDE, channels), dtype="float32"),
        _Tensor(name="weights", shape=weights.shape, dtype="float32", data=weights.astype(np.float32)),
        _Tensor(name="bias", shape=(CLASSES,), dtype="float32", data=np.zeros(CLASSES, dtype=np.float32)),
        _Tensor(name="logits", shape=(1, CLASSES), dtype="float32"),
        _Tensor(name="scores", shape=(1, CLASSES), dtype="float32"),
    ]
    ops = [
        _Op(builtin=_FULLY_CONNECTED, version=1, inputs=(0, 1, 2), outputs=(3,)),
        _Op(builtin=_SOFTMAX, version=1, inputs=(3,), outputs=(4,)),
    ]
    dynamic = frozenset({0, 3, 4}) if dynamic_batch else frozenset[int]()
    return _serialize(tensors, ops, inputs=(0,), outputs=(4,), dynamic=dynamic)


#: Name of a committed file → what builds it.
MADE: Mapping[str, Callable[[], bytes]] = {
    "tiny_classifier": tiny_classifier,
    "tiny_classifier_shifted": lambda: tiny_classifier(shift=1),
    "tiny_classifier_rgb": lambda: tiny_classifier(channels=3),
    "tiny_classifier_float": float_classifier,
    "tiny_classifier_float_dynamic": lambda: float_classifier(dynamic_batch=True),
    "op_version_too_high": lambda: tiny_classifier(fully_connected_version=99),
    "custom_op": lambda: tiny_classifier(custom_op="TflotillaUnknown"),
}


def _weights(shift: int, channels: int) -> NDArray[np.float64]:
    rows = np.stack([pattern((k - shift) % CLASSES).reshape(-1) for k in range(CLASSES)]).astype(np.float64)
    # A quarter per pixel: the logit of a clean pattern is 8, of every other one 0.
    return np.repeat((rows / 255 * 2 - 1) * 0.25, channels, axis=1) / channels


def _serialize(
    tensors: Sequence[_Tensor],
    ops: Sequence[_Op],
    *,
    inputs: Sequence[int],
    outputs: Sequence[int],
    dynamic: frozenset[int] = frozenset(),
) -> bytes:
    import flatbuffers
    import tflite

    writer = _Writer(flatbuffers.Builder(8192), tflite)
    return writer.model(tensors, ops, inputs=inputs, outputs=outputs, dynamic=dynamic)


class _Writer:
    """Writes tables of the TFLite schema; each method returns the offset of what it wrote."""

    def __init__(self, builder: Any, schema: Any) -> None:  # noqa: ANN401 - flatbuffers ships no types
        self._b = builder
        self._s = schema

    def model(
        self,
        tensors: Sequence[_Tensor],
        ops: Sequence[_Op],
        *,
        inputs: Sequence[int],
        outputs: Sequence[int],
        dynamic: frozenset[int],
    ) -> bytes:
        # Buffer 0 is the empty one, by the schema's rule; every constant has its own.
        buffers, tables = [self._buffer(None)], []
        for index, tensor in enumerate(tensors):
            if tensor.data is not None:
                buffers.append(self._buffer(tensor.data.tobytes()))
            number = len(buffers) - 1 if tensor.data is not None else 0
            tables.append(self._tensor(tensor, number, is_dynamic=index in dynamic))
        buffers.append(self._buffer(b"1.14.0".ljust(16, b"\0")))
        codes = list(dict.fromkeys((op.builtin, op.version, op.custom) for op in ops))
        op_tables = self._vector([self._op(op, codes.index((op.builtin, op.version, op.custom))) for op in ops])
        code_tables = self._vector([self._code(*code) for code in codes])
        subgraphs = self._vector([self._subgraph(self._vector(tables), op_tables, inputs, outputs)])
        metadata = self._vector([self._metadata("min_runtime_version", len(buffers) - 1)])
        description, all_buffers = self._b.CreateString("made for tflotilla's tests"), self._vector(buffers)
        self._s.ModelStart(self._b)
        self._s.ModelAddVersion(self._b, 3)
        self._s.ModelAddOperatorCodes(self._b, code_tables)
        self._s.ModelAddSubgraphs(self._b, subgraphs)
        self._s.ModelAddDescription(self._b, description)
        self._s.ModelAddBuffers(self._b, all_buffers)
        self._s.ModelAddMetadata(self._b, metadata)
        self._b.Finish(self._s.ModelEnd(self._b), file_identifier=b"TFL3")
        return bytes(self._b.Output())

    def _vector(self, offsets: Sequence[int]) -> int:
        self._b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._b.PrependUOffsetTRelative(offset)
        return int(self._b.EndVector())

    def _numbers(self, values: Sequence[float], dtype: str) -> int:
        return int(self._b.CreateNumpyVector(np.asarray(values, dtype=dtype)))

    def _buffer(self, data: bytes | None) -> int:
        body = None
        if data is not None:
            # The schema's force_align: kernels read tensors in place.
            self._b.StartVector(1, len(data), 16)
            self._b.head = self._b.head - len(data)
            self._b.Bytes[self._b.head : self._b.head + len(data)] = data
            body = self._b.EndVector()
        self._s.BufferStart(self._b)
        if body is not None:
            self._s.BufferAddData(self._b, body)
        return int(self._s.BufferEnd(self._b))

    def _quantization(self, scale: float, zero_point: int) -> int:
        scales, zero_points = self._numbers([scale], "<f4"), self._numbers([zero_point], "<i8")
        self._s.QuantizationParametersStart(self._b)
        self._s.QuantizationParametersAddScale(self._b, scales)
        self._s.QuantizationParametersAddZeroPoint(self._b, zero_points)
        return int(self._s.QuantizationParametersEnd(self._b))

    def _tensor(self, tensor: _Tensor, buffer: int, *, is_dynamic: bool) -> int:
        name, shape = self._b.CreateString(tensor.name), self._numbers(tensor.shape, "<i4")
        signature = self._numbers([-1, *tensor.shape[1:]], "<i4") if is_dynamic else None
        quantization = self._quantization(tensor.scale, tensor.zero_point) if tensor.scale is not None else None
        self._s.TensorStart(self._b)
        self._s.TensorAddShape(self._b, shape)
        self._s.TensorAddType(self._b, _TYPES[tensor.dtype])
        self._s.TensorAddBuffer(self._b, buffer)
        self._s.TensorAddName(self._b, name)
        if quantization is not None:
            self._s.TensorAddQuantization(self._b, quantization)
        if signature is not None:
            self._s.TensorAddShapeSignature(self._b, signature)
        return int(self._s.TensorEnd(self._b))

    def _code(self, builtin: int, version: int, custom: str | None) -> int:
        name = self._b.CreateString(custom) if custom is not None else None
        self._s.OperatorCodeStart(self._b)
        self._s.OperatorCodeAddDeprecatedBuiltinCode(self._b, builtin)
        if name is not None:
            self._s.OperatorCodeAddCustomCode(self._b, name)
        self._s.OperatorCodeAddVersion(self._b, version)
        self._s.OperatorCodeAddBuiltinCode(self._b, builtin)
        return int(self._s.OperatorCodeEnd(self._b))

    def _op(self, op: _Op, code: int) -> int:
        taken, given, options, kind = self._numbers(op.inputs, "<i4"), self._numbers(op.outputs, "<i4"), None, 0
        if op.builtin == _FULLY_CONNECTED:
            self._s.FullyConnectedOptionsStart(self._b)
            options, kind = self._s.FullyConnectedOptionsEnd(self._b), self._s.BuiltinOptions.FullyConnectedOptions
        elif op.builtin == _SOFTMAX:
            self._s.SoftmaxOptionsStart(self._b)
            self._s.SoftmaxOptionsAddBeta(self._b, 1.0)
            options, kind = self._s.SoftmaxOptionsEnd(self._b), self._s.BuiltinOptions.SoftmaxOptions
        self._s.OperatorStart(self._b)
        self._s.OperatorAddOpcodeIndex(self._b, code)
        self._s.OperatorAddInputs(self._b, taken)
        self._s.OperatorAddOutputs(self._b, given)
        if options is not None:
            self._s.OperatorAddBuiltinOptionsType(self._b, kind)
            self._s.OperatorAddBuiltinOptions(self._b, options)
        return int(self._s.OperatorEnd(self._b))

    def _subgraph(self, tensors: int, ops: int, inputs: Sequence[int], outputs: Sequence[int]) -> int:
        taken, given = self._numbers(inputs, "<i4"), self._numbers(outputs, "<i4")
        name = self._b.CreateString("main")
        self._s.SubGraphStart(self._b)
        self._s.SubGraphAddTensors(self._b, tensors)
        self._s.SubGraphAddInputs(self._b, taken)
        self._s.SubGraphAddOutputs(self._b, given)
        self._s.SubGraphAddOperators(self._b, ops)
        self._s.SubGraphAddName(self._b, name)
        return int(self._s.SubGraphEnd(self._b))

    def _metadata(self, name: str, buffer: int) -> int:
        text = self._b.CreateString(name)
        self._s.MetadataStart(self._b)
        self._s.MetadataAddName(self._b, text)
        self._s.MetadataAddBuffer(self._b, buffer)
        return int(self._s.MetadataEnd(self._b))


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    for made, build in MADE.items():
        (DATA / f"{made}.tflite").write_bytes(build())
