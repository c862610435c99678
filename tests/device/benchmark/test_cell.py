"""One cell, measured for real in a process of its own: its figures, and every failure that the process survives."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import models_made
from tests.device import delegates_made, running_bundles
from tests.device.benchmark import cells, float_bundle
from tests.device.benchmark.cells import QUICK
from tests.device.children import RUNTIMES
from tflotilla.shared.contract.benchmark import Method
from tflotilla.shared.contract.processing import Postprocessing
from tflotilla.shared.inference import sample_set
from tflotilla.shared.inference.sample_set import SampleSet

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.shared.contract.benchmark import Failure, Inputs, Scenario

_SENT = "0" * 64


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return running_bundles.write(tmp_path / "bundle")


def _png(label: int) -> bytes:
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(models_made.pattern(label)).save(target, "PNG")
    return target.getvalue()


def _send(tmp_path: Path, samples: SampleSet) -> Path:
    file = tmp_path / "samples.zip"
    file.write_bytes(sample_set.save(samples))
    return file


def _error(answer: cells.Answer) -> tuple[Failure, str]:
    assert answer.code == 0, answer.log
    assert answer.cell.error is not None
    assert "\n" not in answer.cell.error.message
    return answer.cell.error.kind, answer.cell.error.message


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_cell_has_figures_and_what_they_are_worth(bundle: Path, runtime: str) -> None:
    answer = cells.ask(cells.spec(bundle, runtime=runtime))

    assert answer.code == 0
    cell, measured = answer.cell, answer.measured
    assert cell.error is None
    assert cell.runtime is not None
    assert cell.runtime.name == runtime
    assert cell.configuration.inference.runtime == runtime
    assert (cell.nodes_total, cell.nodes_delegated in {0, 1}) == (4, True)
    assert measured.runs == measured.latency.count == measured.invoke.count == len(measured.latencies_ns) == 70
    assert measured.thinning == 1
    assert 0 < measured.invoke.median_ns < measured.latency.median_ns
    load = measured.load
    assert min(load.import_ns, load.load_ns, load.allocate_ns, load.first_inference_ns) > 0
    assert load.delegate_ns is None
    assert measured.peak_rss_bytes > 5 << 20
    assert measured.samples_per_second > 0
    assert measured.correctness.goldens == measured.correctness.goldens_total == 4
    assert measured.harness.share == pytest.approx(
        (measured.harness.loop_ns + measured.harness.clock_ns) / measured.invoke.median_ns
    )
    assert measured.conditions.before.at_s < 0 < measured.conditions.after.at_s
    assert [phase.doing for phase in answer.phases][-2:] == ["timing", "computing the figures"]


@pytest.mark.parametrize(
    ("scenario", "batch", "invokes", "percent"),
    [("multi_stream", 1, 8, 99), ("multi_stream", 4, 2, 99), ("multi_stream", 3, 3, 99), ("offline", 4, 1, 50)],
)
def test_a_query_of_a_scenario_is_timed_as_one(
    tmp_path: Path, scenario: Scenario, batch: int, invokes: int, percent: int
) -> None:
    bundle = float_bundle.write(tmp_path / "b")
    method = replace(QUICK, scenario=scenario, samples_per_query=8)

    measured = cells.ask(cells.spec(bundle, method=method, batch=batch)).measured

    assert measured.runs == measured.latency.count == 70
    assert measured.invoke.count == 70 * invokes
    assert measured.latency.median_ns > invokes * measured.invoke.min_ns
    short = [reason for reason in measured.verdict.reasons if "too few runs" in reason]
    assert [f"p{percent}" in reason for reason in short] == ([True] if percent == 99 else [])


def test_the_server_scenario_says_what_it_tried_and_found(bundle: Path) -> None:
    method = Method(scenario="server", latency_bound_ms=500, min_runs=662, min_seconds=0, max_seconds=0.6, seed=3)

    measured = cells.ask(cells.spec(bundle, method=method)).measured

    kept = [trial.qps for trial in measured.trials if trial.kept]
    assert kept
    assert measured.qps == max(kept)
    chosen = next(trial for trial in measured.trials if trial.qps == measured.qps)
    assert chosen.latency == measured.latency
    assert measured.runs == measured.latency.count >= 662


def test_a_server_at_a_given_rate_is_not_searched(bundle: Path) -> None:
    method = Method(scenario="server", qps=500, min_runs=70, min_seconds=0, max_seconds=20)

    measured = cells.ask(cells.spec(bundle, method=method)).measured

    assert [(trial.qps, trial.latency.count) for trial in measured.trials] == [(500, 70)]
    assert measured.qps == 500


def test_a_rate_is_kept_and_its_pauses_are_no_latency(bundle: Path) -> None:
    measured = cells.ask(cells.spec(bundle, method=replace(QUICK, min_runs=50, rate_hz=200))).measured

    assert measured.seconds >= 49 / 200
    assert measured.latency.median_ns < 5_000_000


def test_a_long_warm_up_is_not_taken_for_a_model_that_hangs(bundle: Path) -> None:
    answer = cells.ask(cells.spec(bundle, method=replace(QUICK, warmup_seconds=0.25)))

    at_most_s = {phase.doing: phase.at_most_s for phase in answer.phases}
    assert at_most_s["warming up"] == at_most_s["running the golden vectors"] + 0.25


@pytest.mark.parametrize("inputs", ["goldens", "random"])
def test_a_batch_reproduces_the_goldens_in_every_place(tmp_path: Path, inputs: Inputs) -> None:
    bundle = float_bundle.write(tmp_path / "b", model=models_made.read("tiny_classifier_float_dynamic"))
    method = replace(QUICK, inputs=inputs)

    for runtime in RUNTIMES:
        measured = cells.ask(cells.spec(bundle, method=method, batch=4, runtime=runtime)).measured

        assert (measured.correctness.goldens, measured.correctness.goldens_total) == (4, 4)
        assert measured.samples_per_second == pytest.approx(4e9 / measured.latency.mean_ns, rel=0.01)


def test_labelled_images_are_counted_and_every_stage_is_timed(tmp_path: Path, bundle: Path) -> None:
    images = tuple(_png(label) for label in range(10))
    samples = _send(tmp_path, SampleSet(images=images, labels=(*range(9), 0)))
    method = replace(QUICK, inputs="samples", samples=_SENT, stages=True, sustained_seconds=1)

    measured = cells.ask(cells.spec(bundle, method=method, samples=samples)).measured

    assert (measured.correctness.right, measured.correctness.labelled) == (9, 10)
    stages = [figures.stage for figures in measured.stages]
    assert stages == ["decode", "resize", "quantize", "invoke", "dequantize", "postprocess", "publish", "end_to_end"]
    *parts, whole = [figures.latency for figures in measured.stages]
    assert sum(part.mean_ns for part in parts) == pytest.approx(whole.mean_ns, rel=1e-6)
    assert {part.count for part in parts} == {whole.count} == {70}
    assert measured.sustained is not None
    assert len(measured.sustained.course) == 10
    assert measured.sustained.seconds >= 1
    assert measured.sustained.cold_p50_ns == measured.invoke.median_ns


def test_tensors_with_labels_are_counted_in_batches_too(tmp_path: Path) -> None:
    bundle = float_bundle.write(tmp_path / "b")
    tensors = tuple((float_bundle.image(label),) for label in range(10))
    samples = _send(tmp_path, SampleSet(tensors=tensors, labels=(1, *range(1, 10))))
    method = replace(QUICK, inputs="samples", samples=_SENT, stages=True)

    measured = cells.ask(cells.spec(bundle, method=method, samples=samples, batch=3)).measured

    assert (measured.correctness.right, measured.correctness.labelled) == (9, 10)
    assert [figures.stage for figures in measured.stages][:2] == ["quantize", "invoke"]


def test_without_samples_the_stages_are_timed_on_made_pictures(bundle: Path) -> None:
    measured = cells.ask(cells.spec(bundle, method=replace(QUICK, stages=True, min_runs=11))).measured

    assert measured.stages[0].stage == "decode"


def test_operators_are_timed_in_a_pass_of_their_own(bundle: Path) -> None:
    answer = cells.ask(cells.spec(bundle, method=replace(QUICK, profile=True)))

    profile = answer.measured.profile
    assert profile is not None, answer.measured.verdict.notes
    assert [operator.node_type for operator in profile.operators] == [
        "QUANTIZE",
        "FULLY_CONNECTED",
        "SOFTMAX",
        "QUANTIZE",
    ]


def test_labels_that_mean_nothing_to_the_bundle_are_a_note_beside_the_figures(tmp_path: Path) -> None:
    bundle = running_bundles.write(tmp_path / "b", changes={"postprocessing": Postprocessing(kind="raw")})
    samples = _send(tmp_path, SampleSet(images=(_png(1),), labels=(1,)))

    measured = cells.ask(cells.spec(bundle, samples=samples)).measured

    assert measured.correctness.right is None
    assert "right answers were not counted: labels are classes, and the bundle's postprocessing is raw" in (
        measured.verdict.notes
    )


def test_operators_that_crash_the_runtime_are_a_note_beside_the_figures(tmp_path: Path, bundle: Path) -> None:
    """The board's own program is asked for first: one that kills whoever asks takes no figure with it."""
    home = tmp_path / "home"
    (home / "bundles").mkdir(parents=True)
    (home / "bin").mkdir()
    program = home / "bin" / "benchmark_model"
    program.write_text("#!/bin/sh\nkill -9 $PPID\n")
    program.chmod(0o755)

    measured = cells.ask(
        cells.spec(bundle.rename(home / "bundles" / "b"), method=replace(QUICK, profile=True))
    ).measured

    assert measured.profile is None
    assert any("the operators were not timed: its process was ended by signal 9" in n for n in measured.verdict.notes)
    assert measured.runs == 70


def test_a_report_holds_no_more_latencies_than_were_asked_for(bundle: Path) -> None:
    method = replace(QUICK, min_runs=100, keep_latencies=30)

    measured = cells.ask(cells.spec(bundle, method=method)).measured

    assert (len(measured.latencies_ns), measured.thinning, measured.runs) == (25, 4, 100)


def test_a_process_stays_on_the_processors_it_was_given(bundle: Path) -> None:
    cpu = max(os.sched_getaffinity(0))

    assert cells.ask(cells.spec(bundle, affinity=[cpu])).measured.runs == 70
    kind, message = _error(cells.ask(cells.spec(bundle, affinity=[1023])))
    assert (kind, "1023" in message) == ("refused", True)


def test_a_model_that_the_runtime_refuses_is_the_cells_error(tmp_path: Path) -> None:
    answer = cells.ask(cells.spec(running_bundles.write(tmp_path / "b", model=models_made.read("custom_op"))))

    kind, message = _error(answer)
    assert (kind, "TflotillaUnknown" in message) == ("model", True)
    assert answer.cell.runtime is not None


def test_a_model_that_computes_something_else_is_wrong_however_fast(tmp_path: Path) -> None:
    bundle = running_bundles.write(tmp_path / "b", model=models_made.read("tiny_classifier_shifted"))

    kind, message = _error(cells.ask(cells.spec(bundle)))

    assert kind == "wrong"
    assert "golden vector 0: output 'scores' differs by 255 LSB" in message


def test_a_model_that_answers_nan_is_wrong(tmp_path: Path) -> None:
    kind, message = _error(cells.ask(cells.spec(float_bundle.write(tmp_path / "b", model=float_bundle.poisoned()))))

    assert (kind, "NaN" in message) == ("wrong", True)


def test_a_model_that_answers_nan_to_what_is_timed_alone_is_wrong_too(tmp_path: Path) -> None:
    tensors = tuple((np.full((1, 8, 8, 1), value, np.float32),) for value in (0.5, np.nan))
    method = replace(QUICK, inputs="samples", samples=_SENT)
    spec = cells.spec(
        float_bundle.write(tmp_path / "b"), method=method, samples=_send(tmp_path, SampleSet(tensors=tensors))
    )

    kind, message = _error(cells.ask(spec))

    assert kind == "wrong"
    assert message == "output 'scores' holds NaN for input 2 of the 2 that are timed"


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("library", "reason"),
    [
        ("idle", "takes no node of this model"),
        ("zeros", "computes something else than the CPU"),
        ("crashes", "crashed (SIGSEGV)"),
        ("missing", "can't be loaded"),
    ],
)
def test_a_delegate_that_is_not_used_fails_the_cell(
    tmp_path: Path, bundle: Path, runtime: str, library: str, reason: str
) -> None:
    """Without it the figures would be those of another configuration."""
    path = tmp_path / "none.so" if library == "missing" else delegates_made.build(tmp_path, library)  # type: ignore[arg-type]
    answer = cells.ask(cells.spec(bundle, runtime=runtime, delegate={"library": str(path)}))

    kind, message = _error(answer)
    assert kind == "delegate"
    assert reason in message
    assert answer.cell.delegate_reason == message
    assert answer.cell.delegate_active is None


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_delegate_that_works_is_named_with_its_nodes_and_its_price(
    tmp_path: Path, bundle: Path, runtime: str
) -> None:
    library = str(delegates_made.build(tmp_path, "works"))

    answer = cells.ask(cells.spec(bundle, runtime=runtime, xnnpack=False, delegate={"library": library}))

    assert answer.measured.load.delegate_ns is not None
    assert answer.cell.delegate_active == library
    assert (answer.cell.nodes_delegated, answer.cell.nodes_total) == (1, 4)
    assert any("delegate" in phase.doing for phase in answer.phases)


def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path, bundle: Path) -> None:
    sampled = replace(QUICK, inputs="samples", samples=_SENT)
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"not a zip")

    for spec, reason in (
        (cells.spec(bundle, method=sampled), "are not on this board"),
        (cells.spec(bundle, method=sampled, samples=garbage), "can't be read as samples"),
        (cells.spec(tmp_path / "gone"), "manifest.json can't be read"),
        (cells.spec(bundle, runtime="auto"), "must be decided"),
    ):
        kind, message = _error(cells.ask(spec))
        assert kind == "refused"
        assert reason in message


def test_a_model_whose_bytes_have_changed_is_not_run(bundle: Path) -> None:
    file = bundle / "model.tflite"
    file.write_bytes(file.read_bytes()[:-1] + b"x")

    kind, message = _error(cells.ask(cells.spec(bundle)))

    assert (kind, "not the file that was signed" in message) == ("model", True)


def test_two_processes_of_one_seed_are_fed_the_same() -> None:
    from tflotilla.device.benchmark import inputs

    goldens = [(float_bundle.image(label),) for label in range(4)]
    method = replace(QUICK, inputs="random", seed=5)

    first, again = (inputs.rotation(method, 2, goldens=goldens) for _ in range(2))
    other = inputs.rotation(replace(method, seed=6), 2, goldens=goldens)

    assert len(first) == method.input_count
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0][0], other[0][0])
    assert first[0][0].shape == (2, 8, 8, 1)
    assert first[0][0].min() >= 0
    assert first[0][0].max() <= 1
