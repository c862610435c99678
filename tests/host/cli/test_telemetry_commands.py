"""`watch` and `benchmark` as users run them, against scripted boards over a real mosquitto."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.telemetry import fake_board
from tflotilla.shared.contract import messages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests import brokers
    from tests.host.telemetry.fake_board import FakeBoard

pytestmark = pytest.mark.mosquitto
PATIENCE_S = 120.0
Make = "Callable[..., FakeBoard]"


def tflotilla(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tflotilla.host", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=os.environ | {"COLUMNS": "200"}
    )


def answering(request: messages.BenchmarkRequest, *, runs: int = 700) -> messages.BenchmarkReport:
    cells = tuple(
        fake_board.cell(runtime, threads, runs=runs, p50_ns=p50_ns)
        for runtime, p50_ns in ((fake_board.LITERT, 25_000), (fake_board.TFLITE, 460_000))
        for threads in request.threads
    )
    return messages.BenchmarkReport(request=request.request, model_sha256="ab" * 32, cells=cells)


def talk_until(stop: threading.Event, board: FakeBoard) -> threading.Thread:
    def talk() -> None:
        board.say("state", fake_board.state())
        while not stop.wait(0.1):
            board.say("metrics", fake_board.metrics())
            board.say("predictions", fake_board.predictions(time.time()))

    thread = threading.Thread(target=talk)
    thread.start()
    return thread


def watched(board: FakeBoard, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    stop = threading.Event()
    with board:
        thread = talk_until(stop, board)
        try:
            return tflotilla("watch", *arguments)
        finally:
            stop.set()
            thread.join()


def test_watch_prints_one_json_object_per_message(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    result = watched(board("pi-1"), "--fleet", fleet_file, "--for", "2", "--json")

    assert (result.returncode, result.stderr) == (0, "")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["board"] for line in lines} == {"pi-1"}
    by_channel = {line["channel"]: line for line in lines}
    assert set(by_channel) == {"availability", "state", "metrics", "predictions"}
    assert by_channel["predictions"]["message"]["body"]["results"][0]["top"][0]["label"] == "seven"


def test_watch_prints_plain_lines_when_piped(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    result = watched(board("pi-1"), "--fleet", fleet_file, "--for", "2")

    assert (result.returncode, result.stderr) == (0, "")
    assert "pi-1             online\n" in result.stdout
    assert "10.0 inferences/s, p50 25.0 µs, p99 75.0 µs, mostly seven\n" in result.stdout
    assert "\x1b" not in result.stdout


def test_watch_draws_a_table_on_a_terminal(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    master, slave = pty.openpty()
    stop = threading.Event()
    shown = b""
    with board("pi-1") as talking:
        thread = talk_until(stop, talking)
        command = [sys.executable, "-m", "tflotilla.host", "watch", "--fleet", str(fleet_file), "--for", "2"]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
        with subprocess.Popen(command, stdout=slave, stdin=subprocess.DEVNULL, env=environment):
            os.close(slave)
            try:
                while data := os.read(master, 65536):
                    shown += data
            except OSError:  # how Linux says that the other end of a terminal is gone
                pass
        stop.set()
        thread.join()
    os.close(master)
    assert "digits-1.0.0" in shown.decode()
    assert "litert x2" in shown.decode()


def test_watch_says_when_the_broker_is_down(fleet_file: Path, mosquitto: brokers.Mosquitto) -> None:
    mosquitto.kill()

    result = tflotilla("watch", "--fleet", fleet_file, "--for", "1")

    assert result.returncode == 10
    assert result.stdout == ""
    assert result.stderr.startswith(f"tflotilla: MQTT broker 127.0.0.1:{mosquitto.port} can't be reached")
    assert result.stderr.count("\n") == 1


def test_watch_says_when_the_password_is_refused(fleet_file: Path) -> None:
    (fleet_file.parent / "password").write_text("wrong\n")

    result = tflotilla("watch", "--fleet", fleet_file, "--for", "1")

    assert result.returncode == 10
    assert "refuses user 'host'" in result.stderr


@pytest.mark.parametrize("seconds", ["0", "-1"])
def test_watch_for_no_time_is_a_usage_error(fleet_file: Path, seconds: str) -> None:
    assert tflotilla("watch", "--fleet", fleet_file, "--for", seconds).returncode == 2


def test_a_fleet_without_a_broker_is_told_what_to_add(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text('name = "barn"\n[boards.pi]\nhost = "pi"\n')

    for command in (("watch", "--for", "1"), ("benchmark", "all")):
        result = tflotilla(*command, "--fleet", tmp_path / "fleet.toml")
        assert result.returncode == 3
        assert "no [mqtt] table" in result.stderr


def test_benchmark_puts_boards_runtimes_and_threads_side_by_side(
    fleet_file: Path, board: Callable[..., FakeBoard]
) -> None:
    with board("pi-1", script=answering) as first, board("pi-2", script=answering):
        result = tflotilla("benchmark", "pi-1,pi-2", "--threads", "1,2", "--fleet", fleet_file)

    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if line.split()[:1] in (["pi-1"], ["pi-2"])]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        (name, runtime, threads)
        for name in ("pi-1", "pi-2")
        for runtime in ("ai-edge-litert", "tflite-runtime")
        for threads in ("1", "2")
    ]
    assert "fastest" in result.stdout
    (request,) = first.requests
    assert (request.threads, request.runtimes) == ((1, 2), ())


def test_benchmark_marks_percentiles_without_enough_runs(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    with board("pi-1", script=lambda request: answering(request, runs=120)):
        result = tflotilla("benchmark", "pi-1", "--fleet", fleet_file)

    assert "75.0 µs*" in result.stdout
    assert "not enough runs for p99: 120 of 662" in result.stderr


def test_benchmark_hands_the_options_on_and_answers_in_json(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    options = ["--threads", "4", "--runtimes", "tflite-runtime", "--min-runs", "70", "--min-seconds", "0.5"]
    options += ["--max-seconds", "3", "--warmup-runs", "2"]
    with board("pi-1", script=answering) as asked:
        result = tflotilla("benchmark", "pi-1", *options, "--json", "--fleet", fleet_file)

    document: dict[str, Any] = json.loads(result.stdout)
    assert document["boards"]["pi-1"]["cells"][0]["latency"]["p50_ns"] == 25_000
    (request,) = asked.requests
    assert request == messages.BenchmarkRequest(
        request=request.request,
        runtimes=("tflite-runtime",),
        threads=(4,),
        warmup_runs=2,
        min_runs=70,
        min_seconds=0.5,
        max_seconds=3.0,
    )


def test_a_board_that_does_not_answer_is_named_and_the_others_are_shown(
    fleet_file: Path, board: Callable[..., FakeBoard]
) -> None:
    with board("pi-1", script=answering), board("pi-2"):
        result = tflotilla("benchmark", "pi-1,pi-2", "--timeout", "3", "--fleet", fleet_file)

    assert result.returncode == 10
    assert "pi-1" in result.stdout
    assert "tflotilla: pi-2 did not answer within 3 s" in result.stderr


def test_a_board_that_is_offline_or_unknown_is_not_waited_for(
    fleet_file: Path, board: Callable[..., FakeBoard]
) -> None:
    with board("pi-2") as dying:
        dying.die()
        begin = time.monotonic()
        result = tflotilla("benchmark", "all", "--fleet", fleet_file)

    assert result.returncode == 10
    assert "pi-1 does not answer: it has never reported" in result.stderr
    assert "pi-2 is offline" in result.stderr
    # The patience for an answer would be minutes.
    assert time.monotonic() - begin < 60


def test_boards_that_fail_in_different_ways_exit_with_one(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    def refusing(request: messages.BenchmarkRequest) -> messages.BenchmarkReport:
        return messages.BenchmarkReport(request=request.request, model_sha256=None, cells=(), error="no bundle serves")

    with board("pi-1", script=refusing), board("pi-2"):
        alone = tflotilla("benchmark", "pi-1", "--fleet", fleet_file)
        both = tflotilla("benchmark", "pi-1,pi-2", "--timeout", "3", "--fleet", fleet_file)

    assert alone.returncode == 7
    assert "pi-1 can't measure: no bundle serves" in alone.stderr
    assert both.returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [("nobody",), ("all", "--threads", "0"), ("all", "--runtimes", "onnx"), ("all", "--min-seconds", "99")],
)
def test_requests_that_make_no_sense_are_usage_errors_of_one_line(fleet_file: Path, arguments: tuple[str, ...]) -> None:
    result = tflotilla("benchmark", *arguments, "--fleet", fleet_file)

    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
