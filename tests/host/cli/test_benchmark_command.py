"""`benchmark` as users run it, against scripted boards over a real mosquitto."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.benchmarks import answers, measured, rich_runs
from tests.host.telemetry import fake_board
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.benchmark import BenchmarkReport, BenchmarkRequest, CellError, Configuration, Method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.host.telemetry.fake_board import FakeBoard, Script

pytestmark = pytest.mark.mosquitto
PATIENCE_S = 120.0
_STEADY = tuple(25_000 + number % 7 * 100 for number in range(700))


def tflotilla(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*arguments),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )


def _command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "tflotilla.host", "benchmark", *map(str, arguments)]


def answering(request: BenchmarkRequest, *, runs: int = 700, **changes: Any) -> tuple[BenchmarkReport, ...]:  # noqa: ANN401 - fields of a cell
    """Answer every configuration, each slower than the one before."""
    total = len(request.configurations)
    return tuple(
        dataclasses.replace(
            answers.report(number, total, request=request.request),
            cell=dataclasses.replace(
                measured.cell([value * number for value in _STEADY[:runs]], **changes), configuration=configuration
            ),
        )
        for number, configuration in enumerate(request.configurations, 1)
    )


@contextmanager
def boards_online(make: Callable[..., FakeBoard], **scripts: Script) -> Iterator[tuple[FakeBoard, ...]]:
    """Bring boards up that have said what they are; underscores stand for dashes."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        up = tuple(stack.enter_context(make(name.replace("_", "-"), script=script)) for name, script in scripts.items())
        for each in up:
            each.say("state", fake_board.state())
        yield up


def test_boards_runtimes_and_threads_stand_side_by_side(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    with boards_online(board, pi_1=answering, pi_2=answering) as (first, _):
        result = tflotilla("pi-1,pi-2", "--threads", "1,2", "--fleet", fleet_file)

    assert result.returncode == 0, result.stderr
    rows = [line for line in result.stdout.splitlines() if line.split()[:1] in (["pi-1"], ["pi-2"])]
    assert len(rows) >= 8
    (request,) = first.requests
    assert [(one.inference.runtime, one.inference.num_threads) for one in request.configurations] == [
        ("ai-edge-litert", 1),
        ("ai-edge-litert", 2),
        ("tflite-runtime", 1),
        ("tflite-runtime", 2),
    ]


def test_a_percentile_without_enough_runs_is_not_made_up(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    with boards_online(board, pi_1=lambda request: answering(request, runs=120)):
        result = tflotilla("pi-1", "--fleet", fleet_file)

    assert "not enough runs for p99 (120 of 662)" in result.stdout + result.stderr


def test_the_options_travel_and_the_answer_is_one_json_document(
    fleet_file: Path, board: Callable[..., FakeBoard]
) -> None:
    options = ["--num-threads", "4", "--runtimes", "tflite-runtime", "--num-runs", "70", "--min-secs", "0.5"]
    options += ["--max-secs", "3", "--warmup-runs", "2", "--use-xnnpack", "false", "--run-delay", "0.01", "--stages"]
    options += ["--seed", "7", "--inputs", "random", "--affinity", "0-3", "--batch", "2", "--cool-to", "55"]
    with boards_online(board, pi_1=answering) as (asked,):
        result = tflotilla("pi-1", *options, "--json", "--fleet", fleet_file)

    document: dict[str, Any] = json.loads(result.stdout)
    (part,) = document["boards"]
    assert part["cells"][0]["measurement"]["latency"]["median_ns"] == 25_300
    (request,) = asked.requests
    assert request == BenchmarkRequest(
        request=request.request,
        configurations=(
            Configuration(
                inference=InferenceConfig(
                    runtime="tflite-runtime", num_threads=4, xnnpack=False, affinity=(0, 1, 2, 3)
                ),
                batch=2,
            ),
        ),
        method=Method(
            warmup_runs=2,
            min_runs=70,
            min_seconds=0.5,
            max_seconds=3.0,
            run_delay_seconds=0.01,
            stages=True,
            seed=7,
            inputs="random",
            cool_to_c=55.0,
        ),
    )


def test_a_configuration_that_fails_leaves_the_others_and_exits_with_seven(
    fleet_file: Path, board: Callable[..., FakeBoard]
) -> None:
    def half(request: BenchmarkRequest) -> tuple[BenchmarkReport, ...]:
        good, bad = answering(request)
        error = CellError(kind="crashed", message="the benchmark process crashed (SIGSEGV)")
        return good, dataclasses.replace(bad, cell=measured.cell(error=error))

    with boards_online(board, pi_1=half):
        result = tflotilla("pi-1", "--runtimes", "ai-edge-litert", "--threads", "1,2", "--fleet", fleet_file)

    assert result.returncode == 7
    assert "SIGSEGV" in result.stdout + result.stderr
    assert "25.3" in result.stdout


def test_invalid_figures_fail_only_when_validity_is_required(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    def doubtful(request: BenchmarkRequest) -> tuple[BenchmarkReport, ...]:
        (report,) = answering(request)
        assert report.cell is not None
        assert report.cell.measurement is not None
        verdict = dataclasses.replace(report.cell.measurement.verdict, valid=False, reasons=("it was throttled",))
        figures = dataclasses.replace(report.cell.measurement, verdict=verdict)
        return (dataclasses.replace(report, cell=dataclasses.replace(report.cell, measurement=figures)),)

    with boards_online(board, pi_1=doubtful):
        told = tflotilla("pi-1", "--runtimes", "ai-edge-litert", "--fleet", fleet_file)
        strict = tflotilla("pi-1", "--runtimes", "ai-edge-litert", "--require-valid", "--fleet", fleet_file)

    assert told.returncode == 0
    assert "it was throttled" in told.stdout + told.stderr
    assert strict.returncode == 7


def test_results_are_written_saved_and_found_again(
    fleet_file: Path, board: Callable[..., FakeBoard], tmp_path: Path
) -> None:
    files = [tmp_path / f"found.{suffix}" for suffix in ("json", "csv", "md", "xml", "html", "txt")]
    outputs = [word for file in files for word in ("-o", str(file))]
    with boards_online(board, pi_1=answering) as (asked,):
        first = tflotilla("pi-1", "--name", "base", *outputs, "--fleet", fleet_file)
        again = tflotilla("--rerun", files[0], "--save", "--fleet", fleet_file)

    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert all(file.stat().st_size > 200 for file in files)
    one, other = asked.requests
    assert one.configurations == other.configurations
    assert one.method == other.method
    assert one.request != other.request


def test_what_serves_is_asked_for_without_knowing_it_and_again_by_its_name(
    fleet_file: Path, board: Callable[..., FakeBoard], tmp_path: Path
) -> None:
    tuned = Configuration(inference=InferenceConfig(runtime="tflite-runtime", num_threads=2, affinity=(2, 3)))

    def serving(request: BenchmarkRequest) -> tuple[BenchmarkReport, ...]:
        return answering(dataclasses.replace(request, configurations=request.configurations or (tuned,)))

    with boards_online(board, pi_1=serving) as (asked,):
        first = tflotilla("pi-1", "--as-served", "-o", tmp_path / "served.json", "--fleet", fleet_file)
        again = tflotilla("--rerun", tmp_path / "served.json", "--fleet", fleet_file)

    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert "×2, CPU 2,3" in first.stdout
    assert [request.configurations for request in asked.requests] == [(), (tuned,)]


def test_a_place_that_can_not_be_written_does_not_cost_the_others_the_result(
    fleet_file: Path, board: Callable[..., FakeBoard], tmp_path: Path
) -> None:
    (tmp_path / "folder.json").mkdir()
    with boards_online(board, pi_1=answering):
        places = ("-o", tmp_path / "folder.json", "-o", tmp_path / "found.csv")
        result = tflotilla("pi-1", "--name", "base", *places, "--fleet", fleet_file)
    shown = tflotilla("show", "base", "--fleet", fleet_file)

    assert result.returncode == 3
    assert "folder.json can't be written" in result.stderr
    assert (tmp_path / "found.csv").stat().st_size > 200
    assert shown.returncode == 0, shown.stderr


def test_a_rerun_that_lacks_something_measures_nothing(
    fleet_file: Path, board: Callable[..., FakeBoard], tmp_path: Path
) -> None:
    file = tmp_path / "found.json"
    with boards_online(board, pi_1=answering) as (asked,):
        tflotilla("pi-1", "-o", file, "--fleet", fleet_file)
        document = json.loads(file.read_text())
        (part,) = document["boards"]
        lacking = {**part, "request": {**part["request"], "bundle": "ab" * 32}}
        file.write_text(json.dumps({**document, "boards": [part, lacking]}))
        result = tflotilla("--rerun", file, "--fleet", fleet_file)

    assert result.returncode == 2
    assert "bring that bundle with --models" in result.stderr
    assert len(asked.requests) == 1


def test_the_stages_and_operators_that_were_asked_for_are_shown(
    fleet_file: Path, board: Callable[..., FakeBoard]
) -> None:
    def rich(request: BenchmarkRequest) -> tuple[BenchmarkReport, ...]:
        return tuple(
            dataclasses.replace(report, cell=rich_runs.cell(1, rich_runs.measurement()))
            for report in answering(request)
        )

    with boards_online(board, pi_1=rich):
        result = tflotilla("pi-1", "--stages", "--profile", "--runtimes", "ai-edge-litert", "--fleet", fleet_file)

    assert "decode" in result.stdout, result.stderr
    assert "SOFTMAX" in result.stdout
    assert "rates that were tried" not in result.stdout


def test_a_board_that_does_not_answer_is_named_and_the_others_are_shown(
    fleet_file: Path, board: Callable[..., FakeBoard]
) -> None:
    with boards_online(board, pi_1=answering, pi_2=lambda _: ()):
        result = tflotilla("pi-1,pi-2", "--timeout", "3", "--fleet", fleet_file)

    assert result.returncode == 10
    assert "pi-1" in result.stdout
    assert "tflotilla: pi-2 did not answer within 3 s" in result.stderr


def test_what_a_board_found_before_it_fell_silent_is_shown(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    with boards_online(board, pi_1=lambda request: answering(request)[:1]):
        result = tflotilla("pi-1", "--threads", "1,2", "--timeout", "3", "--fleet", fleet_file)

    assert result.returncode == 10
    assert "25.3" in result.stdout
    assert "did not answer within 3 s after 1 configurations" in result.stderr


def test_a_board_that_is_offline_or_unknown_is_not_waited_for(
    fleet_file: Path, board: Callable[..., FakeBoard]
) -> None:
    with board("pi-2") as dying:
        dying.die()
        begin = time.monotonic()
        result = tflotilla("all", "--fleet", fleet_file)

    assert result.returncode == 10
    assert "pi-1 does not answer: it has never reported" in result.stderr
    assert "pi-2 is offline" in result.stderr
    # The patience for an answer would be minutes.
    assert time.monotonic() - begin < 60


def test_boards_that_fail_in_different_ways_exit_with_one(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    def refusing(request: BenchmarkRequest) -> tuple[BenchmarkReport, ...]:
        return (answers.refusal("no bundle serves", request=request.request),)

    with boards_online(board, pi_1=refusing, pi_2=lambda _: ()):
        alone = tflotilla("pi-1", "--fleet", fleet_file)
        both = tflotilla("pi-1,pi-2", "--timeout", "3", "--fleet", fleet_file)

    assert alone.returncode == 7
    assert "pi-1 can't measure: no bundle serves" in alone.stderr
    assert both.returncode == 1


def test_ctrl_c_ends_the_benchmark_on_the_board(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    with boards_online(board, pi_1=lambda _: ()) as (asked,):
        process = subprocess.Popen(_command("pi-1", "--fleet", fleet_file), stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + PATIENCE_S
        while not asked.requests and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
        while len(asked.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)

    first, last = asked.requests
    assert process.returncode == 130
    assert "interrupted" in said
    assert (last.request, last.cancel) == (first.request, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody",), "nobody"),
        ((), "SELECTOR"),
        (("all", "everything"), "one SELECTOR"),
        (("all", "--threads", "0"), "--threads"),
        (("all", "--runtimes", "onnx"), "--runtimes"),
        (("all", "--min-seconds", "99"), "--min-seconds must be 0..30"),
        (("all", "--scenario", "server"), "--latency-bound is missing"),
        (("all", "--rate", "10", "--scenario", "offline"), "--rate is for"),
        (("all", "--max-rss", "big"), "--max-rss must be like 120MiB"),
        (("all", "--sustained", "0"), "--sustained must be 1..3600"),
        (("all", "--data", "x"), "--data needs --models"),
        (("all", "-o", "found.pdf"), ".json"),
        (("all", "--delegate", ":x"), "--delegate"),
        (("all", "--timeout", "0"), "--timeout"),
        (("all", "--timeout", "nan"), "--timeout"),
        (("all", "--qps", "5"), "--qps is for --scenario server"),
        (("all", "--latency-bound", "5ms", "--scenario", "offline"), "--latency-bound is for --scenario server"),
        (("all", "--samples-per-query", "4"), "--samples-per-query is for --scenario multi-stream"),
        (("all", "--rate", "10", "--run-delay", "1"), "--run-delay and --rate"),
        (("all", "--run-delay", "1", "--scenario", "server", "--qps", "5"), "--run-delay is not for"),
        (("all", "--as-served", "--threads", "2"), "--as-served is the board's own configuration; leave out --threads"),
        (("all", "--label-offset", "1"), "--label-offset is for the samples of --data"),
        (("--rerun", "found.json", "--num-threads", "2"), "--rerun measures as the file says; leave out --threads"),
    ],
)
def test_requests_that_make_no_sense_are_usage_errors_of_one_line(
    fleet_file: Path, arguments: tuple[str, ...], words: str
) -> None:
    result = tflotilla(*arguments, "--fleet", fleet_file)

    lines = [line for line in result.stderr.splitlines() if not line.startswith("asking")]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1
    assert words in lines[0]


def test_a_result_file_that_is_none_is_named(fleet_file: Path, tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text("{}")

    result = tflotilla("--rerun", tmp_path / "found.json", "--fleet", fleet_file)

    assert result.returncode == 3
    assert "found.json is not a benchmark's result" in result.stderr


def test_messages_of_a_board_that_are_no_answers_are_passed_over(
    fleet_file: Path, board: Callable[..., FakeBoard]
) -> None:
    def chatty(request: BenchmarkRequest) -> tuple[BenchmarkReport, ...]:
        return (
            *answering(BenchmarkRequest(request="another", configurations=request.configurations)),
            *answering(request),
        )

    with boards_online(board, pi_1=chatty) as (talking,):
        talking.say("event", messages.Event(level="info", kind="x", message="\x1b[31mred"))
        result = tflotilla("pi-1", "--runtimes", "ai-edge-litert", "--fleet", fleet_file)

    assert result.returncode == 0
    assert "\x1b" not in result.stdout + result.stderr
