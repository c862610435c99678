"""Runs a quantized file and its reference sample by sample, and adds up the errors of every layer.

Rules it keeps: built-in kernels only (no XNNPACK, no delegate), so that every activation can be read and every machine
computes the same; an operator that can't be run by itself costs its own local figures only; a model that keeps a state
starts anew with every sample. What it does NOT do: survive a runtime that crashes; it is run in a child.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import flatbuffer
from tflotilla.host.models.layers import constants, inputs, severed
from tflotilla.host.models.layers import reference as references
from tflotilla.host.models.layers.report import LayerError, OutputError, Unmeasured
from tflotilla.host.models.layers.statistics import Difference, Extent
from tflotilla.host.models.layers.twin import REWRITERS
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.quantization import dequantize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from tflotilla.host.models.layers.inputs import Tensors
    from tflotilla.host.models.layers.reference import Reference
    from tflotilla.shared.contract.tensors import TensorSpec

    #: Tensor index → its numbers.
    Values = dict[int, NDArray[Any]]

#: Their outputs are a choice, in an order of theirs: a difference of two is no error of rounding.
_CHOOSING = ("TFLite_Detection_PostProcess", "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5")
_FLOATS = ("float32", "float64")
_OPTIONS = runtimes.LoadOptions(xnnpack=False)
_FAILED_NODE = re.compile(r"[Nn]ode number (\d+)")
#: Rounding puts a value up to half a step beyond the last number; a whole step beyond, it was cut off.
_BEYOND_STEPS = 1.01
_INPUT = "INPUT"
#: Scales are float32: beyond these digits a share is rounding.
_SHARE_DIGITS = 6


@dataclass(slots=True, kw_only=True)
class _Row:
    """One tensor to be measured."""

    operator: int
    op: str
    index: int
    accumulated: Difference = field(default_factory=Difference)
    local: Difference = field(default_factory=Difference)
    seen: Extent = field(default_factory=Extent)
    exact: Extent = field(default_factory=Extent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found."""

    layers: tuple[LayerError, ...]
    outputs: tuple[OutputError, ...]
    unmeasured: tuple[Unmeasured, ...]


class Comparison:
    """A quantized file beside its reference."""

    def __init__(
        self, quantized: bytes, reference: Reference, engine: runtimes.Runtime, *, with_local: bool = True
    ) -> None:
        """Load both.

        Raises:
            ModelError: a runtime refuses either, or nothing in the file can be run.

        """
        self._model = flatbuffer.read(quantized)
        self._graph = self._model.subgraphs[0]
        self._operators = list(self._graph.operators or ())
        self._reference = reference
        self._engine = engine
        self._stopped = severed.stopped_at(self._model)
        if len(self._stopped) == len(self._operators):
            names = ", ".join(dict.fromkeys(self._stopped.values())) or "none"
            raise ModelError(f"no operator that a plain runtime can run (it has {names})")
        self._exposed = severed.exposed(self._model, self._stopped)
        self._reference_exposed = severed.exposed(reference.model, severed.stopped_at(reference.model))
        self._rows = {row.index: row for row in self._make_rows()}
        self._outputs = {i: Difference() for i in _indexes(self._graph.outputs)}
        self._why: dict[int, str] = {}
        self._cells = self._make_cells() if with_local else {}
        self._stateful = _has_state(self._model)
        self._ours, self._theirs = self._load()
        self._alone: tuple[tuple[tuple[int, ...], ...], severed.Severed, runtimes.LoadedModel] | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the quantized file takes."""
        return self._ours.inputs

    def add(self, sample: Tensors, real: Tensors | None) -> None:
        """Run one sample; `real` are the numbers before the input was quantized, where they are known.

        Raises:
            ModelError: a kernel failed, or the two networks don't take the same inputs.

        """
        if self._stateful:
            self._ours, self._theirs = self._load()
            self._alone = None
        meaning = inputs.meaning(sample, self._ours.inputs)
        raw = self._run(self._ours, sample, self._exposed.tensors, self._graph)
        ours = self._real(raw)
        start = real if real is not None and self._reference.is_other_file else meaning
        graph = self._reference.model.subgraphs[0]
        theirs = self._run(self._theirs, start, self._reference_exposed.tensors, graph)
        self._compare_inputs(ours, real)
        alone = self._run_alone(raw, ours)
        for row in self._rows.values():
            if row.op != _INPUT:
                self._compare(row, ours, theirs, alone)
        for index, difference in self._outputs.items():
            expected = theirs.get(self._reference.tensors.get(index, -1))
            if index in ours and expected is not None and expected.shape == ours[index].shape:
                difference.add(ours[index], expected)

    def findings(self) -> Findings:
        """Return the errors so far, in the order of the operators."""
        layers, unmeasured = [], [*self._left_out()]
        for row in self._rows.values():
            made = self._layer(row)
            if made is None:
                unmeasured.append(self._unmeasured(row, "no finite number came out"))
                continue
            layers.append(made)
            if row.operator in self._why and made.local_sqnr_db is None:
                unmeasured.append(self._unmeasured(row, self._why[row.operator]))
        outputs = tuple(
            OutputError(tensor=self._name(index), sqnr_db=None if self._is_choice(index) else difference.sqnr_db)
            for index, difference in self._outputs.items()
        )
        return Findings(layers=tuple(layers), outputs=outputs, unmeasured=tuple(unmeasured))

    def _load(self) -> tuple[runtimes.LoadedModel, runtimes.LoadedModel]:
        ours = self._engine.load(self._exposed.data, _OPTIONS)
        try:
            return ours, self._engine.load(self._reference_exposed.data, _OPTIONS)
        except ModelError as error:
            which = "the float model" if self._reference.is_other_file else "its float twin"
            raise ModelError(f"{which}: {error}") from error

    def _make_rows(self) -> Iterator[_Row]:
        for index in _indexes(self._graph.inputs):
            if constants.is_quantized(self._graph.tensors[index]):
                yield self._row(-1, _INPUT, index)
        exposed = set(self._exposed.tensors)
        for number, operator in enumerate(self._operators):
            op = flatbuffer.op_name(self._model, operator)
            if number in self._stopped or op in (*_CHOOSING, "DEQUANTIZE", "DENSIFY"):
                continue
            for index in _indexes(operator.outputs):
                if index in exposed and self._is_real(index):
                    yield self._row(number, op, index)

    def _row(self, number: int, op: str, index: int) -> _Row:
        lowest, highest, scale = _range(self._graph.tensors[index])
        row = _Row(operator=number, op=op, index=index)
        if scale is not None and lowest is not None and highest is not None:
            row.exact = Extent(lowest - _BEYOND_STEPS * scale, highest + _BEYOND_STEPS * scale)
        return row

    def _is_real(self, index: int) -> bool:
        tensor = self._graph.tensors[index]
        return constants.is_quantized(tensor) or flatbuffer.dtype(tensor) in _FLOATS

    def _make_cells(self) -> dict[int, severed.Cell]:
        cells = {}
        for number in dict.fromkeys(row.operator for row in self._rows.values() if row.op not in (*REWRITERS, _INPUT)):
            made = references.cell(self._model, self._reference, number)
            if isinstance(made, str):
                self._why[number] = made
            else:
                cells[number] = made
        return cells

    def _run(self, loaded: runtimes.LoadedModel, tensors: Tensors, indexes: Sequence[int], graph: Any) -> Values:  # noqa: ANN401
        try:
            loaded.set_inputs(tensors)
        except ValueError as error:
            raise ModelError(f"can't be fed: {error}") from error
        loaded.invoke()
        found = dict(zip(indexes, loaded.get_outputs(), strict=True))
        return found | dict(zip(_indexes(graph.inputs), tensors, strict=True))

    def _real(self, raw: Values) -> Values:
        specs = dict(zip(self._exposed.tensors, self._ours.outputs, strict=True))
        specs |= dict(zip(_indexes(self._graph.inputs), self._ours.inputs, strict=True))
        return {i: dequantize(v, specs[i]) if specs[i].quantization is not None else v for i, v in raw.items()}

    def _compare_inputs(self, ours: Values, real: Tensors | None) -> None:
        for position, index in enumerate(_indexes(self._graph.inputs)):
            row = self._rows.get(index)
            if row is None or row.op != _INPUT:
                continue
            row.seen.add(ours[index])
            if real is not None and real[position].shape == ours[index].shape:
                row.exact.add(real[position])
                row.local.add(ours[index], real[position])
                row.accumulated.add(ours[index], real[position])

    def _compare(self, row: _Row, ours: Values, theirs: Values, alone: Mapping[int, NDArray[Any]]) -> None:
        actual = ours[row.index]
        row.seen.add(actual)
        expected = theirs.get(self._reference.tensors.get(row.index, -1))
        if expected is not None and expected.shape == actual.shape:
            row.accumulated.add(actual, expected)
        exact = ours.get(int(self._operators[row.operator].inputs[0])) if row.op in REWRITERS else alone.get(row.index)
        if exact is not None and exact.shape == actual.shape:
            row.local.add(actual, exact)
        else:
            exact = expected
        if exact is not None:
            row.exact.add(exact)

    def _run_alone(self, raw: Values, ours: Values) -> dict[int, NDArray[Any]]:
        """Run every operator of the reference on what the quantized file fed to its own; tensor → result."""
        for number in [n for n, cell in self._cells.items() if any(f >= 0 and f not in ours for f in cell.feeds)]:
            self._drop(number, "a constant feeds it where the float model computes")
        while self._cells:
            try:
                return self._try_alone(raw, ours)
            except (ModelError, ValueError) as error:
                failed = _FAILED_NODE.search(str(error))
                numbers = list(self._cells)
                self._alone = None
                if failed is None or int(failed[1]) >= len(numbers):
                    for number in numbers:
                        self._drop(number, str(error))
                else:
                    self._drop(numbers[int(failed[1])], "it can't be run by itself in float")
        return {}

    def _drop(self, number: int, reason: str) -> None:
        self._why[number] = reason
        del self._cells[number]

    def _try_alone(self, raw: Values, ours: Values) -> dict[int, NDArray[Any]]:
        feeds = dict.fromkeys(feed for cell in self._cells.values() for feed in cell.feeds if feed >= 0)
        shapes = {feed: ours[feed].shape for feed in feeds}
        key = tuple(shapes.values())
        if self._alone is None or self._alone[0] != key:
            cut = severed.sever(self._reference.model, tuple(self._cells.values()), shapes)
            self._alone = key, cut, self._engine.load(cut.data, _OPTIONS)
        _, cut, loaded = self._alone
        loaded.set_inputs(
            tuple(
                (ours if spec.dtype in _FLOATS else raw)[feed].astype(spec.dtype)
                for feed, spec in zip(cut.feeds, loaded.inputs, strict=True)
            )
        )
        loaded.invoke()
        numbers = list(self._cells)
        results: dict[int, NDArray[Any]] = {}
        for (cell, position), value in zip(cut.outputs, loaded.get_outputs(), strict=True):
            made = _indexes(self._operators[numbers[cell]].outputs)
            if position < len(made):
                results[made[position]] = value
        return results

    def _layer(self, row: _Row) -> LayerError | None:
        tensor = self._graph.tensors[row.index]
        lowest, highest, scale = _range(tensor)
        least, greatest = row.seen.minimum, row.seen.maximum
        if least is None or greatest is None:
            return None
        unused = None
        if lowest is not None and highest is not None and highest > lowest:
            unused = round(max(0.0, 1 - (greatest - least) / (highest - lowest)), _SHARE_DIGITS)
        found = constants.steps(tensor)
        return LayerError(
            operator=row.operator,
            op=row.op,
            tensor=self._name(row.index),
            tensor_index=row.index,
            reference_tensor=self._reference_name(row.index),
            dtype=flatbuffer.dtype(tensor),
            shape=flatbuffer.shape(tensor),
            scale=scale,
            zero_point=None if found is None or scale is None else int(found[1][0]),
            representable_minimum=lowest,
            representable_maximum=highest,
            minimum=least,
            maximum=greatest,
            reference_minimum=row.exact.minimum,
            reference_maximum=row.exact.maximum,
            rmse=row.accumulated.rmse,
            rmse_over_scale=_ratio(row.accumulated.rmse, scale),
            sqnr_db=row.accumulated.sqnr_db,
            local_rmse=row.local.rmse,
            local_rmse_over_scale=_ratio(row.local.rmse, scale),
            local_sqnr_db=row.local.sqnr_db,
            saturated_share=None if scale is None else row.exact.outside_share,
            unused_share=unused,
        )

    def _reference_name(self, index: int) -> str | None:
        if not self._reference.is_other_file or index not in self._reference.tensors:
            return None
        return flatbuffer.tensor_name(self._reference.model.subgraphs[0].tensors[self._reference.tensors[index]])

    def _left_out(self) -> Iterator[Unmeasured]:
        for number, operator in enumerate(self._operators):
            op = flatbuffer.op_name(self._model, operator)
            for index in _indexes(operator.outputs)[:1]:
                if number in self._stopped:
                    cause = self._stopped[number]
                    reason = "no plain runtime has this operator" if cause == op else f"it comes after {cause}"
                elif op in _CHOOSING:
                    reason = "it chooses and sorts: another choice is no error of rounding"
                else:
                    continue
                yield Unmeasured(operator=number, op=op, tensor=self._name(index), reason=reason)

    def _is_choice(self, index: int) -> bool:
        return any(
            index in _indexes(op.outputs) for op in self._operators if flatbuffer.op_name(self._model, op) in _CHOOSING
        )

    def _unmeasured(self, row: _Row, reason: str) -> Unmeasured:
        return Unmeasured(operator=row.operator, op=row.op, tensor=self._name(row.index), reason=reason)

    def _name(self, index: int) -> str:
        return flatbuffer.tensor_name(self._graph.tensors[index])


def _range(tensor: Any) -> tuple[float | None, float | None, float | None]:  # noqa: ANN401
    """Return the smallest and largest number that a tensor of one scale can hold, and the scale; else None."""
    found = constants.steps(tensor)
    if found is None or len(found[0]) != 1:
        return None, None, None
    scale, zero_point = float(found[0][0]), float(found[1][0])
    smallest, largest = constants.limits(constants.dtype(tensor))
    return scale * (smallest - zero_point), scale * (largest - zero_point), scale


def _ratio(rmse: float | None, scale: float | None) -> float | None:
    return None if rmse is None or not scale else rmse / scale


def _has_state(model: Any) -> bool:  # noqa: ANN401
    graph = model.subgraphs[0]
    return any(t.isVariable for t in graph.tensors) or any(
        flatbuffer.op_name(model, op) in ("VAR_HANDLE", "CALL_ONCE") for op in graph.operators or ()
    )


def _indexes(vector: Any) -> list[int]:  # noqa: ANN401 - an array, or None when empty
    return [] if vector is None else [int(i) for i in vector]
