"""The probe: a candidate's first load, in a process that may die of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests import models_made
from tests.device import running_bundles
from tests.device.children import RUNTIMES, ask
from tflotilla.device import probe
from tflotilla.device.probe import Figures, health_objection
from tflotilla.device.reports import ProbeReport, ProbeSpec
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.manifest import GoldenPolicy, HealthPolicy

if TYPE_CHECKING:
    from pathlib import Path

RUNTIME = RUNTIMES[-1]


def _spec(bundle: Path, runtime: str = RUNTIME) -> ProbeSpec:
    return ProbeSpec(bundle=str(bundle), inference=codec.decode(InferenceConfig, {"runtime": runtime}, "test"))


def _ask(bundle: Path, runtime: str = RUNTIME) -> ProbeReport:
    done = ask("probe", _spec(bundle, runtime))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == 1
    return codec.decode(ProbeReport, codec.parse_json(done.stdout, "probe"), "probe")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_good_candidate_passes_with_figures(tmp_path: Path, runtime: str) -> None:
    report = _ask(running_bundles.write(tmp_path / "b"), runtime)

    assert report.ok, report.reason
    assert report.reason is None
    assert report.runtime.name == runtime
    assert report.worst_lsb is not None
    assert 0 <= report.worst_lsb <= 2
    assert 0 < report.p50_ns <= report.p99_ns
    assert report.load_ns > 0
    assert 5 << 20 < report.peak_rss_bytes < 500 << 20


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_that_computes_something_else_is_refused(tmp_path: Path, runtime: str) -> None:
    bundle = running_bundles.write(tmp_path / "b", model=models_made.read("tiny_classifier_shifted"))

    report = _ask(bundle, runtime)

    assert not report.ok
    assert report.reason is not None
    assert "golden vector 0" in report.reason
    assert "LSB" in report.reason
    assert report.worst_lsb == 255


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("model", "words"), [("op_version_too_high", "FULLY_CONNECTED"), ("custom_op", "TflotillaUnknown")]
)
def test_a_model_the_runtime_refuses_is_named_with_its_op(tmp_path: Path, runtime: str, model: str, words: str) -> None:
    report = _ask(running_bundles.write(tmp_path / "b", model=models_made.read(model)), runtime)

    assert not report.ok
    assert report.reason is not None
    assert words in report.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"inputs": (replace(running_bundles.IMAGE, shape=(1, 9, 9, 1)),)},
            "input 0 (image) has shape [1, 8, 8, 1], the manifest says [1, 9, 9, 1]",
        ),
        ({"inputs": (replace(running_bundles.IMAGE, dtype="int8"),)}, "is uint8, the manifest says int8"),
        ({"inputs": (running_bundles.IMAGE, running_bundles.IMAGE)}, "has 1 inputs, the manifest says 2"),
        (
            {"outputs": (replace(running_bundles.SCORES, quantization=running_bundles.IMAGE.quantization),)},
            "output 0 (scores) is quantized otherwise",
        ),
        ({"goldens": GoldenPolicy(count=9, runtime="x")}, "there are 4 golden vectors, the manifest says 9"),
    ],
    ids=["shape", "dtype", "count", "quantization", "goldens"],
)
def test_a_manifest_that_is_not_the_models_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    report = probe.probe(_spec(running_bundles.write(tmp_path / "b", changes=changes)))

    assert not report.ok
    assert report.reason is not None
    assert words in report.reason


@pytest.mark.parametrize(
    ("health", "words"),
    [
        (HealthPolicy(max_p99_ms=1e-6), "the bundle's limit of p99 is 1e-06 ms"),
        (HealthPolicy(max_rss_mib=1), "the bundle's limit is 1 MiB"),
    ],
    ids=["latency", "memory"],
)
def test_a_limit_of_the_bundle_is_named_with_the_figure(tmp_path: Path, health: HealthPolicy, words: str) -> None:
    report = probe.probe(_spec(running_bundles.write(tmp_path / "b", health=health)))

    assert not report.ok
    assert report.reason is not None
    assert words in report.reason
    assert report.p50_ns > 0


def test_a_shape_that_the_manifest_leaves_out_is_the_runtimes_to_say(tmp_path: Path) -> None:
    """A detector's file doesn't say the shapes of its outputs."""
    changes = {"outputs": (replace(running_bundles.SCORES, shape=()),)}
    report = probe.probe(_spec(running_bundles.write(tmp_path / "b", changes=changes)))

    assert report.ok, report.reason


def test_golden_vectors_that_are_none_are_refused(tmp_path: Path) -> None:
    report = probe.probe(_spec(running_bundles.write(tmp_path / "b", vectors=b"not a zip file")))

    assert not report.ok
    assert report.reason is not None
    assert "goldens.npz" in report.reason


def test_a_bundle_without_golden_vectors_proves_nothing(tmp_path: Path) -> None:
    report = probe.probe(_spec(running_bundles.write(tmp_path / "b", vector_count=0)))

    assert not report.ok
    assert report.reason is not None
    assert "0 golden vectors" in report.reason


def test_a_runtime_that_is_broken_is_said(tmp_path: Path) -> None:
    """A wheel for another machine stands where the runtime should be."""
    blocked = tmp_path / "blocked" / "ai_edge_litert"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('built for another machine')")
    code = (
        f"import sys; sys.path.insert(0, {str(blocked.parent)!r}); from tflotilla.device import probe;"
        "sys.exit(probe.main())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        input=codec.canonical_json(_spec(running_bundles.write(tmp_path / "b"), "ai-edge-litert")),
        capture_output=True,
        check=True,
    )

    report = codec.decode(ProbeReport, codec.parse_json(done.stdout, "probe"), "probe")
    assert not report.ok
    assert report.reason is not None
    assert "ai-edge-litert is installed but can't be imported: built for another machine" in report.reason


def test_deciding_for_auto_is_not_a_childs_business(tmp_path: Path) -> None:
    report = probe.probe(_spec(running_bundles.write(tmp_path / "b"), "auto"))

    assert not report.ok
    assert report.reason is not None
    assert "must be decided before" in report.reason


@pytest.mark.parametrize(
    ("runs", "refused_for"), [(662, "p99 latency is 9.000 ms"), (661, None), (64, None), (63, None)]
)
def test_a_tail_is_held_against_its_limit_only_with_runs_enough(runs: int, refused_for: str | None) -> None:
    figures = Figures(runs=runs, p50_ns=1_000_000, p90_ns=2_000_000, p99_ns=9_000_000, peak_rss_bytes=1)

    objection = health_objection(figures, HealthPolicy(max_p99_ms=5.0))

    assert (objection is None) == (refused_for is None)
    assert (refused_for or "") in (objection or "")


def test_a_median_over_the_limit_needs_no_more_runs() -> None:
    figures = Figures(runs=5, p50_ns=6_000_000, p90_ns=7_000_000, p99_ns=8_000_000, peak_rss_bytes=1)

    assert "p50 latency is 6.000 ms" in (health_objection(figures, HealthPolicy(max_p99_ms=5.0)) or "")
