"""The runtime port: what tflotilla asks of tflite-runtime, LiteRT, or whatever succeeds them.

One adapter per file in `runtimes/`, found by name and imported only when chosen. What it does NOT do: read bundles,
preprocess, measure. A corrupt model can crash the process in `load`: callers who don't trust the file use a child.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tflotilla.shared.contract.board import RuntimeOffer
    from tflotilla.shared.contract.tensors import TensorSpec

    Tensor = NDArray[Any]

#: PyPI name of a runtime → module of its adapter. A new runtime is a new line and a new file.
ADAPTERS: Mapping[str, str] = {
    "tflite-runtime": "tflotilla.shared.inference.runtimes.tflite_runtime",
    "ai-edge-litert": "tflotilla.shared.inference.runtimes.litert",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegate:
    """An external delegate: shared library and options."""

    library: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How to build an interpreter. `num_threads` ≥ 1: more threads than cores is a cliff, see docs."""

    num_threads: int = 1
    xnnpack: bool = True
    delegate: Delegate | None = None
    #: Above 1 every input is resized to so many times its first dimension before memory is laid out.
    batch: int = 1


class LoadedModel(Protocol):
    """A model ready to run. Not thread-safe."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs, in the model's order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs, in the model's order."""

    @property
    def delegated_nodes(self) -> int:
        """How many DELEGATE nodes the executed graph has; 0 means the built-in kernels do everything."""

    def set_inputs(self, tensors: tuple[Tensor, ...]) -> None:
        """Copy tensors in; resizes dynamic inputs. Raises ValueError on a wrong count, shape or dtype."""

    def invoke(self) -> None:
        """Run once: the runtime's call and nothing else. Raises ModelError when a kernel fails."""

    def get_outputs(self) -> tuple[Tensor, ...]:
        """Copies of the outputs."""


class DirectCalls(NamedTuple):
    """The runtime's own calls, for a model of one input and one output.

    The hot loop makes them without a layer between; they raise what the runtime raises: ValueError for a tensor that
    doesn't fit the shape of the moment (`set_inputs` resizes), RuntimeError for a kernel that fails.
    """

    set_tensor: Callable[[int, Tensor], None]
    input_index: int
    invoke: Callable[[], None]
    get_tensor: Callable[[int], Tensor]
    output_index: int


@runtime_checkable
class SupportsDirectCalls(Protocol):
    """A LoadedModel may be more: one whose calls can be made directly."""

    @property
    def direct(self) -> DirectCalls | None:
        """The calls, None where the model has several inputs or outputs."""


class LoadSteps(NamedTuple):
    """What loading took, in nanoseconds."""

    #: Loading and creating the delegate; None without one.
    delegate_ns: int | None
    #: Reading the model and building the interpreter.
    build_ns: int
    #: Allocating tensors, where XNNPACK takes its nodes and packs weights.
    allocate_ns: int


class Node(NamedTuple):
    """One node of a model's main graph."""

    #: The op's name in TFLite (`CONV_2D`), or a custom op's own.
    op: str
    #: Whether XNNPACK or another delegate runs it.
    taken: bool


@runtime_checkable
class Inspectable(Protocol):
    """A LoadedModel may be more: one that tells how it came to be, and gives its bare call to who times it."""

    @property
    def load_steps(self) -> LoadSteps:
        """What loading took."""

    @property
    def nodes_total(self) -> int:
        """How many nodes the model has, whoever runs them."""

    @property
    def nodes_taken(self) -> int:
        """How many of them XNNPACK or another delegate runs."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All of them, in the order of the file."""

    @property
    def bare_invoke(self) -> Callable[[], None]:
        """The runtime's own call, with no layer between; raises RuntimeError for a kernel that fails."""


class Runtime(Protocol):
    """An importable runtime."""

    @property
    def offer(self) -> RuntimeOffer:
        """Its PyPI name and version."""

    def load(self, model: Path | bytes, options: LoadOptions) -> LoadedModel:
        """Build an interpreter and allocate its tensors.

        Raises:
            ModelError: the runtime refuses the file; the message holds its words (op and version).
            DelegateError: the delegate is missing, isn't one, or refuses the model.

        """


def find(name: str) -> Runtime:
    """Import a runtime by its PyPI name.

    Raises:
        BoardError: it isn't installed, or is and can't be imported (a wheel for another machine).

    """
    if name not in ADAPTERS:
        message = f"unknown runtime {name!r}; known are {', '.join(ADAPTERS)}"
        raise BoardError(message)
    adapter = importlib.import_module(ADAPTERS[name])
    runtime: Runtime = adapter.runtime()
    return runtime


def present() -> tuple[Runtime, ...]:
    """Import every runtime that can be imported here, in the order of `ADAPTERS`."""
    found = []
    for name in ADAPTERS:
        try:
            found.append(find(name))
        except BoardError:
            continue
    return tuple(found)
