"""A model that never answers and a delegate that never loads, on a real agent: ended, and the next one goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import brokers, models_made
from tests.device import delegates_made, homes_made
from tests.device.children import RUNTIMES
from tflotilla.device import control
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import DelegateConfig, InferenceConfig
from tflotilla.shared.contract.benchmark import BenchmarkCell, BenchmarkRequest, Configuration, Method

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.device.home import Home

QUICK = Method(warmup_runs=1, min_runs=11, min_seconds=0.0, max_seconds=0.5)


def measured(home: Home, request: BenchmarkRequest) -> list[BenchmarkCell]:
    replies = control.ask(home, control.ControlRequest(verb="benchmark", benchmark=request))
    reports = [reply.benchmark for reply in replies if reply.benchmark is not None]
    return [report.cell for report in reports if report.cell is not None]


def test_what_hangs_is_ended_and_the_others_go_on(tmp_path: Path) -> None:
    library = delegates_made.build(tmp_path, "hangs")
    home = homes_made.make(tmp_path / "home", homes_made.config(1))
    homes_made.install(home)
    hanging = homes_made.install(home, model=models_made.read("hangs"), version="2.0.0", serving=False)
    plain = codec.decode(InferenceConfig, {"runtime": RUNTIMES[-1]}, "test")
    delegated = InferenceConfig(runtime=plain.runtime, delegate=DelegateConfig(library=str(library)))
    wanted = (Configuration(inference=delegated), Configuration(inference=plain))
    with homes_made.running(home) as agent:
        brokers.until(agent.serves, "the worker to run")
        (worker,) = homes_made.worker_pids(agent)
        first = measured(home, BenchmarkRequest(request="d", configurations=wanted, method=QUICK))
        second = measured(home, BenchmarkRequest(request="m", configurations=wanted[1:], bundle=hanging, method=QUICK))

        assert homes_made.worker_pids(agent) == [worker]

    kinds = [cell.error.kind if cell.error is not None else "figures" for cell in (*first, *second)]
    assert kinds == ["delegate", "figures", "hung"]
    error = second[0].error
    assert error is not None
    assert "while running the golden vectors; it was ended" in error.message
