"""The worker as its supervisor sees it: a process, a spec, lines."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import models_made
from tests.device import running_bundles
from tests.device.children import PATIENCE_S, RUNTIMES, Line, RunningWorker
from tests.echo_model import EchoModel
from tflotilla.device import loading, reports
from tflotilla.device.bundle_folder import BundleFolder
from tflotilla.device.handover import Handover
from tflotilla.device.sources import Item
from tflotilla.device.worker import Stop, Worker
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig, ReportingConfig, SourceConfig
from tflotilla.shared.contract.messages import Metrics, Prediction, Predictions
from tflotilla.shared.contract.processing import Postprocessing, Preprocessing
from tflotilla.shared.inference.pipeline import Pipeline
from tflotilla.shared.inference.postprocessing import Answerer

RUNTIME = RUNTIMES[-1]


def _spec(
    bundle: Path, source: SourceConfig, *, runtime: str = RUNTIME, window_s: float = 0.2, predictions: bool = True
) -> reports.WorkerSpec:
    inference = codec.decode(InferenceConfig, {"runtime": runtime}, "test")
    return reports.WorkerSpec(
        bundle=str(bundle),
        inference=inference,
        source=source,
        reporting=ReportingConfig(window_s=window_s, predictions=predictions),
    )


def _folder(path: Path, *, loop: bool = False, interval_ms: float = 0) -> SourceConfig:
    return SourceConfig(kind="folder", path=str(path), loop=loop, interval_ms=interval_ms)


def _results(worker: RunningWorker, count: int) -> list[Prediction]:
    found: list[Prediction] = []
    while len(found) < count:
        found += worker.next(reports.PREDICTIONS).decode(Predictions).results
    return found


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_images_of_a_folder_are_recognized(tmp_path: Path, runtime: str) -> None:
    bundle, images = running_bundles.write(tmp_path / "b"), running_bundles.write_images(tmp_path / "i")

    with RunningWorker(_spec(bundle, _folder(images), runtime=runtime)) as worker:
        ready = worker.next(reports.READY).decode(reports.Ready)
        found = _results(worker, models_made.CLASSES)

    assert ready.runtime.name == runtime
    assert ready.delegate.requested is None
    assert ready.load_ns > 0
    assert ready.first_inference_ns > 0
    assert [result.top[0].label for result in found] == list(models_made.LABELS)
    assert [result.item for result in found] == sorted(path.name for path in images.iterdir())
    assert all(len(result.top) == 3 for result in found)


def test_stages_add_up_and_time_is_now(tmp_path: Path) -> None:
    bundle, images = running_bundles.write(tmp_path / "b"), running_bundles.write_images(tmp_path / "i")

    with RunningWorker(_spec(bundle, _folder(images))) as worker:
        found = _results(worker, models_made.CLASSES)

    for result in found:
        stages = dict(result.stages_ns)
        total = stages.pop("total")
        assert set(stages) == {"decode", "preprocess", "invoke", "postprocess"}
        assert all(value > 0 for value in stages.values())
        assert total == sum(stages.values())
        assert abs(result.time - time.time()) < PATIENCE_S


def test_a_window_counts_what_its_predictions_show(tmp_path: Path) -> None:
    bundle, images = running_bundles.write(tmp_path / "b"), running_bundles.write_images(tmp_path / "i")
    counted, shown = 0, 0
    labels: dict[str, int] = {}

    with RunningWorker(_spec(bundle, _folder(images), window_s=0.05)) as worker:
        while counted < models_made.CLASSES:
            line = worker.line()
            assert line is not None
            if line.kind == reports.PREDICTIONS:
                shown += len(line.decode(Predictions).results)
            if line.kind == reports.METRICS:
                metrics = line.decode(Metrics)
                counted += metrics.count
                for label in metrics.labels:
                    labels[label.label] = labels.get(label.label, 0) + label.count
                    assert label.mean_score > 0.99
                assert metrics.rss_bytes > 1 << 20
                assert all(stage.count == metrics.count for stage in metrics.stages.values())
                assert metrics.dropped == 0
                assert metrics.errors == 0

    assert counted == shown == models_made.CLASSES
    assert labels == dict.fromkeys(models_made.LABELS, 1)


def test_windows_close_on_time_even_when_nothing_comes(tmp_path: Path) -> None:
    images = running_bundles.write_images(tmp_path / "i", range(1))

    with RunningWorker(_spec(running_bundles.write(tmp_path / "b"), _folder(images), window_s=0.1)) as worker:
        windows = [worker.next(reports.METRICS).decode(Metrics) for _ in range(4)]

    assert sum(window.count for window in windows) == 1
    assert windows[-1].count == 0
    assert windows[-1].stages == {}
    assert all(window.window_s >= 0.1 for window in windows)


def test_the_first_window_is_short_for_a_deployment_waits_for_it(tmp_path: Path) -> None:
    spec = _spec(running_bundles.write(tmp_path / "b"), SourceConfig(interval_ms=10), window_s=3600)

    with RunningWorker(spec) as worker:
        first = worker.next(reports.METRICS).decode(Metrics)

    assert first.count > 0


def test_predictions_can_be_left_out(tmp_path: Path) -> None:
    spec = _spec(running_bundles.write(tmp_path / "b"), SourceConfig(interval_ms=1), predictions=False)

    with RunningWorker(spec) as worker:
        worker.next(reports.METRICS)
        assert worker.next(reports.METRICS).decode(Metrics).count > 0
        worker.process.send_signal(signal.SIGTERM)
        assert all(line.kind != reports.PREDICTIONS for line in worker.rest())


def test_the_interval_is_kept_on_average(tmp_path: Path) -> None:
    """From begin to begin: what an inference takes is not added to the interval."""
    spec = _spec(running_bundles.write(tmp_path / "b"), SourceConfig(interval_ms=10), window_s=1.0)

    with RunningWorker(spec) as worker:
        window = worker.next(reports.METRICS).decode(Metrics)

    # Never faster; how much slower is the machine's business.
    assert 1 <= window.count <= window.window_s * 100 + 1


def test_a_bad_file_is_one_error_line_however_often_it_comes(tmp_path: Path) -> None:
    images = running_bundles.write_images(tmp_path / "i", range(2))
    (images / "empty.png").write_bytes(b"")
    (images / "text.jpg").write_text("this is no image")
    whole = (images / "0-zero.png").read_bytes()
    (images / "truncated.png").write_bytes(whole[: len(whole) // 2])
    lines: list[Line] = []
    bad = good = 0

    with RunningWorker(_spec(running_bundles.write(tmp_path / "b"), _folder(images, loop=True))) as worker:
        while bad < 30 or good < 30:
            line = worker.line()
            assert line is not None
            lines.append(line)
            if line.kind == reports.METRICS:
                metrics = line.decode(Metrics)
                bad += metrics.unreadable
                good += metrics.count
                assert metrics.errors == 0, "a broken file is not the model's doing"

    problems = [line.body.decode() for line in lines if line.kind == reports.PROBLEM]
    assert len(problems) == 3
    for name in ("empty.png", "text.jpg", "truncated.png"):
        assert sum(name in problem for problem in problems) == 1
    assert abs(bad / 3 - good / 2) <= bad * 0.2 + 2


def test_new_files_are_found_while_waiting(tmp_path: Path) -> None:
    images = running_bundles.write_images(tmp_path / "i", range(2))
    late = running_bundles.write_images(tmp_path / "late", range(7, 8))

    with RunningWorker(_spec(running_bundles.write(tmp_path / "b"), _folder(images))) as worker:
        first = _results(worker, 2)
        shutil.move(late / "7-seven.png", images / "a-late.png")
        (found,) = _results(worker, 1)

    assert [result.top[0].label for result in first] == ["zero", "one"]
    assert (found.item, found.top[0].label) == ("a-late.png", "seven")


def test_an_empty_folder_is_told_once_and_waited_for(tmp_path: Path) -> None:
    images = tmp_path / "i"
    images.mkdir()

    with RunningWorker(_spec(running_bundles.write(tmp_path / "b"), _folder(images, loop=True))) as worker:
        problem = worker.next(reports.PROBLEM)
        assert b"holds no image" in problem.body
        worker.next(reports.METRICS)
        # Whole when it appears: a picture that is still being written is one that can't be read.
        for picture in running_bundles.write_images(tmp_path / "aside", range(3, 4)).iterdir():
            picture.rename(images / picture.name)
        lines: list[Line] = []
        while not lines or lines[-1].kind != reports.PREDICTIONS:
            line = worker.line()
            assert line is not None
            lines.append(line)

    assert all(line.kind != reports.PROBLEM for line in lines)
    assert lines[-1].decode(Predictions).results[0].top[0].label == "three"


def test_names_that_are_strange_travel(tmp_path: Path) -> None:
    images = tmp_path / "i"
    names = ["$(reboot) 'quoted' \"twice\".png", "naïve ☃.png", "line\nbreak\tand tab.png"]
    picture = running_bundles.write_images(tmp_path / "one", range(1)) / "0-zero.png"
    images.mkdir()
    for name in names:
        shutil.copy(picture, images / name)
    shutil.copy(os.fsencode(picture), os.fsencode(images) + b"/not-utf8-\xff.png")

    with RunningWorker(_spec(running_bundles.write(tmp_path / "b"), _folder(images))) as worker:
        found = {result.item for result in _results(worker, 4)}

    assert found == {*names, "not-utf8-\ufffd.png"}


def test_sigterm_ends_it_with_the_last_window_handed_over(tmp_path: Path) -> None:
    spec = _spec(running_bundles.write(tmp_path / "b"), SourceConfig(interval_ms=2))

    with RunningWorker(spec) as worker:
        lines = [worker.next(reports.PREDICTIONS), worker.next(reports.METRICS)]
        worker.process.send_signal(signal.SIGTERM)
        lines += worker.rest()

        assert worker.process.wait(PATIENCE_S) == 0
    shown = sum(len(line.decode(Predictions).results) for line in lines if line.kind == reports.PREDICTIONS)
    counted = sum(line.decode(Metrics).count for line in lines if line.kind == reports.METRICS)
    assert lines[-1].kind == reports.METRICS
    assert shown == counted > 0


def test_sigterm_ends_it_while_it_waits_for_an_hour(tmp_path: Path) -> None:
    with RunningWorker(
        _spec(running_bundles.write(tmp_path / "b"), SourceConfig(interval_ms=3_600_000), window_s=3600)
    ) as worker:
        worker.next(reports.READY)
        worker.process.send_signal(signal.SIGTERM)

        assert worker.process.wait(PATIENCE_S) == 0


def test_it_ends_when_nobody_reads_any_more(tmp_path: Path) -> None:
    with RunningWorker(_spec(running_bundles.write(tmp_path / "b"), SourceConfig())) as worker:
        worker.next(reports.READY)
        assert worker.process.stdout is not None
        worker.process.stdout.close()

        assert worker.process.wait(PATIENCE_S) == 0


def test_it_ends_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    """The pipe stays open in another process: the kernel's signal must do."""
    spec = tmp_path / "spec.json"
    spec.write_bytes(codec.canonical_json(_spec(running_bundles.write(tmp_path / "b"), SourceConfig())))
    code = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-m', 'tflotilla.device.worker'],"
        "stdin=open(sys.argv[1])); print('pid', child.pid, flush=True); time.sleep(1000)"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code, str(spec)], stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    pid = int(supervisor.stdout.readline().split()[1])
    while not supervisor.stdout.readline().startswith(reports.METRICS):
        pass

    supervisor.kill()
    supervisor.wait()

    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the worker outlived its supervisor"
        time.sleep(0.02)
    supervisor.stdout.close()


class _Counting:
    """A source of so many items, which then asks the worker to stop."""

    gives_images = False

    def __init__(self, stop: Stop, count: int) -> None:
        self._stop = stop
        self._left = count

    def next_item(self) -> Item:
        self._left -= 1
        if self._left == 0:
            self._stop.requested = True
        return Item(name="x", tensors=(running_bundles.image(3),))

    def close(self) -> None:
        """Nothing is held."""


def test_a_supervisor_that_does_not_read_never_stops_inference(tmp_path: Path) -> None:
    """20,000 inferences, and nobody reads: all are made, little is kept, and the rest is counted."""
    made, limit_bytes = 20_000, 200_000
    bundle = BundleFolder.open(running_bundles.write(tmp_path / "b"))
    model = loading.load(bundle, codec.decode(InferenceConfig, {"runtime": RUNTIME}, "test")).model
    answerer = Answerer(bundle.manifest.postprocessing, model.outputs, bundle.labels())
    reader, writer = os.pipe()
    handover, stop = Handover(writer, limit_bytes=limit_bytes), Stop(signals=())
    worker = Worker(
        pipeline=Pipeline(model, None, answerer),
        draft_size=None,
        source=_Counting(stop, made),
        interval_ns=0,
        reporting=ReportingConfig(window_s=3600),
        handover=handover,
        stop=stop,
    )

    worker.run()

    waiting = handover.waiting_bytes
    dropped = handover.take_dropped()
    received = b""
    while handover.waiting:
        received += os.read(reader, 1 << 20)
        handover.flush()
    os.close(writer)
    while piece := os.read(reader, 1 << 20):
        received += piece
    os.close(reader)
    lines = [Line(line[:1], line[1:]) for line in received.splitlines()]
    shown = sum(len(line.decode(Predictions).results) for line in lines if line.kind == reports.PREDICTIONS)
    windows = [line.decode(Metrics) for line in lines if line.kind == reports.METRICS]
    assert waiting <= limit_bytes
    assert sum(window.count for window in windows) == made
    assert shown < made
    assert shown + sum(window.dropped for window in windows) + dropped == made


class _Scripted:
    """A source of these scores, one after the other, which then asks the worker to stop."""

    gives_images = False

    def __init__(self, stop: Stop, *scores: tuple[float, float, float]) -> None:
        self._stop = stop
        self._left = list(enumerate(scores))

    def next_item(self) -> Item:
        number, scores = self._left.pop(0)
        self._stop.requested = not self._left
        return Item(name=f"item {number}", tensors=(np.array([scores], np.float32),))

    def close(self) -> None:
        """Nothing is held."""


def _served(*scores: tuple[float, float, float]) -> list[Line]:
    """Let a worker of a model that echoes serve these scores in one go; return its lines."""
    model, stop = EchoModel(), Stop(signals=())
    reader, writer = os.pipe()
    Worker(
        pipeline=Pipeline(model, None, Answerer(Postprocessing(top_k=1), model.outputs, ())),
        draft_size=None,
        source=_Scripted(stop, *scores),
        interval_ns=0,
        reporting=ReportingConfig(window_s=3600),
        handover=Handover(writer),
        stop=stop,
    ).run()
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        return [Line(line[:1], line[1:-1]) for line in stream]


def test_an_answer_that_is_none_stays_the_error_of_its_own_input() -> None:
    """Answers are made together: one that fails costs the others nothing."""
    problem, predictions, metrics = _served((0, 1, 0), (0, float("nan"), 0), (1, 0, 0))

    assert problem.kind == reports.PROBLEM
    assert problem.body.startswith(b"item 1: the model gave class")
    results = predictions.decode(Predictions).results
    assert [(result.item, result.top[0].index) for result in results] == [("item 0", 1), ("item 2", 0)]
    assert (metrics.decode(Metrics).count, metrics.decode(Metrics).errors) == (2, 1)


def test_a_result_bears_the_time_of_its_inference_not_of_its_answer() -> None:
    before = time.time()
    *batches, _ = _served(*[(0, 1, 0)] * 100)
    after = time.time()

    times = [result.time for batch in batches for result in batch.decode(Predictions).results]
    assert len(set(times)) == 100
    assert times == sorted(times)
    assert before - 0.001 <= times[0]
    assert times[-1] <= after + 0.001


@pytest.mark.parametrize(
    ("changes", "source", "code", "words"),
    [
        ({}, SourceConfig(kind="webcam"), 3, "source.kind 'webcam' is not known; allowed are folder, synthetic"),
        ({}, SourceConfig(kind="folder"), 3, "source.path is missing"),
        ({}, SourceConfig(kind="folder", path="/nowhere at all"), 3, "'/nowhere at all' is not a folder on this board"),
        ({"preprocessing": None}, SourceConfig(kind="folder", path="/"), 3, "tiny-1.0.0 takes none"),
        ({"preprocessing": Preprocessing()}, SourceConfig(kind="folder", path="/"), 3, "1 colour channels"),
    ],
    ids=["unknown kind", "no path", "no folder", "no images", "wrong channels"],
)
def test_what_can_never_work_is_said_in_one_line(
    tmp_path: Path, changes: dict[str, object], source: SourceConfig, code: int, words: str
) -> None:
    bundle = running_bundles.write(tmp_path / "b", changes=changes)

    with RunningWorker(_spec(bundle, source)) as worker:
        lines = worker.rest()

        assert worker.process.wait(PATIENCE_S) == code
        assert "Traceback" not in worker.log()
    assert [line.kind for line in lines] == [reports.PROBLEM]
    assert words in lines[0].body.decode()


def test_a_model_whose_bytes_changed_on_the_board_is_not_loaded(tmp_path: Path) -> None:
    bundle = running_bundles.write(tmp_path / "b")
    model = bundle / "model.tflite"
    decayed = bytearray(model.read_bytes())
    decayed[len(decayed) // 2] ^= 1
    model.write_bytes(decayed)

    with RunningWorker(_spec(bundle, SourceConfig())) as worker:
        (line,) = worker.rest()

        assert worker.process.wait(PATIENCE_S) == 8
    assert re.search(rb"model.tflite is not the file that was signed", line.body)


def test_a_spec_that_is_none_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tflotilla.device.worker"], input=b'{"bundle": 1}', capture_output=True, check=False
    )

    assert done.returncode == 3
    assert done.stdout == b"Estdin.bundle: 1 is not allowed here; expected a text\n"


def test_nothing_but_inference_runs_in_it(tmp_path: Path) -> None:
    """One thread: a second one would take the interpreter's lock for milliseconds (docs/architecture.md)."""
    with RunningWorker(_spec(running_bundles.write(tmp_path / "b"), SourceConfig(interval_ms=1))) as worker:
        worker.next(reports.METRICS)
        threads = list(Path(f"/proc/{worker.process.pid}/task").iterdir())
        modules = Path(f"/proc/{worker.process.pid}/maps").read_text()

    assert len(threads) == 1
    assert "PIL" not in modules
