"""The process that loads a model and serves: `python -m tflotilla.device.worker`, WorkerSpec in, lines out (`reports`).

source → decode → preprocess → invoke, again and again, and for some dozens of them at once → postprocess; each stage
of each inference is timed by perf_counter_ns. Nothing else happens in this process: no thread, no MQTT, no disk. Once
per window it hands finished JSON to the supervisor through a pipe, without ever waiting for it.

An input that can't be used is one error and one `E` line (plain text) per input, however often it comes again. When
nothing can be served the last line is an `E` line and the exit code that of the error. SIGTERM, and a supervisor that
is gone, end it with code 0.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.device import child, facts, loading, memory, reports, scheduling
from tflotilla.device.bundle_folder import BundleFolder
from tflotilla.device.conditions.readings import Sensors
from tflotilla.device.handover import Handover
from tflotilla.device.sources import open_source
from tflotilla.device.thumbnails import Thumbnails
from tflotilla.device.window import Window
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import ConfigError, DatasetError, TflotillaError
from tflotilla.shared.inference.pipeline import Pipeline
from tflotilla.shared.inference.postprocessing import Answerer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from tflotilla.device.sources import Source
    from tflotilla.shared.contract.agent_config import ReportingConfig, SourceConfig
    from tflotilla.shared.contract.messages import Candidate
    from tflotilla.shared.contract.tensors import TensorSpec
    from tflotilla.shared.inference.preprocessing import Preprocessor

EXIT_BUG = 70
_NS = 1_000_000_000
#: Whether a new bundle stays is decided by its first window, so that is never a long one.
_FIRST_WINDOW_NS = 5_000_000_000
#: How soon a source that has nothing now is asked again.
_IDLE_NS = 50_000_000
#: How often lines are tried again while inference runs without a pause.
_RETRY_NS = 20_000_000
#: How long the last window may take to be handed over after a SIGTERM.
_FAREWELL_S = 0.5
#: So many inferences are answered together while they follow each other without a pause (`pipeline` says why). Whoever
#: waits answers first, so that no result is ever older than the window that reports it.
_TOGETHER = 128
#: Inputs whose problem was told already; beyond this the oldest may be told again.
_TOLD_LIMIT = 1000


class Stop:
    """SIGTERM and SIGINT: a flag the loop reads, and a descriptor that wakes it when it waits.

    Before the loop begins there is nothing to lose: then the process simply ends, with code 0.
    """

    def __init__(self, *, signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)) -> None:
        self.requested = False
        self.looping = False
        self.descriptor, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        if signals:
            signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.requested = True
        if not self.looping:
            raise SystemExit(0)


def main() -> int:
    """Serve one WorkerSpec until told to stop; return the exit code."""
    handover = Handover(child.claim_stdout())
    try:
        return _live(handover)
    except BrokenPipeError:
        # The supervisor is gone, or has no more use for us.
        return 0


def _live(handover: Handover) -> int:
    stop = Stop()
    child.die_with_parent()
    scheduling.be_prompt()
    code = 0
    try:
        _serve(child.read_spec(reports.WorkerSpec), handover, stop)
    except TflotillaError as error:
        handover.offer(reports.PROBLEM, one_line(str(error)))
        code = error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last door: a bug is one line for the supervisor, the rest for the log
        traceback.print_exc()
        handover.offer(reports.PROBLEM, one_line(f"a bug of tflotilla's worker: {type(error).__name__}: {error}"))
        code = EXIT_BUG
    handover.drain(_FAREWELL_S)
    return code


def _serve(spec: reports.WorkerSpec, handover: Handover, stop: Stop) -> None:
    scheduling.bind(spec.inference.affinity)
    bundle = BundleFolder.open(Path(spec.bundle))
    loaded = loading.load(bundle, spec.inference)
    model = loaded.model
    source = open_source(spec.source, model.inputs)
    preprocessor = _preprocessor(bundle, model.inputs, spec.source) if source.gives_images else None
    answerer = Answerer(bundle.manifest.postprocessing, model.outputs, bundle.labels())
    pipeline = Pipeline(model, preprocessor, answerer)
    begin = time.perf_counter_ns()
    pipeline.infer(loading.zeros(model.inputs))
    first_ns = time.perf_counter_ns() - begin
    if source.gives_images:
        _warm_up_decoding(pipeline)

    ready = reports.Ready(
        runtime=loaded.runtime, delegate=loaded.delegate, load_ns=loaded.load_ns, first_inference_ns=first_ns
    )
    handover.offer(reports.READY, codec.canonical_json(ready))
    memory.settle()
    worker = Worker(
        pipeline=pipeline,
        draft_size=None if preprocessor is None else preprocessor.draft_size,
        source=source,
        interval_ns=int(spec.source.interval_ms * 1e6),
        reporting=spec.reporting,
        handover=handover,
        stop=stop,
    )
    try:
        worker.run()
    finally:
        source.close()


def _warm_up_decoding(pipeline: Pipeline) -> None:
    """Load what Pillow loads at the first image: 60 ms that would pass for the new bundle's p99."""
    import io

    from PIL import Image

    from tflotilla.shared.inference.images import open_image

    for kind in ("PNG", "JPEG"):
        encoded = io.BytesIO()
        Image.new("RGB", (16, 16)).save(encoded, kind)
        pipeline.infer_image(open_image(encoded.getvalue()))


def _preprocessor(bundle: BundleFolder, inputs: tuple[TensorSpec, ...], config: SourceConfig) -> Preprocessor:
    """Return what turns the source's images into the model's input. Raises ConfigError where nothing does."""
    from tflotilla.shared.inference.preprocessing import Preprocessor

    title, how = bundle.manifest.title, bundle.manifest.preprocessing
    if how is None or len(inputs) != 1:
        message = f"source.kind {config.kind!r} gives images, and {title} takes none; use source.kind 'synthetic'"
        raise ConfigError(message)
    return Preprocessor(how, inputs[0])


class Worker:
    """The loop. Everything it touches is given to it."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        draft_size: tuple[int, int] | None,
        source: Source,
        interval_ns: int,
        reporting: ReportingConfig,
        handover: Handover,
        stop: Stop,
        sensors: Sensors | None = None,
    ) -> None:
        if source.gives_images:
            # Pillow costs 10 MB: only those who decode pay for it.
            from tflotilla.shared.inference.images import open_image

            self._open_image = open_image
        self._pipeline = pipeline
        self._draft_size = draft_size
        self._source = source
        self._interval_ns = interval_ns
        self._later_ns = int(reporting.window_s * _NS)
        self._window_ns = min(self._later_ns, _FIRST_WINDOW_NS)
        self._reporting = reporting
        self._thumbnails = Thumbnails(reporting.thumbnail_every_s if source.gives_images else None)
        self._sensors = sensors or Sensors()
        self._handover = handover
        self._stop = stop
        self._told: dict[str, None] = {}
        self._window = self._new_window()
        self._opened = time.perf_counter_ns()
        #: When something but inference is to be done: the window's end, or another try to write.
        self._due = self._opened

    def run(self) -> None:
        """Serve until told to stop. Raises BrokenPipeError when nobody reads any more."""
        # Everything that is touched beside an invoke must come from memory again: few names, few frames.
        clock, next_item, submit = time.perf_counter_ns, self._source.next_item, self._pipeline.submit
        stop, interval_ns = self._stop, self._interval_ns
        stop.looping = True
        self._opened = begin = clock()
        together = 0
        while not stop.requested:
            try:
                item = next_item()
            except TflotillaError as error:
                self._tell(str(error))
                item = None
            if item is None:
                self._wait_until(clock() + _IDLE_NS)
                begin = clock()
                continue
            try:
                if item.image is None:
                    now = submit(item.tensors or (), (item.name, 0))
                else:
                    now = self._submit_image(item.name, item.image)
            except (TflotillaError, ValueError, OSError, MemoryError) as error:
                self._count_error(item.name, error)
                now = clock()
            together += 1
            if together == _TOGETHER:
                together = 0
                self._collect()
            if now >= self._due:
                self._catch_up()
            if interval_ns:
                # From begin to begin, so that the rate is the interval's; what was missed is not made up for.
                begin += interval_ns
                self._wait_until(begin)
                begin = max(begin, clock())
        self._close_window()

    def _submit_image(self, name: str, encoded: Path | bytes) -> int:
        begin = time.perf_counter_ns()
        image = self._open_image(encoded, draft_size=self._draft_size)
        now = self._pipeline.submit_image(image, (name, time.perf_counter_ns() - begin))
        self._thumbnails.keep(name, image, now)
        return now

    def _count_error(self, name: str, error: Exception) -> None:
        if isinstance(error, DatasetError):
            self._window.unreadable += 1
        else:
            self._window.errors += 1
        problem = str(error) or type(error).__name__
        self._tell(problem if name in problem else f"{name}: {problem}", about=name)

    def _collect(self) -> None:
        """Answer what was submitted, and hand results over when they are many."""
        window = self._window
        # When an inference ended, on the wall's clock as it goes now.
        wall_ns = time.time_ns() - time.perf_counter_ns()
        for (name, decode_ns), ended_ns, result, error in self._pipeline.collect():
            if result is not None:
                top, preprocess_ns, invoke_ns, postprocess_ns = result
                total_ns = decode_ns + preprocess_ns + invoke_ns + postprocess_ns
                stages = (decode_ns, preprocess_ns, invoke_ns, postprocess_ns, total_ns)
                window.add(name, (ended_ns + wall_ns) / _NS, stages, top)
                if self._thumbnails.waits:
                    self._show(name, (ended_ns + wall_ns) / _NS, top)
            elif error is not None:
                self._count_error(name, error)
        if window.batch_ready:
            self._hand_over_results()
        if self._handover.waiting or window.full:
            # Soon, but not now: whoever doesn't read must not slow each batch down.
            self._due = min(self._due, time.perf_counter_ns() + _RETRY_NS)

    def _show(self, name: str, time_s: float, top: Sequence[Candidate]) -> None:
        body = self._thumbnails.body(name, time_s, top)
        # A picture of the present is no use to who reads it later.
        if body is not None and not self._handover.waiting:
            self._handover.offer(reports.THUMBNAIL, body)

    def _new_window(self) -> Window:
        reporting = self._reporting
        return Window(
            with_results=reporting.predictions,
            low_confidence_below=reporting.low_confidence_below,
            sample=reporting.sample,
        )

    def _tell(self, problem: str, *, about: str | None = None) -> None:
        key = about or problem
        if key in self._told:
            return
        if len(self._told) >= _TOLD_LIMIT:
            self._told.pop(next(iter(self._told)))
        self._told[key] = None
        self._handover.offer(reports.PROBLEM, one_line(problem))

    def _wait_until(self, until_ns: int) -> None:
        """Sleep until then or a signal, handing over what the pipe takes and closing windows meanwhile."""
        while not self._stop.requested:
            now = time.perf_counter_ns()
            if now >= self._due:
                self._catch_up()
            if now >= until_ns:
                return
            if self._pipeline.pending:
                self._collect()
                continue
            rest_s = (min(until_ns, self._due) - now) / _NS
            channels = [self._handover.channel] if self._handover.waiting else []
            _, writable, _ = select.select([self._stop.descriptor], channels, [], max(0.0, rest_s))
            if writable:
                self._handover.flush()

    @property
    def _closes(self) -> int:
        return self._opened + self._window_ns

    def _catch_up(self) -> None:
        """Do what is due, and find out when to look again: one comparison per inference must do."""
        now = time.perf_counter_ns()
        if now >= self._closes or self._window.full:
            self._close_window()
        else:
            self._handover.flush()
        self._due = min(self._closes, now + _RETRY_NS) if self._handover.waiting else self._closes

    def _hand_over_results(self) -> None:
        count = self._window.results
        if count:
            self._handover.offer(reports.PREDICTIONS, self._window.take_results(), results=count)

    def _close_window(self) -> None:
        self._collect()
        self._hand_over_results()
        now = time.perf_counter_ns()
        body = self._window.metrics(
            window_ns=now - self._opened,
            dropped=self._handover.take_dropped(),
            rss_bytes=facts.rss_bytes(),
            temperature_c=self._sensors.temperature_c(),
            throttled=self._sensors.slowed_down(),
        )
        self._handover.offer(reports.METRICS, body)
        self._window = self._new_window()
        self._opened, self._window_ns = now, self._later_ns


def one_line(text: str) -> bytes:
    """Return a problem as the text of one line: control characters shown, not obeyed."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text).encode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
