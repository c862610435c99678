"""The worker as it is, but for its source: between two inputs the source times the bare `invoke`.

`python -m tests.benchmarks.timed_worker FILE SECONDS`, started by the agent in place of its worker. From the moment an
input is handed out to the moment the next one is asked for is everything that the loop does with it: copy in, invoke,
copy out, answer, window, handing over. So bare and whole alternate, one by one, in one process and one state of the
machine. FILE gets both lists, in nanoseconds, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.device import loading, worker
from tflotilla.device.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.device.bundle_folder import BundleFolder
    from tflotilla.device.sources import Item, Source
    from tflotilla.shared.contract.agent_config import InferenceConfig, SourceConfig
    from tflotilla.shared.contract.tensors import TensorSpec

_WARM_UP_NS = 1_000_000_000


class TimedSource:
    """Wraps a source; see the module."""

    def __init__(self, inner: Source, invoke: Callable[[], None], result: Path, seconds: float) -> None:
        self.gives_images = inner.gives_images
        self.close = inner.close
        self._inner = inner
        self._invoke = invoke
        self._result = result
        self._begin_ns = time.perf_counter_ns() + _WARM_UP_NS
        self._end_ns = self._begin_ns + int(seconds * 1e9)
        self._given_ns = 0
        self._bare: list[int] = []
        self._whole: list[int] = []

    def next_item(self) -> Item | None:
        """Time the loop's last round, then the bare call, then hand out the next input."""
        now = time.perf_counter_ns()
        if self._begin_ns < now:
            self._whole.append(now - self._given_ns)
            begin = time.perf_counter_ns()
            self._invoke()
            self._bare.append(time.perf_counter_ns() - begin)
            if now > self._end_ns:
                self._write()
        item = self._inner.next_item()
        self._given_ns = time.perf_counter_ns()
        return item

    def _write(self) -> None:
        unfinished = self._result.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"bare_ns": self._bare, "whole_ns": self._whole}))
        unfinished.replace(self._result)
        self._end_ns = 1 << 62
        self._bare, self._whole = [], []


def main() -> int:
    """Be a worker."""
    result, seconds = Path(sys.argv[1]), float(sys.argv[2])
    load, models = loading.load, []

    def load_and_remember(bundle: BundleFolder, inference: InferenceConfig) -> loading.Loaded:
        loaded = load(bundle, inference)
        models.append(loaded.model)
        return loaded

    def open_timed(config: SourceConfig, inputs: tuple[TensorSpec, ...]) -> TimedSource:
        # The runtime's own method, without even our translation of its errors.
        return TimedSource(open_source(config, inputs), models[-1]._run, result, seconds)  # type: ignore[attr-defined]

    # This is the measuring instrument, not a test: what it measures must be the worker's own loop.
    loading.load = load_and_remember
    worker.open_source = open_timed  # type: ignore[attr-defined]
    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
