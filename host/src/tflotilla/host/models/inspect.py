"""Read what a TFLite file is and needs, from the flatbuffer alone: no runtime, no TensorFlow.

Rules it keeps: every index, length and constant is checked before it is used, so a corrupt file is a ModelError that
says what is wrong, never a wrong answer. What it does NOT do: run the model, or decide what a board can run (that is
`compatibility`); op *versions* are reported because they are the loader's real check.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from tflotilla.shared.contract import digest
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.manifest import ModelRequirements, OpRequirement
from tflotilla.shared.contract.tensors import DType, Quantization, QuantizationScheme, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

IDENTIFIER = b"TFL3"
_HEADER_BYTES = 8
#: Place of `builtin_code` in the table of an operator code's fields.
_BUILTIN_CODE_FIELD = 10
_FLEX = "Flex"
_MIN_RUNTIME = "min_runtime_version"
_EDGES = ("QUANTIZE", "DEQUANTIZE")
_FLOATS = ("float16", "float32", "float64", "bfloat16")
_QUANTIZED_8 = ("int8", "uint8")
#: Bytes of one element; types that are packed or of no fixed size are absent.
_ITEM_BYTES = {
    "float32": 4,
    "float16": 2,
    "float64": 8,
    "bfloat16": 2,
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
}
_BROKEN = (struct.error, ValueError, IndexError, TypeError, OverflowError, KeyError, AttributeError)
#: First bytes of what people hand over instead of a TFLite file.
_OTHER_FILES = (
    (b"\x89HDF\r\n\x1a\n", "a Keras .h5 file; convert it first: tflotilla convert"),
    (b"PK\x03\x04", "a zip archive (a .keras file, or a bundle?)"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"),
    (b"<", "a web page or XML, not a model; was the download refused?"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpCount:
    """One operator of the file: how often it is used, and what kind of kernel it needs."""

    name: str
    version: int
    count: int
    kind: Literal["builtin", "custom", "flex"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSummary:
    """One tensor of a subgraph; `bytes` is the size of its constant data, 0 for activations."""

    subgraph: int
    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None
    constant_bytes: int
    sparse: bool
    variable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SubgraphSummary:
    """One subgraph: the main one is the first, the others are bodies of control flow or further signatures."""

    name: str
    tensors: int
    operators: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureSummary:
    """A named entry point."""

    key: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInspection:
    """What a TFLite file is and needs."""

    size_bytes: int
    sha256: str
    description: str
    scheme: QuantizationScheme
    #: No operator, input or output touches a float: the model runs on integer-only hardware.
    integer_only: bool
    #: Operators other than QUANTIZE and DEQUANTIZE that compute in float, with their number.
    float_ops: tuple[tuple[str, int], ...]
    requirements: ModelRequirements
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ops: tuple[OpCount, ...]
    subgraphs: tuple[SubgraphSummary, ...]
    signatures: tuple[SignatureSummary, ...]
    #: Names of the metadata buffers, sorted.
    metadata: tuple[str, ...]
    #: Files packed behind the model (TFLite metadata): labels, mostly.
    associated_files: tuple[str, ...]
    tensors: tuple[TensorSummary, ...]


def inspect_model(path: Path) -> ModelInspection:
    """Read a TFLite file.

    Raises:
        ModelError: not a TFLite file, corrupt, truncated, or without a subgraph.

    """
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise ModelError(f"{path}: a folder, not a .tflite file") from None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    associated: tuple[str, ...] = ()
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                associated = tuple(sorted(archive.namelist()))
        except (zipfile.BadZipFile, OSError, ValueError):
            associated = ()
    return inspect_bytes(data, str(path), associated_files=associated)


def inspect_bytes(data: bytes, where: str, *, associated_files: tuple[str, ...] = ()) -> ModelInspection:
    """Read a TFLite file from memory; `where` begins the sentence of an error. Raises ModelError."""
    _check_header(data, where)
    try:
        return _Reader(data).inspection(associated_files)
    except _CorruptError as error:
        raise ModelError(f"{where}: corrupt TFLite file: {error}") from error
    except _BROKEN as error:
        # What the flatbuffer library says (offsets, struct formats) helps nobody; it stays in the chain.
        raise ModelError(
            f"{where}: corrupt or truncated TFLite file of {len(data):,} bytes; copy or convert it again"
        ) from error


def looks_like_tflite(data: bytes) -> bool:
    """Whether the first 8 bytes or more are those of a TFLite flatbuffer."""
    return data[4:_HEADER_BYTES] == IDENTIFIER


def _check_header(data: bytes, where: str) -> None:
    if not data:
        raise ModelError(f"{where}: the file is empty")
    if looks_like_tflite(data):
        return
    for start, what in _OTHER_FILES:
        if data.startswith(start):
            raise ModelError(f"{where}: not a TFLite model but {what}")
    raise ModelError(f"{where}: not a TFLite model (no {IDENTIFIER.decode()} mark at byte 4)")


class _CorruptError(Exception):
    """A check failed; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operator:
    subgraph: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class _Reader:
    """Walks the flatbuffer once, checking as it goes."""

    def __init__(self, data: bytes) -> None:
        import tflite

        self.data = data
        self.types = {
            value: name.lower() for name, value in vars(tflite.TensorType).items() if not name.startswith("_")
        }
        self.builtins = {
            value: name for name, value in vars(tflite.BuiltinOperator).items() if not name.startswith("_")
        }
        self.model = tflite.Model.GetRootAs(data, 0)
        self.buffer_bytes = [self._buffer_size(i) for i in range(self.model.BuffersLength())]
        self.codes = [self._code(i) for i in range(self.model.OperatorCodesLength())]
        if self.model.SubgraphsLength() == 0:
            raise _CorruptError("it has no subgraph, so there is nothing to run")
        self.graphs = [self.model.Subgraphs(i) for i in range(self.model.SubgraphsLength())]
        self.tensors = [
            [self._tensor(g, i, graph.Tensors(i)) for i in range(graph.TensorsLength())]
            for g, graph in enumerate(self.graphs)
        ]
        self.used: Counter[int] = Counter()
        self.operators = [op for g in range(len(self.graphs)) for op in self._operators(g)]

    def inspection(self, associated_files: tuple[str, ...]) -> ModelInspection:
        inputs = self._edge(self.graphs[0].InputsAsNumpy, self.graphs[0].InputsLength())
        outputs = self._edge(self.graphs[0].OutputsAsNumpy, self.graphs[0].OutputsLength())
        float_ops = Counter(
            op.name
            for op in self.operators
            if op.name not in _EDGES and any(t.dtype in _FLOATS for t in self._touched(op))
        )
        edges_are_float = any(t.dtype in _FLOATS for t in (*inputs, *outputs))
        edge_ops_exist = any(op.name in _EDGES and self._is_float(op) for op in self.operators)
        return ModelInspection(
            size_bytes=len(self.data),
            sha256=digest.of_bytes(self.data),
            description=(self.model.Description() or b"").decode(errors="replace"),
            scheme=self._scheme(inputs),
            integer_only=not (float_ops or edges_are_float or edge_ops_exist),
            float_ops=tuple(sorted(float_ops.items())),
            requirements=self._requirements(),
            inputs=inputs,
            outputs=outputs,
            ops=self._op_counts(),
            subgraphs=tuple(
                SubgraphSummary(
                    name=(graph.Name() or b"").decode(errors="replace"),
                    tensors=graph.TensorsLength(),
                    operators=graph.OperatorsLength(),
                )
                for graph in self.graphs
            ),
            signatures=tuple(self._signatures()),
            metadata=tuple(sorted(self._metadata_names())),
            associated_files=associated_files,
            tensors=tuple(tensor for graph in self.tensors for tensor in graph),
        )

    def _buffer_size(self, index: int) -> int:
        buffer = self.model.Buffers(index)
        outside = int(buffer.Size())
        if outside > 1:
            # Data behind the flatbuffer, for files above 2 GB.
            if buffer.Offset() + outside > len(self.data):
                raise _CorruptError(f"buffer {index} ends behind the end of the file; was the copy cut off?")
            return outside
        if buffer.DataIsNone():
            return 0
        try:
            return len(buffer.DataAsNumpy())
        except ValueError:
            raise _CorruptError(f"buffer {index} ends behind the end of the file; was the copy cut off?") from None

    def _code(self, index: int) -> tuple[str, int, Literal["builtin", "custom", "flex"]]:
        import tflite

        code = self.model.OperatorCodes(index)
        # Files before schema v3a hold the code in the deprecated byte only, files after it in both, or in the new one
        # only; of that the library's accessor knows nothing.
        builtin = max(_new_builtin_code(code), code.DeprecatedBuiltinCode())
        version = code.Version()
        if builtin == tflite.BuiltinOperator.CUSTOM:
            name = (code.CustomCode() or b"").decode(errors="replace")
            return name, version, "flex" if name.startswith(_FLEX) else "custom"
        return self.builtins.get(builtin, f"BUILTIN_{builtin}"), version, "builtin"

    def _tensor(self, subgraph: int, index: int, tensor: Any) -> TensorSummary:  # noqa: ANN401 - untyped library
        shape = _dimensions(tensor.ShapeAsNumpy, tensor.ShapeLength())
        signature = _dimensions(tensor.ShapeSignatureAsNumpy, tensor.ShapeSignatureLength())
        dtype = self.types.get(tensor.Type(), f"type_{tensor.Type()}")
        name = (tensor.Name() or b"").decode(errors="replace")
        if tensor.Buffer() >= len(self.buffer_bytes):
            raise _CorruptError(f"tensor {name!r} points at buffer {tensor.Buffer()} of {len(self.buffer_bytes)}")
        size = self.buffer_bytes[tensor.Buffer()]
        sparse = tensor.Sparsity() is not None
        wanted = math.prod(shape) * _ITEM_BYTES.get(dtype, 0)
        if size and wanted and not sparse and size != wanted:
            raise _CorruptError(f"tensor {name!r} of shape {list(shape)} takes {wanted} bytes and has {size}")
        return TensorSummary(
            subgraph=subgraph,
            index=index,
            name=name,
            shape=signature if len(signature) == len(shape) else shape,
            dtype=dtype,
            quantization=_quantization(tensor.Quantization(), name),
            constant_bytes=size,
            sparse=sparse,
            variable=bool(tensor.IsVariable()),
        )

    def _operators(self, subgraph: int) -> Iterator[_Operator]:
        graph = self.graphs[subgraph]
        for i in range(graph.OperatorsLength()):
            operator = graph.Operators(i)
            code = operator.OpcodeIndex()
            if code >= len(self.codes):
                raise _CorruptError(f"operator {i} has code {code} of {len(self.codes)}")
            self.used[code] += 1
            yield _Operator(
                subgraph=subgraph,
                name=self.codes[code][0],
                inputs=self._indexes(subgraph, operator.InputsAsNumpy, operator.InputsLength(), f"operator {i}"),
                outputs=self._indexes(subgraph, operator.OutputsAsNumpy, operator.OutputsLength(), f"operator {i}"),
            )

    def _indexes(self, subgraph: int, read: Callable[[], Any], length: int, who: str) -> tuple[int, ...]:
        """Return tensor indexes; -1 marks an optional input that is absent."""
        found = _dimensions(read, length)
        for index in found:
            if not -1 <= index < len(self.tensors[subgraph]):
                raise _CorruptError(f"{who} uses tensor {index} of {len(self.tensors[subgraph])}")
        return tuple(index for index in found if index >= 0)

    def _edge(self, read: Callable[[], Any], length: int) -> tuple[TensorSpec, ...]:
        specs = []
        for index in self._indexes(0, read, length, "the model"):
            tensor = self.tensors[0][index]
            if tensor.dtype not in get_args(DType):
                raise _CorruptError(
                    f"tensor {tensor.name!r} is of type {tensor.dtype}, which no runtime takes or gives"
                )
            specs.append(
                TensorSpec(
                    name=tensor.name,
                    shape=tensor.shape,
                    dtype=cast("DType", tensor.dtype),
                    quantization=tensor.quantization,
                )
            )
        return tuple(specs)

    def _touched(self, operator: _Operator) -> Iterator[TensorSummary]:
        """Yield the activations and constants an operator computes with."""
        for index in (*operator.inputs, *operator.outputs):
            yield self.tensors[operator.subgraph][index]

    def _is_float(self, operator: _Operator) -> bool:
        return any(t.dtype in _FLOATS for t in self._touched(operator))

    def _scheme(self, inputs: tuple[TensorSpec, ...]) -> QuantizationScheme:
        made = [
            self.tensors[op.subgraph][index] for op in self.operators for index in op.outputs if op.name not in _EDGES
        ]
        quantized = {t.dtype for t in made if t.quantization is not None}
        if "int16" in quantized:
            return QuantizationScheme.INT16X8
        if quantized.intersection(_QUANTIZED_8):
            first = next((t.dtype for t in inputs if t.quantization is not None), "float32")
            if first == "uint8":
                return QuantizationScheme.INT8_IO_UINT8
            return QuantizationScheme.INT8_IO_INT8 if first == "int8" else QuantizationScheme.INT8
        constants = [t for graph in self.tensors for t in graph if t.constant_bytes]
        if any(t.dtype == "float16" for t in constants):
            return QuantizationScheme.FLOAT16
        if any(t.dtype in (*_QUANTIZED_8, "int4") and t.quantization is not None for t in constants):
            return QuantizationScheme.DYNAMIC_RANGE
        return QuantizationScheme.FLOAT32

    def _requirements(self) -> ModelRequirements:
        # Every declared code counts, used or not: the loader resolves them all.
        return ModelRequirements(
            ops=tuple(sorted({OpRequirement(name=n, version=v) for n, v, kind in self.codes if kind == "builtin"})),
            custom_ops=tuple(sorted({n for n, _, kind in self.codes if kind == "custom"})),
            flex_ops=tuple(sorted({n for n, _, kind in self.codes if kind == "flex"})),
            min_runtime_version=self._min_runtime_version(),
            arena_bytes=self._arena_bytes(),
        )

    def _min_runtime_version(self) -> str | None:
        for i in range(self.model.MetadataLength()):
            entry = self.model.Metadata(i)
            if (entry.Name() or b"").decode(errors="replace") == _MIN_RUNTIME and entry.Buffer() < len(
                self.buffer_bytes
            ):
                buffer = self.model.Buffers(entry.Buffer())
                text = b"" if buffer.DataIsNone() else bytes(buffer.DataAsNumpy())
                return text.split(b"\0")[0].decode(errors="replace") or None
        return None

    def _arena_bytes(self) -> int | None:
        """Largest sum of activations alive at once in the main subgraph: no planner can use less."""
        tensors = self.tensors[0]
        operators = [op for op in self.operators if op.subgraph == 0]
        born: dict[int, int] = {}
        dies: dict[int, int] = {}
        inputs = _dimensions(self.graphs[0].InputsAsNumpy, self.graphs[0].InputsLength())
        outputs = _dimensions(self.graphs[0].OutputsAsNumpy, self.graphs[0].OutputsLength())
        for index in inputs:
            born[index] = dies[index] = 0
        for step, op in enumerate(operators):
            for index in op.outputs:
                born.setdefault(index, step)
                dies[index] = step
            for index in op.inputs:
                if index in born:
                    dies[index] = step
        for index in outputs:
            if index in born:
                dies[index] = len(operators)
        live = Counter[int]()
        for index, start in born.items():
            tensor = tensors[index]
            if tensor.constant_bytes:
                continue
            if -1 in tensor.shape or tensor.dtype not in _ITEM_BYTES:
                return None
            size = math.prod(tensor.shape) * _ITEM_BYTES[tensor.dtype]
            live[start] += size
            live[dies[index] + 1] -= size
        peak = alive = 0
        for step in sorted(live):
            alive += live[step]
            peak = max(peak, alive)
        return peak

    def _op_counts(self) -> tuple[OpCount, ...]:
        counts: Counter[tuple[str, int, Literal["builtin", "custom", "flex"]]] = Counter()
        for index, code in enumerate(self.codes):
            counts[code] += self.used[index]
        return tuple(
            OpCount(name=name, version=version, count=count, kind=kind)
            for (name, version, kind), count in sorted(counts.items())
        )

    def _signatures(self) -> Iterator[SignatureSummary]:
        for i in range(self.model.SignatureDefsLength()):
            signature = self.model.SignatureDefs(i)
            yield SignatureSummary(
                key=(signature.SignatureKey() or b"").decode(errors="replace"),
                inputs=_names(signature.Inputs(k) for k in range(signature.InputsLength())),
                outputs=_names(signature.Outputs(k) for k in range(signature.OutputsLength())),
            )

    def _metadata_names(self) -> Iterator[str]:
        for i in range(self.model.MetadataLength()):
            yield (self.model.Metadata(i).Name() or b"").decode(errors="replace")


def _new_builtin_code(code: Any) -> int:  # noqa: ANN401 - untyped library
    import flatbuffers

    table = code._tab  # noqa: SLF001 - the one way to the field itself
    offset = table.Offset(_BUILTIN_CODE_FIELD)
    return int(table.Get(flatbuffers.number_types.Int32Flags, offset + table.Pos)) if offset else 0


def _names(maps: Iterable[Any]) -> tuple[str, ...]:
    return tuple((entry.Name() or b"").decode(errors="replace") for entry in maps)


def _dimensions(read: Callable[[], Any], length: int) -> tuple[int, ...]:
    """Read a vector of int32; the library answers 0 instead of an empty array when it is absent."""
    return tuple(int(value) for value in read()) if length else ()


def _quantization(parameters: Any, name: str) -> Quantization | None:  # noqa: ANN401 - untyped library
    if parameters is None or parameters.ScaleLength() == 0:
        return None
    scales = tuple(float(value) for value in parameters.ScaleAsNumpy())
    if not all(math.isfinite(scale) for scale in scales):
        raise _CorruptError(f"tensor {name!r} has a scale that is not a number")
    zero_points = _dimensions(parameters.ZeroPointAsNumpy, parameters.ZeroPointLength()) or (0,) * len(scales)
    return Quantization(scales=scales, zero_points=zero_points, axis=int(parameters.QuantizedDimension()))
