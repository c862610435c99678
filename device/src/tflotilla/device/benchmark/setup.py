"""From a CellSpec to a model that is ready to be timed, each step timed apart; the process is prepared first.

Rules it keeps: the processors are chosen before a runtime is imported (its threads inherit them); of all processes this
one is the first to be ended when memory runs out; a delegate that isn't used is an error, because the figures would be
those of another configuration.
"""

from __future__ import annotations

import contextlib
import importlib
import resource
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from tflotilla.device import scheduling
from tflotilla.device.conditions import memory, readings
from tflotilla.device.reports import Phase
from tflotilla.shared.contract.errors import ConfigError, DelegateError, ModelError
from tflotilla.shared.contract.messages import DelegateReport
from tflotilla.shared.inference import runtime
from tflotilla.shared.inference.runtime import Delegate, Inspectable, LoadOptions, LoadSteps, SupportsDirectCalls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tflotilla.device.bundle_folder import BundleFolder
    from tflotilla.device.reports import CellSpec
    from tflotilla.shared.contract.board import RuntimeOffer
    from tflotilla.shared.inference.runtime import LoadedModel

    #: Tells the supervisor what begins, and after how long it must be hanging.
    Say = Callable[[Phase], None]

_FIRST_KILLED = 1000
#: Left of what is available for whoever serves.
_SPARED_BYTES = 32 << 20
_IMPORTING_S = 120.0
#: A slow card reads so much in a second.
_CARD_BYTES_S = 4 << 20
_DELEGATE_S = 60.0


class Ready(NamedTuple):
    """A loaded model, and how it came to be."""

    runtime: RuntimeOffer
    model: LoadedModel
    delegate: DelegateReport
    import_ns: int
    steps: LoadSteps
    nodes_taken: int
    nodes_total: int


def patience_s(spec: CellSpec) -> float:
    """Return how long one step may take that takes as long as the model does: the request says what is slow."""
    return 20.0 + 2 * spec.method.max_seconds


def prepare_process(affinity: tuple[int, ...]) -> None:
    """Take the processors, and volunteer for being ended when memory runs out.

    Raises:
        BoardError: this board has no such processor.

    """
    scheduling.be_prompt()
    scheduling.bind(affinity)
    memory.set_oom_score_adj(_FIRST_KILLED)
    available = readings.read(at_s=0.0).memory_available_bytes
    if available is not None and available > 2 * _SPARED_BYTES:
        # What a model wants beyond this it is refused, instead of the board's swapping everything else out.
        limit = available - _SPARED_BYTES
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def load(
    spec: CellSpec, bundle: BundleFolder, model_file: Path, say: Say, *, clock: Callable[[], int] = time.perf_counter_ns
) -> Ready:
    """Import the runtime, try the delegate in a process of its own, load.

    Raises:
        ConfigError: the runtime is still `auto`.
        BoardError: the runtime isn't there.
        DelegateError: the delegate can't be used, or takes nothing.
        ModelError: the runtime refuses the model, or the batch.

    """
    inference = spec.configuration.inference
    if inference.runtime == "auto":
        message = "inference.runtime 'auto' must be decided before a model is measured"
        raise ConfigError(message)
    say(Phase(doing="importing the runtime", at_most_s=_IMPORTING_S))
    begin = clock()
    importlib.import_module("numpy")
    adapter = runtime.find(inference.runtime)
    import_ns = clock() - begin
    report = DelegateReport(requested=None, active=None)
    delegate = None
    if inference.delegate is not None:
        from tflotilla.device.delegates import external

        say(Phase(doing="trying the delegate", at_most_s=external.TIMEOUT_S + _DELEGATE_S))
        report = external.settle(bundle, inference)
        if report.active is None:
            raise DelegateError(report.reason or "the delegate can't be used")
        delegate = Delegate(library=inference.delegate.library, options=inference.delegate.options)
    what = "loading the model" + (" with the delegate" if delegate is not None else "")
    say(Phase(doing=what, at_most_s=patience_s(spec) + model_file.stat().st_size / _CARD_BYTES_S))
    options = LoadOptions(
        num_threads=inference.num_threads,
        xnnpack=inference.xnnpack,
        delegate=delegate,
        batch=spec.configuration.batch,
    )
    try:
        model = adapter.load(model_file, options)
    except ModelError as error:
        if options.batch > 1:
            message = f"with a batch of {options.batch}: {error}"
            raise ModelError(message) from error
        raise
    if not isinstance(model, Inspectable):
        message = f"{adapter.offer} doesn't tell how it loads"
        raise ConfigError(message)
    return Ready(
        runtime=adapter.offer,
        model=model,
        delegate=report,
        import_ns=import_ns,
        steps=model.load_steps,
        nodes_taken=model.nodes_taken,
        nodes_total=model.nodes_total,
    )


def calls(
    model: LoadedModel,
) -> tuple[tuple[Callable[[Any], object], Callable[[], object], Callable[[], object]], bool]:
    """Return what one inference is made of, with no layer of ours between where the model allows it.

    The second value says whether `put` takes the only tensor itself instead of a tuple of them.
    """
    from functools import partial

    direct = model.direct if isinstance(model, SupportsDirectCalls) else None
    if direct is not None:
        put = partial(direct.set_tensor, direct.input_index)
        return (put, direct.invoke, partial(direct.get_tensor, direct.output_index)), True
    invoke = model.bare_invoke if isinstance(model, Inspectable) else model.invoke
    return (model.set_inputs, invoke, model.get_outputs), False
