"""Benchmarks of the whole agent: real cells beside a real worker, over a real mosquitto; killed, cut off, misused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests import brokers, models_made
from tests.device import delegates_made, homes_made
from tests.device.benchmark import float_bundle
from tests.device.benchmark_agents import kinds
from tests.device.children import RUNTIMES
from tflotilla.device import control
from tflotilla.shared.contract import codec, digest, topics
from tflotilla.shared.contract.agent_config import DelegateConfig, InferenceConfig
from tflotilla.shared.contract.benchmark import BenchmarkReport, BenchmarkRequest, Configuration, Method
from tflotilla.shared.contract.manifest import MANIFEST, SIGNATURE
from tflotilla.shared.contract.messages import Message

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.device.home import Home

pytestmark = pytest.mark.mosquitto
COMMAND = topics.command(homes_made.FLEET, homes_made.BOARD, "benchmark")
QUICK = Method(warmup_runs=2, min_runs=70, min_seconds=0.2, max_seconds=10.0)


@pytest.fixture
def home(tmp_path: Path, broker: brokers.Mosquitto) -> Home:
    return homes_made.make(tmp_path / "home", homes_made.config(broker.port))


def ask(listener: brokers.Listener, request: BenchmarkRequest) -> None:
    said = Message(board=homes_made.BOARD, boot="host", seq=0, time=0.0, bundle=request.bundle, body=request)
    listener.send(COMMAND, said.to_bytes())


def heard(listener: brokers.Listener, request: str) -> list[BenchmarkReport]:
    """What has come for a request, in order."""
    return [message.body for message in listener.messages("benchmark") if message.body.request == request]


def answers(listener: brokers.Listener, request: BenchmarkRequest) -> list[BenchmarkReport]:
    """Ask and wait for the last report."""
    ask(listener, request)
    brokers.until(lambda: any(report.last for report in heard(listener, request.request)), "the last report")
    return heard(listener, request.request)


def configuration(runtime: str = RUNTIMES[0], *, threads: int = 1, delegate: Path | None = None) -> Configuration:
    asked = codec.decode(InferenceConfig, {"runtime": runtime, "num_threads": threads}, "test")
    if delegate is not None:
        asked = replace(asked, delegate=DelegateConfig(library=str(delegate)))
    return Configuration(inference=asked)


def test_cells_fail_each_for_itself_and_the_serving_worker_is_not_touched(
    tmp_path: Path, home: Home, listener: brokers.Listener
) -> None:
    serving = homes_made.install(home)
    hungry = homes_made.install(home, model=models_made.read("hungry"), version="2.0.0", serving=False)
    crashing = delegates_made.build(tmp_path, "crashes")
    with homes_made.running(home) as agent:
        brokers.until(agent.serves, "the worker to run")
        (worker,) = homes_made.worker_pids(agent)
        wanted = (
            configuration(threads=64),
            configuration(delegate=crashing),
            configuration(),
            Configuration(),
        )
        found = answers(listener, BenchmarkRequest(request="r", configurations=wanted, method=QUICK))
        greedy = answers(listener, BenchmarkRequest(request="g", bundle=hungry, method=QUICK))

        assert homes_made.worker_pids(agent) == [worker]
        assert agent.state().worker == "running"

    assert kinds(found) == ["refused", "delegate", "figures", "figures"]
    assert kinds(greedy)[0] in ("out_of_memory", "model")
    assert [report.position for report in found] == [1, 2, 3, 4]
    for report in found[2:]:
        assert report.identity is not None
        assert report.identity.bundle == serving
        assert report.cell is not None
        assert report.cell.runtime is not None
        assert report.cell.runtime.name == RUNTIMES[0]
        assert report.cell.measurement is not None
        assert report.cell.measurement.runs >= 70
        assert report.cell.measurement.correctness.goldens == 4
        assert report.cell.serving is not None
        assert report.cell.serving.errors == 0
        assert report.cell.serving.restarts == 0


def test_a_kill_costs_one_cell_and_an_absent_broker_none(
    home: Home, broker: brokers.Mosquitto, listener: brokers.Listener
) -> None:
    homes_made.install(home)
    request = BenchmarkRequest(
        request="r",
        configurations=(configuration(), configuration(), configuration()),
        method=replace(QUICK, min_seconds=2.0),
    )
    with homes_made.running(home) as agent:
        brokers.until(agent.serves, "the worker to run")
        brokers.until(lambda: bool(listener.messages("state")), "the connection")
        ask(listener, request)
        brokers.until(lambda: home.benchmark.exists() and '"began":0' in home.benchmark.read_text(), "the first cell")
        broker.stop()
        brokers.until(lambda: '"began":1' in home.benchmark.read_text(), "the second cell")
        agent.kill()

    with homes_made.running(home) as agent:
        brokers.until(lambda: control.is_running(home) and home.benchmark.read_text().count('"cell":{') == 3, "the end")
        broker.start()
        brokers.until(lambda: len(heard(listener, "r")) >= 3, "the reports")
        assert agent.process.poll() is None

    found = heard(listener, "r")
    assert [report.position for report in found] == [1, 2, 3]
    assert kinds(found) == ["figures", "interrupted", "figures"]
    error = found[1].cell.error if found[1].cell is not None else None
    assert error is not None
    assert error.message == "the board's agent was restarted while this was measured"


def test_one_at_a_time_until_it_is_cancelled_and_an_end_does_not_wait(home: Home, listener: brokers.Listener) -> None:
    homes_made.install(home)
    long = BenchmarkRequest(request="long", method=replace(QUICK, min_seconds=600.0, max_seconds=600.0))
    with homes_made.running(home) as agent:
        brokers.until(agent.serves, "the worker to run")
        ask(listener, long)
        (refused,) = answers(listener, BenchmarkRequest(request="second"))
        assert refused.error == "benchmark 'long' is running on this board; try again when it is done"

        assert kinds(answers(listener, replace(long, cancel=True))) == ["interrupted"]
        ask(listener, replace(long, request="longer"))
        brokers.until(lambda: '"longer"' in home.benchmark.read_text(), "the next one")
        assert agent.terminate() == 0


def test_a_model_that_answers_nan_is_wrong_and_no_figure_is_given(
    tmp_path: Path, home: Home, listener: brokers.Listener
) -> None:
    serving = homes_made.install(home)
    made = float_bundle.write(tmp_path / "made", model=float_bundle.poisoned())
    broken = digest.of_bytes((made / MANIFEST).read_bytes())
    (made / SIGNATURE).write_bytes(b"nobody looks at it any more once a bundle is admitted")
    made.rename(home.bundle(broken))
    with homes_made.running(home) as agent:
        brokers.until(agent.serves, "the worker to run")
        found = answers(listener, BenchmarkRequest(request="r", bundle=broken, method=QUICK))

        state = agent.state()
        assert state.serving is not None
        assert state.serving.digest == serving
    assert kinds(found) == ["wrong"]
    error = found[0].cell.error if found[0].cell is not None else None
    assert error is not None
    assert "NaN" in error.message
