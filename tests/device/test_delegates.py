"""External delegates, real ones, compiled here: one that works and every way they fail, on each runtime."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.device import delegates_made, running_bundles
from tests.device.children import RUNTIMES, RunningWorker, ask
from tflotilla.device import reports
from tflotilla.device.bundle_folder import BundleFolder
from tflotilla.device.delegates import external
from tflotilla.device.reports import ProbeReport, ProbeSpec
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig, ReportingConfig, SourceConfig

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.shared.contract.messages import DelegateReport

#: Why each of them is not used. The time one takes to hang is the test's own.
_REASONS: dict[delegates_made.Kind, str] = {
    "idle": "takes no node of this model",
    "zeros": "computes something else than the CPU: output 'scores' differs by",
    "refuses": "no accelerator found",
    "crashes": "the delegate crashed (SIGSEGV)",
    "crashes_later": "the delegate crashed (SIGSEGV)",
    "exits": "the delegate ended its process with code 3",
    "stranger": "is not an external TFLite delegate",
}


def _inference(runtime: str, library: str, **options: str) -> InferenceConfig:
    document = {"runtime": runtime, "delegate": {"library": library, "options": options}}
    return codec.decode(InferenceConfig, document, "test")


def _settle(tmp_path: Path, runtime: str, library: Path | str, **options: str) -> DelegateReport:
    bundle = BundleFolder.open(running_bundles.write(tmp_path / "b"))
    return external.settle(bundle, _inference(runtime, str(library), **options))


@pytest.mark.parametrize("runtime", RUNTIMES)
class TestOnEachRuntime:
    def test_a_delegate_that_works_is_active(self, tmp_path: Path, runtime: str) -> None:
        library = delegates_made.build(tmp_path, "works")

        report = _settle(tmp_path, runtime, library, device="0")

        assert report.active == report.requested == str(library)
        assert report.reason is None

    @pytest.mark.parametrize("kind", _REASONS)
    def test_one_that_does_not_is_left_out_with_the_reason(
        self, tmp_path: Path, runtime: str, kind: delegates_made.Kind
    ) -> None:
        library = delegates_made.build(tmp_path, kind)

        report = _settle(tmp_path, runtime, library)

        assert report.active is None
        assert report.requested == str(library)
        assert report.reason is not None
        assert _REASONS[kind] in report.reason
        assert "\n" not in report.reason

    def test_one_that_is_not_there_is_left_out(self, tmp_path: Path, runtime: str) -> None:
        report = _settle(tmp_path, runtime, tmp_path / "no such library.so")

        assert report.active is None
        assert report.reason is not None
        assert "no such library.so can't be loaded" in report.reason

    def test_an_option_it_does_not_know_is_its_own_refusal(self, tmp_path: Path, runtime: str) -> None:
        report = _settle(tmp_path, runtime, delegates_made.build(tmp_path, "works"), colour="blue")

        assert report.active is None
        assert report.reason is not None
        assert "unknown option" in report.reason

    def test_the_probe_passes_with_a_delegate_that_works(self, tmp_path: Path, runtime: str) -> None:
        """Though it talks on stdout, where the report belongs."""
        library = str(delegates_made.build(tmp_path, "works"))
        bundle = running_bundles.write(tmp_path / "b")

        done = ask("probe", ProbeSpec(bundle=str(bundle), inference=_inference(runtime, library)))

        report = codec.decode(ProbeReport, codec.parse_json(done.stdout, "probe"), "probe")
        assert report.ok, report.reason
        assert report.delegate.active == library
        assert b"talks on stdout" in done.stderr

    def test_the_worker_serves_on_the_cpu_when_the_delegate_crashes(self, tmp_path: Path, runtime: str) -> None:
        library = str(delegates_made.build(tmp_path, "crashes"))
        spec = reports.WorkerSpec(
            bundle=str(running_bundles.write(tmp_path / "b")),
            inference=_inference(runtime, library),
            source=SourceConfig(interval_ms=1),
            reporting=ReportingConfig(window_s=0.1),
        )

        with RunningWorker(spec) as worker:
            ready = worker.next(reports.READY).decode(reports.Ready)
            worker.next(reports.PREDICTIONS)

        assert ready.delegate.requested == library
        assert ready.delegate.active is None
        assert ready.delegate.reason == "the delegate crashed (SIGSEGV)"


def test_one_that_hangs_is_given_up(tmp_path: Path) -> None:
    bundle = BundleFolder.open(running_bundles.write(tmp_path / "b"))
    library = str(delegates_made.build(tmp_path, "hangs"))
    begin = time.monotonic()

    report = external.settle(bundle, _inference(RUNTIMES[0], library), timeout_s=3)

    assert report.active is None
    assert report.reason == "the delegate hung: no answer within 3 s"
    assert time.monotonic() - begin < 30


def test_no_delegate_costs_nothing(tmp_path: Path) -> None:
    bundle = BundleFolder.open(running_bundles.write(tmp_path / "b"))

    report = external.settle(bundle, codec.decode(InferenceConfig, {"runtime": RUNTIMES[0]}, "test"))

    assert (report.requested, report.active, report.reason) == (None, None, None)
