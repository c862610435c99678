"""Makes the variants of one source: one load of TensorFlow, one calibration, then tenths of a second each.

Runs in a child process. Rules it keeps: every file passes the target runtime's table of op versions; what is measured
is what would be handed over, edges and stored weights included. What it does NOT do: decide which variants are wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tflotilla.host.models import flatbuffer, quantize
from tflotilla.host.models.accuracy_aware import edges as edging
from tflotilla.host.models.accuracy_aware import half_weights, operators
from tflotilla.host.models.accuracy_aware.edges import Edges
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from tflotilla.host.models.accuracy_aware.operators import Operator
    from tflotilla.host.models.sources import SourceModel
    from tflotilla.shared.contract.board import RuntimeOffer

    Inputs = tuple[NDArray[Any], ...]


class Variants:
    """The variants of one source for one runtime or for any."""

    def __init__(
        self, model: SourceModel, inputs: Sequence[Inputs], offer: RuntimeOffer | None, *, edges: Edges
    ) -> None:
        """Nothing is made yet.

        Args:
            model: the source.
            inputs: the calibration samples, real-valued.
            offer: the runtime that must take the files; None for any.
            edges: the type of the int8 variants' inputs and outputs.

        """
        self._maker = quantize.Maker(model, inputs, offer, per_channel=True)
        self._edges = edges

    def whole(self, scheme: QuantizationScheme, *, float_edges: bool = False) -> bytes:
        """Return the file of one scheme for all layers; int8 with the edges asked for, or with float ones.

        Raises:
            ConversionError: with the reason.

        """
        made = self._maker.make(scheme)
        return self._edged(made, float_edges=float_edges) if scheme is QuantizationScheme.INT8 else made

    def edges_alone(self) -> bytes:
        """Return the float file with the edges of the int8 variants. Raises ConversionError: there is no int8 file."""
        return self._edged(self._maker.make(QuantizationScheme.FLOAT32))

    def mixed(self, kept: Collection[str], *, float_edges: bool = False) -> bytes:
        """Return int8 with some operators in float, and those between them; their weights are stored as float16.

        Raises:
            ConversionError: the target runtime can't run it, or TensorFlow can't make it.

        """
        whole = operators.with_neighbours(self._all(), kept)
        made = self._maker.mixed(whole, finish=half_weights.halve)
        return self._edged(made, float_edges=float_edges)

    def alone(self, name: str) -> bytes:
        """Return the file in which only one operator is quantized, with float edges and weights as they were."""
        return self._maker.mixed([operator.name for operator in self._all() if operator.name != name])

    def choices(self) -> tuple[Operator, ...]:
        """Return the operators that can be kept in float. Raises ConversionError: there is no int8 file."""
        int8 = flatbuffer.read(self._maker.make(QuantizationScheme.INT8))
        return operators.quantized_among(self._all(), int8)

    def _edged(self, made: bytes, *, float_edges: bool = False) -> bytes:
        edges = Edges.FLOAT if float_edges else self._edges
        return edging.with_edges(made, edges, self._maker.make(QuantizationScheme.INT8))

    def _all(self) -> tuple[Operator, ...]:
        return operators.of(flatbuffer.read(self._maker.calibrated()))
