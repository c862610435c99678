"""A model that needs no runtime: it answers what it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.tensors import TensorSpec

if TYPE_CHECKING:
    from tflotilla.shared.inference.runtime import Tensor


class EchoModel:
    """A LoadedModel whose outputs are its inputs; it fails when it is told to."""

    def __init__(self, width: int = 3) -> None:
        self.spec = TensorSpec(name="echo", shape=(1, width), dtype="float32")
        self.failing = False
        self._tensors: tuple[Tensor, ...] = ()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (self.spec,)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return (self.spec,)

    @property
    def delegated_nodes(self) -> int:
        return 0

    def set_inputs(self, tensors: tuple[Tensor, ...]) -> None:
        self._tensors = tuple(tensor.copy() for tensor in tensors)

    def invoke(self) -> None:
        if self.failing:
            message = "a kernel failed"
            raise ModelError(message)

    def get_outputs(self) -> tuple[Tensor, ...]:
        return tuple(tensor.copy() for tensor in self._tensors)
