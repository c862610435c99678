"""The real numbers of constants that are stored quantized: per tensor, per channel, in blocks, four bits, sparse.

Source: the TFLite 8-bit quantization specification, real = scale * (stored - zero point); and for sparse tensors the
comments of `SparsityParameters` in TFLite's schema. What it does NOT do: quantize.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import flatbuffer
from tflotilla.host.models.flatbuffer import SCHEMA
from tflotilla.shared.contract.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    #: Of one quantized tensor: scales and zero points, each of shape (1,) or (channels,).
    Steps = tuple[NDArray[np.float64], NDArray[np.float64]]

_QUANTIZED = ("int8", "uint8", "int16", "int32", "int64")
_LOW_NIBBLE = 0x0F
_NIBBLE_SIGN = 8


def is_constant(model: Any, tensor: Any) -> bool:  # noqa: ANN401 - generated code without types
    """Whether the file holds the tensor's values."""
    buffer = model.buffers[tensor.buffer]
    return bool(tensor.buffer) and ((buffer.data is not None and len(buffer.data) > 0) or bool(buffer.offset))


def steps(tensor: Any) -> Steps | None:  # noqa: ANN401 - generated code without types
    """Return scales and zero points; None for a tensor that isn't quantized."""
    parameters = tensor.quantization
    if parameters is None or parameters.scale is None or not np.any(parameters.scale) or not dtype(tensor):
        return None
    scales = np.asarray(parameters.scale, dtype=np.float64).reshape(-1)
    given = parameters.zeroPoint
    empty = given is None or not np.size(given)
    zero_points = np.zeros(1) if empty else np.asarray(given, dtype=np.float64).reshape(-1)
    return scales, np.broadcast_to(zero_points, scales.shape) if len(zero_points) == 1 else zero_points


def is_quantized(tensor: Any) -> bool:  # noqa: ANN401 - generated code without types
    """Whether the tensor holds steps that stand for real numbers."""
    return dtype(tensor) != "" and (steps(tensor) is not None or _blocks(tensor) is not None)


def dtype(tensor: Any) -> str:  # noqa: ANN401 - generated code without types
    """Return the name of an integer type that can be quantized, int4 among them; "" for every other type."""
    if tensor.type == SCHEMA.TensorType.INT4:
        return "int4"
    name = flatbuffer.dtype(tensor)
    return name if name in _QUANTIZED else ""


def limits(name: str) -> tuple[int, int]:
    """Return the smallest and the largest number that a type can store."""
    if name == "int4":
        return -_NIBBLE_SIGN, _NIBBLE_SIGN - 1
    return int(np.iinfo(name).min), int(np.iinfo(name).max)


def stored(model: Any, tensor: Any) -> NDArray[Any]:  # noqa: ANN401 - generated code without types
    """Return a constant's numbers as they are stored, dense and of its shape; int4 as int8.

    Raises:
        ModelError: its bytes don't fill its shape, or it is sparse in a way that the schema has not.

    """
    shape = flatbuffer.shape(tensor)
    raw = np.asarray(model.buffers[tensor.buffer].data, dtype=np.uint8)
    if dtype(tensor) == "int4":
        nibbles = np.stack([raw & _LOW_NIBBLE, raw >> 4], axis=-1).reshape(-1).astype(np.int8)
        signed = np.where(nibbles >= _NIBBLE_SIGN, nibbles - 2 * _NIBBLE_SIGN, nibbles).astype(np.int8)
        values: NDArray[Any] = signed if tensor.sparsity is not None else signed[: math.prod(shape)]
    else:
        values = np.frombuffer(raw.tobytes(), dtype=flatbuffer.dtype(tensor))
    if tensor.sparsity is not None:
        return _densify(values, shape, tensor)
    try:
        return values.reshape(shape)
    except ValueError as error:
        name = flatbuffer.tensor_name(tensor)
        raise ModelError(f"tensor {name!r}: {values.size} values for shape {shape}") from error


def real(model: Any, tensor: Any) -> NDArray[np.float32]:  # noqa: ANN401 - generated code without types
    """Return a constant's real numbers, float32, of its shape. Raises ModelError as `stored` does."""
    values = stored(model, tensor)
    blocks = _blocks(tensor)
    if blocks is not None:
        return _of_blocks(model, tensor, values, blocks)
    found = steps(tensor)
    if found is None:
        return values.astype(np.float32)
    scales, zero_points = found
    if len(scales) == 1:
        plain: NDArray[np.float64] = scales[0] * (values.astype(np.float64) - zero_points[0])
        return plain.astype(np.float32)
    across = along(tensor)
    if values.ndim <= across or values.shape[across] != len(scales):
        name = flatbuffer.tensor_name(tensor)
        raise ModelError(f"tensor {name!r}: {len(scales)} scales along axis {across} of shape {values.shape}")
    wide = [1] * values.ndim
    wide[across] = len(scales)
    made: NDArray[np.float64] = scales.reshape(wide) * (values.astype(np.float64) - zero_points.reshape(wide))
    return made.astype(np.float32)


def along(tensor: Any) -> int:  # noqa: ANN401 - generated code without types
    """Return the axis of the channels; of a vector 0, whatever the file says (some biases repeat their weight's)."""
    return int(tensor.quantization.quantizedDimension) if len(flatbuffer.shape(tensor)) > 1 else 0


def block_scales(model: Any, tensor: Any) -> NDArray[np.float64] | None:  # noqa: ANN401 - generated code without types
    """Return the scales of a tensor that is quantized in blocks, None for every other one."""
    blocks = _blocks(tensor)
    if blocks is None:
        return None
    found = flatbuffer.constant(model, model.subgraphs[0].tensors[blocks.scales])
    if found is None:
        raise ModelError(f"tensor {flatbuffer.tensor_name(tensor)!r}: the scales of its blocks are not in the file")
    return found.astype(np.float64)


def _blocks(tensor: Any) -> Any:  # noqa: ANN401 - generated code without types
    parameters = tensor.quantization
    kind = getattr(SCHEMA.QuantizationDetails, "BlockwiseQuantization", None)
    if parameters is None or kind is None or parameters.detailsType != kind:
        return None
    return parameters.details


def _of_blocks(model: Any, tensor: Any, values: NDArray[Any], blocks: Any) -> NDArray[np.float32]:  # noqa: ANN401
    scales = block_scales(model, tensor)
    size = int(blocks.blockSize)
    assert scales is not None  # noqa: S101 - the caller has looked
    if size < 1 or scales.size * size != values.size:
        name = flatbuffer.tensor_name(tensor)
        raise ModelError(f"tensor {name!r}: {scales.size} blocks of {size} for {values.size} values")
    grouped: NDArray[np.float64] = values.astype(np.float64).reshape(-1, size) * scales.reshape(-1, 1)
    return grouped.reshape(values.shape).astype(np.float32)


def _densify(values: NDArray[Any], shape: tuple[int, ...], tensor: Any) -> NDArray[Any]:  # noqa: ANN401
    """Walk the dimensions in the order they are stored in; each is dense or a list of segments (CSR)."""
    sparsity = tensor.sparsity
    order = [int(d) for d in sparsity.traversalOrder]
    block_map = [] if sparsity.blockMap is None else [int(d) for d in sparsity.blockMap]
    dense = np.zeros(shape, dtype=values.dtype)
    block_sizes = {block_map[i]: int(sparsity.dimMetadata[len(shape) + i].denseSize) for i in range(len(block_map))}
    try:
        for number, place in enumerate(_places(list(sparsity.dimMetadata), 0, 0)):
            index = [0] * len(shape)
            for level, position in zip(order, place, strict=True):
                if level < len(shape):
                    index[level] += position * block_sizes.get(level, 1)
                else:
                    index[block_map[level - len(shape)]] += position
            dense[tuple(index)] = values[number]
    except (IndexError, ValueError, TypeError) as error:
        raise ModelError(f"tensor {flatbuffer.tensor_name(tensor)!r}: its sparse encoding is broken") from error
    return dense


def _places(levels: list[Any], depth: int, parent: int) -> Iterator[tuple[int, ...]]:
    if depth == len(levels):
        yield ()
        return
    level = levels[depth]
    if level.format == SCHEMA.DimensionType.DENSE:
        size = int(level.denseSize)
        pairs: Any = ((position, parent * size + position) for position in range(size))
    else:
        segments, indices = level.arraySegments.values, level.arrayIndices.values
        pairs = ((int(indices[i]), i) for i in range(int(segments[parent]), int(segments[parent + 1])))
    for position, child in pairs:
        for rest in _places(levels, depth + 1, child):
            yield (position, *rest)
