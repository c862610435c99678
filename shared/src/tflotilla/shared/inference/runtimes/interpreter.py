"""What tflite-runtime and LiteRT have in common: the `Interpreter` API of the TensorFlow Lite Python package.

Rules it keeps:
- `invoke` is the runtime's call and nothing else; tensors are copied in and out, no view outlives a call;
- everything a runtime raises comes out as ModelError or DelegateError, in one line.

What it does NOT do: survive a corrupt model that crashes the process, or a delegate that does. Try those in a child.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import time
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import BoardError, DelegateError, ModelError
from tflotilla.shared.contract.tensors import DType, Quantization, TensorSpec
from tflotilla.shared.inference.runtime import DirectCalls, LoadSteps, Node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from tflotilla.shared.inference.runtime import Delegate, LoadedModel, LoadOptions, Tensor

_IDENTIFIER = b"TFL3"
_IDENTIFIER_AT = slice(4, 8)
_DTYPES: frozenset[str] = frozenset(get_args(DType))
_CREATE_DELEGATE = "tflite_plugin_create_delegate"
_DELEGATE_NODE = "DELEGATE"


def import_runtime(name: str, package: str) -> tuple[ModuleType, str]:
    """Import `package.interpreter` and find its version.

    Raises:
        BoardError: it is not installed, or is and can't be imported.

    """
    try:
        module = importlib.import_module(f"{package}.interpreter")
    except ModuleNotFoundError as error:
        if error.name not in (package, f"{package}.interpreter"):
            message = f"{name} is installed but can't be imported: {one_line(error)}"
            raise BoardError(message) from error
        message = f"{name} is not installed here"
        raise BoardError(message) from error
    except Exception as error:  # a wheel for another machine raises what it likes: ImportError, OSError, NameError …
        message = f"{name} is installed but can't be imported: {one_line(error)}"
        raise BoardError(message) from error
    if not hasattr(module, "_interpreter_wrapper"):
        # The package imports without its native half, and would raise NameError at the first interpreter.
        message = f"{name} is installed without its native library; install the wheel for this machine again"
        raise BoardError(message)
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = str(getattr(importlib.import_module(package), "__version__", "0"))
    return module, version


def one_line(error: BaseException) -> str:
    """Return the words of a foreign exception as one line."""
    told = " ".join(str(error).split())
    if not told and isinstance(error, RuntimeError):
        # All that LiteRT says of an allocation that failed.
        return "RuntimeError without a reason, as for memory that can't be had"
    return told or type(error).__name__


class InterpreterRuntime:
    """A runtime with the `Interpreter` API; implements the `Runtime` port."""

    def __init__(self, name: str, version: str, module: ModuleType) -> None:
        self._offer = RuntimeOffer(name=name, version=version)
        self._module = module

    @property
    def offer(self) -> RuntimeOffer:
        """Its PyPI name and version."""
        return self._offer

    def load(self, model: Path | bytes, options: LoadOptions) -> LoadedModel:
        """Build an interpreter and allocate its tensors; see the port for what is raised."""
        _check_identifier(model)
        if options.num_threads < 1:
            message = f"num_threads must be at least 1, not {options.num_threads}"
            raise ValueError(message)
        begin = time.perf_counter_ns()
        delegate = None if options.delegate is None else self._load_delegate(options.delegate)
        delegate_ns = None if delegate is None else time.perf_counter_ns() - begin
        try:
            interpreter, build_ns, allocate_ns = self._build(model, options, delegate)
            return _Interpreter(interpreter, LoadSteps(delegate_ns, build_ns, allocate_ns))
        except (ValueError, RuntimeError) as error:
            if options.delegate is not None and self._loads_without_delegate(model, options):
                message = f"delegate {options.delegate.library} refuses the model: {one_line(error)}"
                raise DelegateError(message) from error
            message = f"{self._offer} refuses the model: {one_line(error)}"
            raise ModelError(message) from error

    def _build(self, model: Path | bytes, options: LoadOptions, delegate: object | None) -> tuple[Any, int, int]:
        begin = time.perf_counter_ns()
        resolvers = self._module.OpResolverType
        source: dict[str, Any] = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        interpreter = self._module.Interpreter(
            **source,
            num_threads=options.num_threads,
            experimental_op_resolver_type=resolvers.AUTO
            if options.xnnpack
            else resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_delegates=None if delegate is None else [delegate],
        )
        built = time.perf_counter_ns()
        if options.batch > 1:
            _resize_batch(interpreter, options.batch)
        interpreter.allocate_tensors()
        return interpreter, built - begin, time.perf_counter_ns() - built

    def _load_delegate(self, delegate: Delegate) -> object:
        # Opened here first: the runtime's own wrapper prints a second, ignored exception when this fails.
        try:
            library = ctypes.CDLL(delegate.library)
        except OSError as error:
            message = f"delegate {delegate.library} can't be loaded: {one_line(error)}"
            raise DelegateError(message) from error
        if not hasattr(library, _CREATE_DELEGATE):
            message = f"delegate {delegate.library} is not an external TFLite delegate: it has no {_CREATE_DELEGATE}"
            raise DelegateError(message)
        try:
            loaded: object = self._module.load_delegate(delegate.library, dict(delegate.options))
        except (ValueError, RuntimeError, AttributeError, OSError) as error:
            given = f" with {dict(delegate.options)}" if delegate.options else ""
            message = f"delegate {delegate.library} can't be created{given}: {one_line(error)}"
            raise DelegateError(message) from error
        return loaded

    def _loads_without_delegate(self, model: Path | bytes, options: LoadOptions) -> bool:
        try:
            self._build(model, options, None)
        except (ValueError, RuntimeError):
            return False
        return True


class _Interpreter:
    """A loaded model; implements the `LoadedModel` port."""

    def __init__(self, interpreter: Any, load_steps: LoadSteps) -> None:  # noqa: ANN401 - the runtimes ship no types
        self.load_steps = load_steps
        # The interpreter itself holds the delegate, and frees it after itself: it must be kept.
        self._interpreter = interpreter
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        self._inputs = tuple(_spec(detail) for detail in inputs)
        self._outputs = tuple(_spec(detail) for detail in outputs)
        self._input_indices = tuple(int(detail["index"]) for detail in inputs)
        self._output_indices = tuple(int(detail["index"]) for detail in outputs)
        self._dynamic = any(-1 in spec.shape for spec in self._inputs)
        # Of a tensor whose rank is unknown too, the file says that it has no dimensions.
        self._varies = any(-1 in spec.shape or not spec.shape for spec in self._outputs)
        self._shapes = [tuple(int(size) for size in detail["shape"]) for detail in inputs]
        # Nearly every model has one input and one output: no loop stands between those and the runtime.
        self._only_input = self._input_indices[0] if len(inputs) == 1 else None
        self._only_output = self._output_indices[0] if len(outputs) == 1 else None
        # The native calls themselves, bound once: the package's methods around them are three Python frames, and with
        # the caches full of weights each frame costs a microsecond. All they add is a guard against views of tensors:
        # there are none here, and the bound calls would pass for one.
        self._native = native = interpreter._interpreter  # noqa: SLF001
        self._set = native.SetTensor
        self._get = native.GetTensor
        self._run = native.Invoke

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs, in the model's order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs, in the model's order."""
        return self._outputs

    @property
    def delegated_nodes(self) -> int:
        """How many DELEGATE nodes the executed graph has."""
        # The public list of ops computes far more.
        native = self._native
        return sum(native.NodeName(node) == _DELEGATE_NODE for node in range(native.NumNodes()))

    @property
    def nodes_total(self) -> int:
        """How many nodes the model's main graph has."""
        native = self._native
        return sum(native.NodeName(node) != _DELEGATE_NODE for node in range(native.NumNodes()))

    @property
    def nodes_taken(self) -> int:
        """How many of them a DELEGATE node replaces."""
        return len(self._taken())

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The main graph's nodes, in the order of the file."""
        native, taken = self._native, self._taken()
        names = [str(native.NodeName(node)) for node in range(native.NumNodes())]
        return tuple(Node(name, node in taken) for node, name in enumerate(names) if name != _DELEGATE_NODE)

    def _taken(self) -> set[int]:
        """Find the nodes that a DELEGATE node replaces: those between its outputs and its inputs."""
        native = self._native
        producers: dict[int, int] = {}
        stack: list[int] = []
        ends: set[int] = set()
        for node in range(native.NumNodes()):
            if native.NodeName(node) == _DELEGATE_NODE:
                stack += [int(tensor) for tensor in native.NodeOutputs(node)]
                ends.update(int(tensor) for tensor in native.NodeInputs(node))
            else:
                producers.update((int(tensor), node) for tensor in native.NodeOutputs(node))
        taken: set[int] = set()
        while stack:
            node_or_none = producers.get(stack.pop())
            if node_or_none is None or node_or_none in taken:
                continue
            taken.add(node_or_none)
            stack += [int(tensor) for tensor in native.NodeInputs(node_or_none) if int(tensor) not in ends]
        return taken

    @property
    def bare_invoke(self) -> Callable[[], None]:
        """The native call itself."""
        run: Callable[[], None] = self._run
        return run

    @property
    def direct(self) -> DirectCalls | None:
        """The runtime's own calls, where the model is simple enough for them."""
        if self._only_input is None or self._only_output is None or self._varies:
            return None
        return DirectCalls(self._set, self._only_input, self._run, self._get, self._only_output)

    def set_inputs(self, tensors: tuple[Tensor, ...]) -> None:
        """Copy tensors in; resizes dynamic inputs. Raises ValueError on a wrong count, shape or dtype."""
        if self._only_input is not None and len(tensors) == 1 and not self._dynamic:
            self._set(self._only_input, tensors[0])
            return
        if len(tensors) != len(self._input_indices):
            message = f"the model has {len(self._input_indices)} inputs, {len(tensors)} tensors were given"
            raise ValueError(message)
        if self._dynamic:
            self._resize(tensors)
        for index, tensor in zip(self._input_indices, tensors):  # noqa: B905 - equal lengths, checked above
            self._set(index, tensor)

    def invoke(self) -> None:
        """Run once. Raises ModelError when a kernel fails."""
        try:
            self._run()
        except RuntimeError as error:
            message = f"the model failed while running: {one_line(error)}"
            raise ModelError(message) from error

    def get_outputs(self) -> tuple[Tensor, ...]:
        """Copies of the outputs."""
        if self._varies:
            return tuple([self._get_any(index) for index in self._output_indices])
        if self._only_output is not None:
            return (self._get(self._only_output),)
        return tuple([self._get(index) for index in self._output_indices])

    def _get_any(self, index: int) -> Tensor:
        """Return an output of whatever size: "nothing found" is an answer, and GetTensor refuses to give it."""
        native = self._native
        shape = tuple(int(size) for size in native.TensorSize(index, 0))
        if 0 in shape:
            return np.empty(shape, native.TensorType(index, 0))
        return cast("Tensor", self._get(index))

    def _resize(self, tensors: tuple[Tensor, ...]) -> None:
        changed = False
        for i, (spec, tensor) in enumerate(zip(self._inputs, tensors)):  # noqa: B905 - equal lengths, see set_inputs
            if tensor.shape == self._shapes[i]:
                continue
            fits = len(spec.shape) == tensor.ndim and all(
                want in (-1, have)
                for want, have in zip(spec.shape, tensor.shape)  # noqa: B905 - equal lengths
            )
            if not fits:
                message = f"input {spec.name!r} takes shape {spec.shape}, the tensor has {tensor.shape}"
                raise ValueError(message)
            self._native.ResizeInputTensor(self._input_indices[i], np.array(tensor.shape, np.int32), False)  # noqa: FBT003
            self._shapes[i] = tensor.shape
            changed = True
        if changed:
            try:
                self._native.AllocateTensors()
            except RuntimeError as error:
                message = f"the model can't take these shapes: {one_line(error)}"
                raise ValueError(message) from error


def _resize_batch(interpreter: Any, batch: int) -> None:  # noqa: ANN401 - the runtimes ship no types
    for detail in interpreter.get_input_details():
        shape = [int(size) for size in detail["shape"]]
        if not shape:
            message = f"input {detail['name']!r} is a single number and can't take {batch} samples at once"
            raise ValueError(message)
        interpreter.resize_tensor_input(detail["index"], [shape[0] * batch, *shape[1:]])


def _check_identifier(model: Path | bytes) -> None:
    """Refuse what can't be a model before native code sees it. Raises ModelError."""
    if isinstance(model, bytes):
        head, what = model[: _IDENTIFIER_AT.stop], "the model"
    else:
        what = str(model)
        try:
            with model.open("rb") as stream:
                head = stream.read(_IDENTIFIER_AT.stop)
        except OSError as error:
            message = f"{what} can't be read: {error.strerror}"
            raise ModelError(message) from error
    if head[_IDENTIFIER_AT] != _IDENTIFIER:
        message = f"{what} is not a .tflite file (no TFL3 identifier in its first 8 bytes)"
        raise ModelError(message)


def _spec(detail: dict[str, Any]) -> TensorSpec:
    dtype = np.dtype(detail["dtype"]).name
    dtype = "string" if np.dtype(detail["dtype"]).kind in "SO" else dtype
    if dtype not in _DTYPES:
        message = f"tensor {detail['name']!r} has dtype {dtype}, which tflotilla does not handle"
        raise ModelError(message)
    signature = detail["shape_signature"]
    shape = signature if len(signature) == len(detail["shape"]) else detail["shape"]
    parameters = detail["quantization_parameters"]
    scales = tuple(float(scale) for scale in parameters["scales"])
    quantization = None
    if any(scales):
        quantization = Quantization(
            scales=scales,
            zero_points=tuple(int(zero_point) for zero_point in parameters["zero_points"]),
            axis=int(parameters["quantized_dimension"]),
        )
    return TensorSpec(
        name=str(detail["name"]),
        shape=tuple(int(size) for size in shape),
        dtype=cast("DType", dtype),
        quantization=quantization,
    )
