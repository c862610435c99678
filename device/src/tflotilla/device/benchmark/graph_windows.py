"""Some of a .tflite file's operators as a model of their own: cut in its flatbuffer, with nothing but `struct`.

Boards have no flatbuffer library, and need none. A window is the same file with other entries in its vector of
operators, and with other inputs and outputs; weights, names and other subgraphs stay where they are. The order of the
file's operators is the order in which the runtimes run them.

Rules it keeps:
- a window takes along what is computed from constants, and what makes handles: those can't be fed;
- offsets in a flatbuffer only point forward, and tables may share a vtable: entries and lengths are overwritten in
  place, new inputs and outputs are appended, no vtable is touched;
- every offset is checked: a damaged file is a ModelError, never another exception.

Source of the layout: TFLite's schema.fbs (numbers of the fields) and the flatbuffers internals document. What it does
NOT do: load models, time them, or know an op by its number (a runtime says the names).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tflotilla.shared.contract.errors import ModelError

# Fields of the schema's tables, by their order.
_MODEL_OPERATOR_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS, _MODEL_SIGNATURES = 1, 2, 4, 7
_GRAPH_TENSORS, _GRAPH_INPUTS, _GRAPH_OUTPUTS, _GRAPH_OPERATORS = 0, 1, 2, 3
_OPERATOR_CODE, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 0, 1, 2
_CODE_OLD, _CODE_NEW = 0, 3
_TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME, _TENSOR_VARIABLE = 1, 2, 3, 5
_BUFFER_DATA, _BUFFER_OFFSET = 0, 1
#: Handles of variables and lists: no runtime gives them out.
_RESOURCE, _VARIANT = 13, 14
#: What these give out is not constant, whatever goes in: RANDOM_STANDARD_NORMAL, RANDOM_UNIFORM, MULTINOMIAL.
_RANDOM = frozenset({146, 148, 149})
#: A flatbuffer ends before 2 GiB; what weighs more lies behind it, and is not moved.
_LARGEST_BYTES = (1 << 31) - 1
_ALIGNMENT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One operator of the main graph; tensors by their index, -1 is an input that is left out."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    #: The names of its outputs, as `benchmark_model` calls an operator.
    name: str
    #: Whether everything it reads is constant: runtimes compute it once.
    constant: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A model's main graph, and where in the file its parts are."""

    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    #: Tensors that no runtime takes or gives out.
    handles: frozenset[int]
    #: Tensors that need no feeding: their values are in the file, or they are the model's own memory.
    stored: frozenset[int]
    #: Where the operators' tables are, and their vector; where the offsets to inputs and outputs, and the length of the
    #: signatures' vector are.
    tables: tuple[int, ...]
    operators_at: int
    inputs_at: int | None
    outputs_at: int
    signatures_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Operators that run alone: their model, and the tensors that go in and come out, in its order."""

    data: bytes
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read(data: bytes) -> Graph:
    """Read the main graph.

    Raises:
        ModelError: the file is damaged, or has no graph or no outputs.

    """
    try:
        return _read(_Buffer(data))
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise _damaged(error) from error


def cut(data: bytes, graph: Graph, begin: int, end: int) -> Window:
    """Return the model of operators `begin` to `end` (not included); with none of them it gives its inputs back.

    Raises:
        ModelError: the file is too large to be appended to, or these operators can't stand alone.

    """
    if not 0 <= begin <= end <= len(graph.operators):
        message = f"the model has {len(graph.operators)} operators, {begin} to {end} can't be cut out"
        raise ValueError(message)
    chosen = _with_companions(graph, begin, end)
    inputs = _read_by(graph, chosen) if begin else graph.inputs
    outputs = _wanted(graph, chosen, begin, end) or inputs
    if not outputs:
        message = f"operators {begin} to {end} of the model give nothing that could be read"
        raise ModelError(message)
    edited = bytearray(data)
    try:
        _edit(edited, graph, chosen, inputs=inputs if begin else None, outputs=outputs)
    except struct.error as error:
        raise _damaged(error) from error
    return Window(data=bytes(edited), inputs=inputs, outputs=outputs)


def _edit(
    edited: bytearray, graph: Graph, chosen: list[int], *, inputs: tuple[int, ...] | None, outputs: tuple[int, ...]
) -> None:
    """Make the file one of these operators; `inputs` None leaves the model's."""
    _point(edited, graph.outputs_at, outputs)
    if inputs is not None:
        if graph.inputs_at is None:
            message = "the model has no inputs: its operators can't be fed one by one"
            raise ModelError(message)
        _point(edited, graph.inputs_at, inputs)
    struct.pack_into("<I", edited, graph.operators_at, len(chosen))
    for number, operator in enumerate(chosen):
        place = graph.operators_at + 4 + 4 * number
        if graph.tables[operator] < place:
            message = "the file is laid out in an unusual way: its operators can't be cut out"
            raise ModelError(message)
        struct.pack_into("<I", edited, place, graph.tables[operator] - place)
    if graph.signatures_at is not None:
        # They name inputs and outputs that are none any more.
        struct.pack_into("<I", edited, graph.signatures_at, 0)


def _damaged(error: Exception) -> ModelError:
    return ModelError(f"the model's operators can't be told apart: its flatbuffer is damaged ({error})")


def _with_companions(graph: Graph, begin: int, end: int) -> list[int]:
    """Add to a range of operators those before it that they can't do without."""
    makers = {tensor: number for number, operator in enumerate(graph.operators[:begin]) for tensor in operator.outputs}
    chosen = set(range(begin, end))
    # Operators without outputs (CALL_ONCE) fill what handles stand for.
    chosen |= {number for number, operator in enumerate(graph.operators[:begin]) if not operator.outputs}
    waiting = list(chosen)
    while waiting:
        for tensor in graph.operators[waiting.pop()].inputs:
            maker = makers.get(tensor)
            if maker is None or maker in chosen:
                continue
            if graph.operators[maker].constant or tensor in graph.handles:
                chosen.add(maker)
                waiting.append(maker)
    return sorted(chosen)


def _read_by(graph: Graph, chosen: list[int]) -> tuple[int, ...]:
    """Return the tensors that these operators read and none of them makes."""
    made = {tensor for number in chosen for tensor in graph.operators[number].outputs}
    read_by = dict.fromkeys(tensor for number in chosen for tensor in graph.operators[number].inputs if tensor >= 0)
    return tuple(tensor for tensor in read_by if tensor not in made and tensor not in graph.stored)


def _wanted(graph: Graph, chosen: list[int], begin: int, end: int) -> tuple[int, ...]:
    """Return what the range leaves for the operators behind it and for the model's outputs.

    Constants only where there is nothing else: nobody waits for them, and giving them out would cost a copy.
    """
    constant = {
        tensor for number in chosen if graph.operators[number].constant for tensor in graph.operators[number].outputs
    }
    behind = set(graph.outputs).union(*(operator.inputs for operator in graph.operators[end:]))
    made = dict.fromkeys(tensor for operator in graph.operators[begin:end] for tensor in operator.outputs)
    live = [tensor for tensor in made if tensor in behind and tensor not in graph.handles]
    return tuple([tensor for tensor in live if tensor not in constant] or live)


def _point(edited: bytearray, offset_at: int, tensors: tuple[int, ...]) -> None:
    """Append a vector of tensors, and let an offset point to it."""
    edited += bytes(-len(edited) % _ALIGNMENT)
    if len(edited) > _LARGEST_BYTES:
        message = "the model is larger than 2 GiB: its operators can't be timed one by one"
        raise ModelError(message)
    struct.pack_into("<I", edited, offset_at, len(edited) - offset_at)
    edited += struct.pack(f"<I{len(tensors)}i", len(tensors), *tensors)


class _Buffer:
    """A flatbuffer's bytes, read by position; a position outside raises struct.error."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def u32(self, at: int) -> int:
        return self._number("<I", at)

    def field(self, table: int, number: int) -> int | None:
        """Return where a table's field is, None where the file leaves it out."""
        vtable = table - self._number("<i", table)
        if 2 * (number + 2) >= self._number("<H", vtable):
            return None
        offset = self._number("<H", vtable + 2 * (number + 2))
        return table + offset if offset else None

    def value(self, table: int, number: int, form: str) -> int:
        """Return a field's number; 0, the schema's default for all that are read here, where it is left out."""
        at = self.field(table, number)
        return 0 if at is None else self._number(form, at)

    def pointed(self, table: int, number: int) -> int | None:
        """Return the place that an offset in a field points to."""
        at = self.field(table, number)
        return None if at is None else at + self.u32(at)

    def numbers(self, table: int, number: int) -> tuple[int, ...]:
        """Return a vector of int32."""
        at = self.pointed(table, number)
        return () if at is None else struct.unpack_from(f"<{self._length(at)}i", self.data, at + 4)

    def tables(self, table: int, number: int) -> list[int]:
        """Return where the tables of a vector are."""
        at = self.pointed(table, number)
        if at is None:
            return []
        places = range(at + 4, at + 4 + 4 * self._length(at), 4)
        return [place + self.u32(place) for place in places]

    def length(self, table: int, number: int) -> int:
        """Return the length of a vector of whatever."""
        at = self.pointed(table, number)
        return 0 if at is None else self.u32(at)

    def text(self, table: int, number: int) -> str:
        at = self.pointed(table, number)
        return "" if at is None else self.data[at + 4 : at + 4 + self.u32(at)].decode(errors="replace")

    def _length(self, at: int) -> int:
        length = self.u32(at)
        if at + 4 + 4 * length > len(self.data):
            message = f"a vector of {length} at byte {at} goes beyond the file"
            raise struct.error(message)
        return length

    def _number(self, form: str, at: int) -> int:
        if at < 0:
            # struct would count from the end.
            message = f"an offset points before the file, to {at}"
            raise struct.error(message)
        number: int = struct.unpack_from(form, self.data, at)[0]
        return number


def _read(buffer: _Buffer) -> Graph:
    model = buffer.u32(0)
    graphs = buffer.tables(model, _MODEL_SUBGRAPHS)
    if not graphs:
        message = "the model has no graph"
        raise ModelError(message)
    graph = graphs[0]
    outputs_at = buffer.field(graph, _GRAPH_OUTPUTS)
    operators_at = buffer.pointed(graph, _GRAPH_OPERATORS)
    if operators_at is not None and not buffer.u32(operators_at):
        operators_at = None
    if outputs_at is None or operators_at is None:
        message = "the model has no operators" if operators_at is None else "the model has no outputs"
        raise ModelError(message)
    codes = [
        max(buffer.value(code, _CODE_OLD, "<b"), buffer.value(code, _CODE_NEW, "<i"))
        for code in buffer.tables(model, _MODEL_OPERATOR_CODES)
    ]
    filled = [
        buffer.length(place, _BUFFER_DATA) > 0 or buffer.value(place, _BUFFER_OFFSET, "<Q") > 1
        for place in buffer.tables(model, _MODEL_BUFFERS)
    ]
    tensors = buffer.tables(graph, _GRAPH_TENSORS)
    names = [buffer.text(tensor, _TENSOR_NAME) for tensor in tensors]
    variable = {index for index, tensor in enumerate(tensors) if buffer.value(tensor, _TENSOR_VARIABLE, "<B")}
    stored = {index for index, tensor in enumerate(tensors) if filled[buffer.value(tensor, _TENSOR_BUFFER, "<I")]}
    constant = stored - variable
    operators = []
    places = buffer.tables(graph, _GRAPH_OPERATORS)
    for place in places:
        code = codes[buffer.value(place, _OPERATOR_CODE, "<I")]
        inputs, outputs = buffer.numbers(place, _OPERATOR_INPUTS), buffer.numbers(place, _OPERATOR_OUTPUTS)
        given = {tensor for tensor in inputs if tensor >= 0}
        fixed = bool(given) and given <= constant and code not in _RANDOM
        constant |= set(outputs) if fixed else set()
        operators.append(
            Operator(
                inputs=inputs, outputs=outputs, name=", ".join(names[tensor] for tensor in outputs), constant=fixed
            )
        )
    types = [buffer.value(tensor, _TENSOR_TYPE, "<b") for tensor in tensors]
    return Graph(
        operators=tuple(operators),
        inputs=buffer.numbers(graph, _GRAPH_INPUTS),
        outputs=buffer.numbers(graph, _GRAPH_OUTPUTS),
        handles=frozenset(index for index, kind in enumerate(types) if kind in {_RESOURCE, _VARIANT}),
        stored=frozenset(stored | variable),
        tables=tuple(places),
        operators_at=operators_at,
        inputs_at=buffer.field(graph, _GRAPH_INPUTS),
        outputs_at=outputs_at,
        signatures_at=buffer.pointed(model, _MODEL_SIGNATURES),
    )
