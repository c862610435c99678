"""How the weights of a float TFLite file are stored: in 16 bits, in 8, or back in 32. No TensorFlow.

    16 bits   every weight behind a DEQUANTIZE, as TFLiteConverter stores float16
    8 bits    where kernels take int8 weights beside float activations (CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, and
              GATHER, which only moves numbers), as TFLiteConverter's dynamic range; everywhere else behind a DEQUANTIZE

Rules it keeps: an operator gets the version that TensorFlow's `op_version.cc` gives such a use, for a kernel that is
older accepts a lower one and answers zeros; the same model gives the same bytes; a weight that 16 bits can't hold, and
one too small to be worth the trouble, stays as it is. Scales are symmetric: largest magnitude / 127 (TFLite's
quantization specification). What it does NOT do: quantize activations, or judge the result.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import flatbuffer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_SCHEMA = flatbuffer.SCHEMA
_OPS = _SCHEMA.BuiltinOperator
_INT8_MAX = 127.0
#: Below this TFLiteConverter leaves weights alone too: the scales would eat the gain.
_LEAST_INT8_ELEMENTS = 1024
#: A DEQUANTIZE and a second tensor take about this much of the file.
_LEAST_FLOAT16_ELEMENTS = 64
#: Versions of DEQUANTIZE by what it reads.
_DEQUANTIZE_VERSIONS = {"float16": 3, "int8": 2}
#: Their kernels look at float constants before anything has run, or they compute no numbers from them.
_NEEDS_CONSTANTS = frozenset({_OPS.RANGE, _OPS.CUSTOM, _OPS.CALL_ONCE, _OPS.WHILE, _OPS.IF, _OPS.DEQUANTIZE})
_WEIGHT, _CONV_RANK = 1, 4
_GATHER_INT8_VERSION = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Slots:
    """Which of an operator's inputs is what."""

    input: int
    weight: int
    bias: int


_USUAL = _Slots(input=0, weight=_WEIGHT, bias=2)
_MULTIPLIERS = {
    _OPS.CONV_2D: _USUAL,
    _OPS.DEPTHWISE_CONV_2D: _USUAL,
    _OPS.FULLY_CONNECTED: _USUAL,
    _OPS.TRANSPOSE_CONV: _Slots(input=2, weight=_WEIGHT, bias=3),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    operator: Any
    slot: int


def from_float16(model: Any) -> int:  # noqa: ANN401 - generated code without types
    """Make weights of 16 bits weights of 32 again, where a DEQUANTIZE did so at run time; return how many."""
    found = 0
    for graph in model.subgraphs:
        kept = []
        for operator in graph.operators or ():
            source = graph.tensors[operator.inputs[0]] if _code(model, operator) == _OPS.DEQUANTIZE else None
            values = None if source is None else flatbuffer.constant(model, source)
            if values is None or values.dtype != np.float16:
                kept.append(operator)
                continue
            flatbuffer.set_constant(model, graph.tensors[operator.outputs[0]], values.astype(np.float32))
            found += 1
        graph.operators = kept
    if found:
        tidy(model)
    return found


def to_float16(model: Any) -> None:  # noqa: ANN401 - generated code without types
    """Store the weights in 16 bits; the model computes in 32."""
    for graph in model.subgraphs:
        for index, values, uses in _weights(model, graph):
            if values.size < _LEAST_FLOAT16_ELEMENTS or np.abs(values).max() > np.finfo(np.float16).max:
                continue
            _store(model, graph, index, values.astype(np.float16), uses)
    tidy(model)


def to_int8(model: Any, *, per_channel: bool = True, per_channel_dense: bool = True) -> None:  # noqa: ANN401
    """Store the weights in 8 bits; activations stay float.

    `per_channel` is about convolutions and fully connected layers, `per_channel_dense` about the latter alone.
    """
    for graph in model.subgraphs:
        for index, values, uses in _weights(model, graph):
            if values.size < _LEAST_INT8_ELEMENTS:
                continue
            kinds = {(_code(model, use.operator), use.slot) for use in uses}
            axis = _axis(kinds, per_channel=per_channel, per_channel_dense=per_channel_dense)
            stored, scales = _quantized(values, axis)
            tensor = graph.tensors[index]
            if kinds == {(_OPS.GATHER, 0)}:
                _store_table(model, graph, tensor, stored, scales, uses)
            elif all(_is_hybrid(model, graph, use, values, scales) for use in uses):
                flatbuffer.set_constant(model, tensor, stored)
                tensor.quantization = _parameters(scales, axis)
                for use in uses:
                    _mark_hybrid(model, use.operator, channels=len(scales))
            else:
                stored, scales = _quantized(values, None)
                _store(model, graph, index, stored, uses, _parameters(scales, None))
    tidy(model)


def to_one_scale(model: Any, floats: Any) -> None:  # noqa: ANN401 - generated code without types
    """Give every 8-bit weight that an integer operator multiplies by one scale, from its values in the float file.

    `floats` is that file: its tensors have the same names. Biases are in units of input scale times weight scale.
    """
    values = {
        flatbuffer.tensor_name(tensor): found
        for graph in floats.subgraphs
        for tensor in graph.tensors
        if flatbuffer.dtype(tensor) == "float32" and (found := flatbuffer.constant(floats, tensor)) is not None
    }
    done: set[int] = set()
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            slots = _MULTIPLIERS.get(_code(model, operator))
            if slots is None:
                continue
            weight = graph.tensors[operator.inputs[slots.weight]]
            scales = None if weight.quantization is None else weight.quantization.scale
            if scales is None or (len(scales) == 1 and id(weight) not in done):
                continue
            if id(weight) not in done:
                done.add(id(weight))
                stored, one = _quantized(values[flatbuffer.tensor_name(weight)], None)
                flatbuffer.set_constant(model, weight, stored)
                weight.quantization = _parameters(one, None)
            if len(operator.inputs) > slots.bias and operator.inputs[slots.bias] >= 0:
                _rescale_bias(model, graph, operator, slots)
    tidy(model)


def _rescale_bias(model: Any, graph: Any, operator: Any, slots: _Slots) -> None:  # noqa: ANN401 - generated code
    bias = graph.tensors[operator.inputs[slots.bias]]
    stored = flatbuffer.constant(model, bias)
    if stored is None or bias.quantization is None or bias.quantization.scale is None:
        return
    weight, source = graph.tensors[operator.inputs[slots.weight]], graph.tensors[operator.inputs[slots.input]]
    unit = np.float64(source.quantization.scale[0]) * np.float64(weight.quantization.scale[0])
    limits = np.iinfo(stored.dtype)
    real = stored.astype(np.float64) * np.asarray(bias.quantization.scale, dtype=np.float64)
    moved = np.clip(np.rint(real / unit), limits.min, limits.max).astype(stored.dtype)
    flatbuffer.set_constant(model, bias, moved)
    bias.quantization = _parameters(np.array([unit], dtype=np.float32), None)


def tidy(model: Any) -> None:  # noqa: ANN401 - generated code without types
    """Drop tensors, buffers and operator codes that nothing uses any more, and keep equal weights once."""
    codes: dict[int, int] = {}
    for number, graph in enumerate(model.subgraphs):
        _drop_tensors(graph, [entry for entry in model.signatureDefs or () if entry.subgraphIndex == number])
        for operator in graph.operators or ():
            operator.opcodeIndex = codes.setdefault(operator.opcodeIndex, len(codes))
    model.operatorCodes = [model.operatorCodes[old] for old in codes]
    buffers = [_SCHEMA.BufferT()]  # the first is empty, by the schema
    places: dict[bytes, int] = {b"": 0}

    def moved(old: int, *, shared: bool) -> int:
        data = model.buffers[old].data
        content = b"" if data is None else bytes(bytearray(data))
        if not shared or content not in places:
            places.setdefault(content, len(buffers))
            buffers.append(model.buffers[old])
            return len(buffers) - 1
        return places[content]

    for graph in model.subgraphs:
        for tensor in graph.tensors or ():
            # A variable's memory is its own, however equal it begins.
            tensor.buffer = moved(tensor.buffer, shared=not tensor.isVariable)
    for entry in model.metadata or ():
        entry.buffer = moved(entry.buffer, shared=False)
    model.metadataBuffer = None
    model.buffers = buffers


def _drop_tensors(graph: Any, signatures: Sequence[Any]) -> None:  # noqa: ANN401 - generated code without types
    places = [(operator, name) for operator in graph.operators or () for name in ("inputs", "outputs", "intermediates")]
    places += [(graph, "inputs"), (graph, "outputs")]
    named = [entry for signature in signatures for entry in (*(signature.inputs or ()), *(signature.outputs or ()))]
    lists = [
        (owner, name, [int(i) for i in found]) for owner, name in places if (found := getattr(owner, name)) is not None
    ]
    used = {i for _, _, found in lists for i in found if i >= 0} | {int(entry.tensorIndex) for entry in named}
    # -1 stands for an optional input that is absent.
    moved = {old: new for new, old in enumerate(sorted(used))} | {-1: -1}
    for owner, name, found in lists:
        setattr(owner, name, np.array([moved[i] for i in found], dtype=np.int32))
    for entry in named:
        entry.tensorIndex = moved[int(entry.tensorIndex)]
    graph.tensors = [graph.tensors[old] for old in sorted(used)]


def _weights(model: Any, graph: Any) -> Iterator[tuple[int, NDArray[np.float32], list[_Use]]]:  # noqa: ANN401
    """Yield index, values and uses of every float constant that is used, and only where a computed one does as well."""
    uses: dict[int, list[_Use]] = defaultdict(list)
    for operator in graph.operators or ():
        for slot, index in enumerate(operator.inputs if operator.inputs is not None else ()):
            if index >= 0:
                uses[int(index)].append(_Use(operator=operator, slot=slot))
    edges = {int(i) for side in (graph.inputs, graph.outputs) for i in (side if side is not None else ())}
    for index, users in sorted(uses.items()):
        tensor = graph.tensors[index]
        if index in edges or tensor.isVariable or flatbuffer.dtype(tensor) != "float32":
            continue
        values = flatbuffer.constant(model, tensor)
        if values is None or any(_code(model, use.operator) in _NEEDS_CONSTANTS for use in users):
            continue
        yield index, values, users


def _store(
    model: Any,  # noqa: ANN401 - generated code without types
    graph: Any,  # noqa: ANN401
    index: int,
    stored: NDArray[Any],
    uses: Sequence[_Use],
    quantization: Any = None,  # noqa: ANN401
) -> None:
    """Put the stored values behind a DEQUANTIZE whose output takes the place of the weight."""
    tensor = graph.tensors[index]
    opened = _SCHEMA.TensorT()
    opened.name = f"{flatbuffer.tensor_name(tensor)}_dequantized".encode()
    opened.shape, opened.type, opened.buffer = tensor.shape, tensor.type, 0
    graph.tensors.append(opened)
    flatbuffer.set_constant(model, tensor, stored)
    tensor.quantization = quantization
    for use in uses:
        inputs = np.array(use.operator.inputs, dtype=np.int32)
        inputs[use.slot] = len(graph.tensors) - 1
        use.operator.inputs = inputs
    graph.operators.insert(0, _dequantize(model, index, len(graph.tensors) - 1, stored.dtype.name))


def _store_table(
    model: Any,  # noqa: ANN401 - generated code without types
    graph: Any,  # noqa: ANN401
    table: Any,  # noqa: ANN401
    stored: NDArray[np.int8],
    scales: NDArray[np.float32],
    uses: Sequence[_Use],
) -> None:
    """Look up rows of int8 and make only these float: opening the whole table would cost its float size in memory."""
    flatbuffer.set_constant(model, table, stored)
    table.quantization = _parameters(scales, None)
    for use in uses:
        answer = int(use.operator.outputs[0])
        rows = _SCHEMA.TensorT()
        rows.name = f"{flatbuffer.tensor_name(graph.tensors[answer])}_int8".encode()
        rows.shape, rows.buffer = graph.tensors[answer].shape, 0
        flatbuffer.set_dtype(rows, "int8")
        rows.quantization = _parameters(scales, None)
        graph.tensors.append(rows)
        use.operator.outputs = np.array([len(graph.tensors) - 1], dtype=np.int32)
        use.operator.opcodeIndex = _opcode(model, _OPS.GATHER, _GATHER_INT8_VERSION)
        place = next(i for i, operator in enumerate(graph.operators) if operator is use.operator)
        graph.operators.insert(place + 1, _dequantize(model, len(graph.tensors) - 1, answer, "int8"))


def _dequantize(model: Any, source: int, target: int, dtype: str) -> Any:  # noqa: ANN401 - generated code
    operator = _SCHEMA.OperatorT()
    operator.opcodeIndex = _opcode(model, _OPS.DEQUANTIZE, _DEQUANTIZE_VERSIONS[dtype])
    operator.inputs = np.array([source], dtype=np.int32)
    operator.outputs = np.array([target], dtype=np.int32)
    operator.builtinOptionsType = _SCHEMA.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = _SCHEMA.DequantizeOptionsT()
    return operator


def _axis(kinds: set[tuple[int, int]], *, per_channel: bool, per_channel_dense: bool) -> int | None:
    """Return which dimension of a weight gets scales of its own; None is one scale for all."""
    if not per_channel:
        return None
    if kinds == {(_OPS.DEPTHWISE_CONV_2D, _WEIGHT)}:
        return 3
    if kinds == {(_OPS.CONV_2D, _WEIGHT)} or (per_channel_dense and kinds == {(_OPS.FULLY_CONNECTED, _WEIGHT)}):
        return 0
    return None


def _is_hybrid(
    model: Any,  # noqa: ANN401 - generated code without types
    graph: Any,  # noqa: ANN401
    use: _Use,
    values: NDArray[Any],
    scales: NDArray[np.float32],
) -> bool:
    """Whether the operator's kernel multiplies float activations with such a weight of int8."""
    code = _code(model, use.operator)
    if use.slot != _WEIGHT:
        return False
    if code == _OPS.FULLY_CONNECTED:
        return bool(use.operator.builtinOptions.weightsFormat == 0)
    if code not in (_OPS.CONV_2D, _OPS.DEPTHWISE_CONV_2D) or values.ndim != _CONV_RANK:
        return False
    shape = flatbuffer.shape(graph.tensors[use.operator.inputs[0]])
    if code == _OPS.CONV_2D:
        # Groups of channels are for float and for integers, not for both at once.
        return len(shape) == _CONV_RANK and shape[-1] == values.shape[-1]
    return len(scales) == values.shape[-1]


def _mark_hybrid(model: Any, operator: Any, *, channels: int) -> None:  # noqa: ANN401 - generated code without types
    code = _code(model, operator)
    many = channels > 1
    if code == _OPS.FULLY_CONNECTED:
        operator.builtinOptions.asymmetricQuantizeInputs = True
        version = 12 if many else 9
    elif code == _OPS.CONV_2D:
        version = 5 if many else 2
    else:
        version = 6
    was = model.operatorCodes[operator.opcodeIndex].version
    operator.opcodeIndex = _opcode(model, code, max(version, was))


def _quantized(values: NDArray[np.float32], axis: int | None) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    others = None if axis is None else tuple(i for i in range(values.ndim) if i != axis)
    peak = np.abs(values).max(axis=others, keepdims=True).astype(np.float64)
    scales = np.where(peak > 0, peak / _INT8_MAX, 1.0)
    stored = np.clip(np.rint(values / scales), -_INT8_MAX, _INT8_MAX).astype(np.int8)
    return stored, scales.ravel().astype(np.float32)


def _parameters(scales: NDArray[np.float32], axis: int | None) -> Any:  # noqa: ANN401 - generated code without types
    found = _SCHEMA.QuantizationParametersT()
    found.scale = scales
    found.zeroPoint = np.zeros(len(scales), dtype=np.int64)
    found.quantizedDimension = axis or 0
    return found


def _code(model: Any, operator: Any) -> int:  # noqa: ANN401 - generated code without types
    code = model.operatorCodes[operator.opcodeIndex]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def _opcode(model: Any, builtin: int, version: int) -> int:  # noqa: ANN401 - generated code without types
    """Return the index of an operator code, new when the model has none like it."""
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin and code.version == version:
            return index
    code = _SCHEMA.OperatorCodeT()
    code.builtinCode, code.version = builtin, version
    code.deprecatedBuiltinCode = min(builtin, _SCHEMA.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
