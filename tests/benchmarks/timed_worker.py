"""The worker as it is, but for its source: between two inputs the source times the bare `invoke`.

`python -m tests.benchmarks.timed_worker FILE SECONDS`, started by the agent in place of its worker. From the moment an
input is handed out to the moment the next one is asked for is everything that the loop does with it: copy in, invoke,
copy out, and now and then the answers of many, the handing over, the window. So whole, bare, and bare with its copies
alternate, one by one, in one process and one state of the machine. What is done for many at once is timed by itself as
well, so that its share can be told apart from the noise. FILE gets all of it, in nanoseconds, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.device import loading, worker
from tflotilla.device.sources import open_source
from tflotilla.shared.inference.runtime import DirectCalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.device.bundle_folder import BundleFolder
    from tflotilla.device.sources import Item, Source
    from tflotilla.shared.contract.agent_config import InferenceConfig, SourceConfig
    from tflotilla.shared.contract.tensors import TensorSpec
    from tflotilla.shared.inference.pipeline import Pipeline

_WARM_UP_NS = 1_000_000_000


class Record:
    """What was timed: a row per round, and what was done for many at once, by kind."""

    def __init__(self) -> None:
        #: (whole, bare, copies, the whole's own invoke; 0 when something was done for many in it)
        self.rounds: list[tuple[int, int, int, int]] = []
        self.pipeline: Pipeline | None = None
        #: Kind → (wall, processor).
        self.together: dict[str, list[tuple[int, int]]] = {}
        self.disturbed = False
        self._depth = 0

    def last_invoke(self) -> int:
        """Return how long the loop's last invoke took by its own stamps, 0 when its answer was made already."""
        if self.disturbed or self.pipeline is None or not self.pipeline.pending:
            return 0
        _, _, _, ready, done, _ = self.pipeline._pending[-1]  # the instrument looks inside
        return done - ready

    def timed(self, kind: str, call: Callable[[], None]) -> Callable[[], None]:
        """Return the call, timed unless it is part of another one that is."""

        def timed_call() -> None:
            self.disturbed = True
            self._depth += 1
            begin, begin_cpu = time.perf_counter_ns(), time.thread_time_ns()
            try:
                call()
            finally:
                self._depth -= 1
            if not self._depth:
                taken = (time.perf_counter_ns() - begin, time.thread_time_ns() - begin_cpu)
                self.together.setdefault(kind, []).append(taken)

        return timed_call


class TimedSource:
    """Wraps a source; see the module."""

    def __init__(self, inner: Source, direct: DirectCalls, record: Record, result: Path, seconds: float) -> None:
        self.gives_images = inner.gives_images
        self.close = inner.close
        self._next = inner.next_item
        self._direct = direct
        self._record = record
        self._result = result
        self._begin_ns = time.perf_counter_ns() + _WARM_UP_NS
        self._end_ns = self._begin_ns + int(seconds * 1e9)
        self._given_ns = 0

    def next_item(self) -> Item | None:
        """Time the loop's last round, then the bare call, then hand out the next input."""
        now = time.perf_counter_ns()
        record = self._record
        if self._begin_ns < now:
            whole, invoke = now - self._given_ns, record.last_invoke()
            record.rounds.append((whole, self._bare(), self._copies(), invoke))
            if now > self._end_ns:
                self._write()
        else:
            record.together.clear()
        item = self._fresh()
        record.disturbed = False
        self._given_ns = time.perf_counter_ns()
        return item

    def _bare(self) -> int:
        # The native call, without even the frames of the runtime's own package: nothing cheaper can be called.
        invoke = self._direct.invoke
        begin = time.perf_counter_ns()
        invoke()
        return time.perf_counter_ns() - begin

    def _copies(self) -> int:
        """Return what nobody can do without: one copy in and one copy out, around an invoke."""
        set_tensor, input_index, invoke, get_tensor, output_index = self._direct
        clock = time.perf_counter_ns
        (tensor,) = self._fresh().tensors or ()
        begin = clock()
        set_tensor(input_index, tensor)
        ready = clock()
        invoke()
        done = clock()
        get_tensor(output_index)
        return clock() - done + ready - begin

    def _fresh(self) -> Item:
        """Return the next input as preprocessing would leave it: written a moment ago, not for the loop to fetch."""
        item = self._next()
        if item is None or item.tensors is None:
            message = "the instrument needs tensors at any time"
            raise RuntimeError(message)
        for tensor in item.tensors:
            tensor[...] = tensor.copy()
        return item

    def _write(self) -> None:
        unfinished = self._result.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"rounds": self._record.rounds, "together": self._record.together}))
        unfinished.replace(self._result)
        self._end_ns = 1 << 62
        self._record.rounds.clear()


def _native_calls(model: Any) -> DirectCalls:  # noqa: ANN401 - its runtime's own type
    """Return the runtime's calls, also where the product doesn't make them directly: outputs may vary in size there."""
    if model.direct is not None:
        return model.direct  # type: ignore[no-any-return]
    return DirectCalls(model._set, model._only_input, model._run, model._get, model._only_output)


def main() -> int:
    """Be a worker."""
    result, seconds = Path(sys.argv[1]), float(sys.argv[2])
    load, models, record = loading.load, [], Record()

    def load_and_remember(bundle: BundleFolder, inference: InferenceConfig) -> loading.Loaded:
        loaded = load(bundle, inference)
        models.append(loaded.model)
        return loaded

    def open_timed(config: SourceConfig, inputs: tuple[TensorSpec, ...]) -> TimedSource:
        return TimedSource(open_source(config, inputs), _native_calls(models[-1]), record, result, seconds)

    class TimedWorker(worker.Worker):
        """The worker, with a watch beside what it does for many at once."""

        def __init__(self, **parts: Any) -> None:  # noqa: ANN401 - handed through
            super().__init__(**parts)
            record.pipeline = parts["pipeline"]
            self._collect = record.timed("collect", self._collect)  # type: ignore[method-assign]
            self._close_window = record.timed("window", self._close_window)  # type: ignore[method-assign]

    # This is the measuring instrument, not a test: what it measures must be the worker's own loop.
    loading.load = load_and_remember
    worker.open_source = open_timed  # type: ignore[attr-defined]
    worker.Worker = TimedWorker  # type: ignore[misc]
    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
