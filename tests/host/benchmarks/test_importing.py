"""Other benchmarks' output becomes a result, with what they said and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests import benchmark_model_made as made
from tflotilla.host.benchmarks import importing
from tflotilla.host.benchmarks.results import from_json, to_json
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.benchmarks.foreign import ForeignFigures

_LITERT: dict[str, Any] = {
    "model": "/home/pi/models/mobilenet v2.tflite",
    "model_size_mb": 3.44,
    "accelerators": ["CPU"],
    "signature": "serving_default",
    "fully_accelerated": False,
    "num_threads": 2,
    "latency": {
        "init_ms": 10.3,
        "warmup_first_ms": 5.68,
        "warmup_avg_ms": 5.3,
        "num_warmup_runs": 5,
        "avg_ms": 5.6,
        "min_ms": 5.05,
        "max_ms": 6.29,
        "median_ms": 5.66,
        "std_ms": 0.33,
        "p5_ms": 5.11,
        "p95_ms": 6.05,
        "num_runs": 30,
    },
    "throughput_mb_s": 25.63,
}
_LITERT_LOG = """2026-05-22 02:15:13 INFO benchmark_litert_model: Model:           /home/pi/models/mobilenet v2.tflite
2026-05-22 02:15:13 INFO benchmark_litert_model: Model size:      3.44 MB
2026-05-22 02:15:13 INFO benchmark_litert_model: Accelerators:    CPU
2026-05-22 02:15:13 INFO benchmark_litert_model: Num threads:     2
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
2026-05-22 02:15:13 INFO benchmark_litert_model: Model loaded (10.3 ms)
2026-05-22 02:15:13 DEBUG benchmark_litert_model:   Warmup 1/5: 5.68 ms
"""
_LITERT_STDOUT = """
========================================
 BENCHMARK RESULTS
========================================
Model initialization:  10.30 ms
Warmup (first):        5.68 ms
Warmup (avg):          5.30 ms (5 runs)
Inference (avg):       5.60 ms (30 runs)
Inference (min):       5.05 ms
Inference (max):       6.29 ms
Inference (median):    5.66 ms
Inference (std):       0.33 ms
Inference (p5):        5.11 ms
Inference (p95):       6.05 ms
Throughput:            25.63 MB/s
Fully accelerated:     False
========================================
"""
_OPTIONS = """STARTING!
Graph: [/data/mobilenet.tflite]
count=50 first=34893 curr=33267 min=30791 max=37476 avg=33904.9 std=1780

==============Summary of All Runs w/ Different Performance Options==============
INFO:           cpu w/ 4 threads: count=50 first=34893 curr=33267 min=30791 max=37476 avg=33904.9 std=1780
INFO: cpu w/ 2 threads (xnnpack): count=50 first=48408 curr=37070 min=35896 max=110280 avg=41921.3 std=14156
INFO:                gpu-default: count=50 first=59303 curr=58209 min=56596 max=59303 avg=57705.5 std=705
INFO:                  gpu-fp16: FAILED!
"""


def _one(text: str) -> ForeignFigures:
    (figures,), problems = importing.parse(text, "here")
    assert problems == ()
    return figures


@pytest.mark.parametrize("text", [made.INFO, made.LOGGED, made.LOGCAT, made.XNNPACK, made.CSV])
def test_benchmark_models_figures_are_those_that_it_printed(text: str) -> None:
    figures = _one(text)

    assert (figures.tool, figures.model, figures.num_threads) == ("benchmark_model", "/models/my net.tflite", 4)
    assert (figures.warmup_runs, figures.runs, figures.resolution_ns) == (190, 399, 1000)
    assert (figures.init_ns, figures.first_inference_ns) == (18_777_000, 6_479_000)
    assert figures.mean_ns == pytest.approx(2_504_320)
    assert figures.std_ns == 16_000
    assert (figures.min_ns, figures.max_ns) == (2_453_000, 2_657_000)
    assert (figures.p5_ns, figures.median_ns, figures.p95_ns) == (2_470_000, 2_501_000, 2_590_000)
    assert figures.memory_growth_bytes == int(10.5898 * 1024 * 1024)


def test_what_an_old_benchmark_model_did_not_say_stays_absent() -> None:
    figures = _one(made.OLDEST)

    assert (figures.mean_ns, figures.runs) == (79_732_000, 50)
    for name in ("median_ns", "p5_ns", "num_threads", "first_inference_ns", "xnnpack", "profile", "accelerator"):
        assert getattr(figures, name) is None
    assert figures.memory_growth_bytes is None


def test_the_profile_comes_along() -> None:
    for text, xnnpack in ((made.INFO, False), (made.XNNPACK, True)):
        profile = _one(text).profile
        assert profile is not None

        assert (profile.method, profile.xnnpack) == ("benchmark_model", xnnpack)
        assert profile.whole_ms == pytest.approx(2.50432)
        assert profile.operators[-1].node_type == "SOFTMAX"


def test_what_xnnpack_does_is_not_counted_twice() -> None:
    profile = _one(made.XNNPACK).profile

    assert profile is not None
    assert "TfLiteXNNPackDelegate" not in [row.node_type for row in profile.operators]


def test_litert_s_own_benchmark_model_is_not_taken_for_litert_benchmark() -> None:
    figures, rounded = _one(made.LITERT), _one(made.LITERT_RESULTS)

    assert (figures.tool, figures.model, figures.num_threads) == ("benchmark_model", "/models/my net.tflite", 4)
    assert (figures.mean_ns, figures.median_ns, figures.runs) == (2_504_320, 2_501_000, 399)
    assert figures.xnnpack
    assert (rounded.tool, rounded.mean_ns, rounded.median_ns) == ("benchmark_model", 2_500_000, None)
    assert (figures.resolution_ns, rounded.resolution_ns) == (1000, 10_000)


@pytest.mark.parametrize("text", [made.LITERT, made.LITERT[made.LITERT.index("INFO: Created") :], made.LITERT_RESULTS])
def test_several_of_its_runs_in_one_file_stay_apart(text: str) -> None:
    slower = text.replace("2.50 ms", "5.00 ms").replace("avg=2504.32", "avg=5000.00")

    figures, problems = importing.parse(text + slower, "here")

    assert [round((each.mean_ns or 0) / 1e6, 1) for each in figures] == [2.5, 5.0]
    assert problems == ()


def test_a_profile_alone_says_that_its_whole_is_a_sum() -> None:
    text = made.CSV[made.CSV.index("Operator-wise") :]
    figures = _one(text)

    assert figures.mean_ns is None
    assert figures.profile is not None
    assert figures.profile.whole_ms == pytest.approx(2.5)
    assert "sum" in figures.profile.note


@pytest.mark.parametrize(
    ("line", "xnnpack", "accelerator"),
    [
        ("Use xnnpack: [0]", False, None),
        ("Use xnnpack: [1]", True, None),
        ("Use gpu: [1]", None, "gpu"),
        ("Use gpu: [0]", None, None),
        ("External delegate path: [/usr/lib/libvx_delegate.so]", None, "libvx_delegate.so"),
    ],
)
def test_what_it_ran_with_is_what_its_options_say(line: str, xnnpack: bool | None, accelerator: str | None) -> None:  # noqa: FBT001 - as printed
    figures = _one(made.WITH_START.replace("Num threads: [4]", f"Num threads: [4]\n{line}"))

    assert (figures.xnnpack, figures.accelerator) == (xnnpack, accelerator)


def test_several_runs_in_one_file_are_several_figures() -> None:
    text = made.INFO + made.INFO.replace("Num threads: [4]", "Num threads: [1]").replace("avg=2504.32", "avg=9000")
    figures, problems = importing.parse(text, "here")

    assert [(4, 2_504_320), (1, 9_000_000)] == [(each.num_threads, round(each.mean_ns or 0)) for each in figures]
    assert problems == ()


def test_a_run_that_failed_is_told_and_the_others_are_kept() -> None:
    failed = "STARTING!\nGraph: [broken.tflite]\nERROR: Failed to load model broken.tflite\n"
    figures, problems = importing.parse(made.WITH_START + failed, "here")

    assert len(figures) == 1
    assert len(problems) == 1
    assert problems[0].startswith("run 2 of 2 has no figures")


def test_the_summary_of_performance_options_has_a_row_for_each() -> None:
    figures, _ = importing.parse(_OPTIONS, "here")

    assert [(4, False, None), (2, True, None), (None, None, "gpu-default")] == [
        (each.num_threads, each.xnnpack, each.accelerator) for each in figures
    ]
    assert [33_904_900, 41_921_300, 57_705_500] == [round(each.mean_ns or 0) for each in figures]
    assert {each.model for each in figures} == {"/data/mobilenet.tflite"}
    assert figures[0].options["Options that failed"] == "gpu-fp16"


def test_litert_benchmarks_json_and_its_words_say_the_same() -> None:
    written = _one(json.dumps(_LITERT))
    printed = _one(_LITERT_LOG + _LITERT_STDOUT)

    assert written == printed
    assert (written.tool, written.num_threads, written.accelerator, written.runs) == ("litert-benchmark", 2, "CPU", 30)
    assert (written.median_ns, written.mean_ns, written.p95_ns) == (5_660_000, 5_600_000, 6_050_000)
    assert (written.init_ns, written.first_inference_ns) == (10_300_000, 5_680_000)
    assert written.resolution_ns == 10_000


def test_what_litert_benchmark_prints_alone_names_no_model_and_no_threads() -> None:
    figures = _one(_LITERT_STDOUT)

    assert (figures.model, figures.num_threads, figures.accelerator) == ("", None, None)
    assert figures.median_ns == 5_660_000


def test_zeros_that_stand_for_nothing_are_absent() -> None:
    latency = _LITERT["latency"] | {
        "num_warmup_runs": 0,
        "warmup_first_ms": 0,
        "warmup_avg_ms": 0,
        "num_runs": 1,
        "std_ms": 0,
    }
    figures = _one(json.dumps(_LITERT | {"latency": latency}))

    assert (figures.first_inference_ns, figures.warmup_mean_ns, figures.std_ns) == (None, None, None)


def test_a_list_of_litert_results_and_a_log_of_several_are_several_figures() -> None:
    second = _LITERT | {"num_threads": 4}
    figures, _ = importing.parse(json.dumps([_LITERT, second]), "here")
    logged, _ = importing.parse((_LITERT_LOG + _LITERT_STDOUT) * 2, "here")

    assert [each.num_threads for each in figures] == [2, 4]
    assert len(logged) == 2


def test_a_litert_run_that_broke_off_is_told() -> None:
    figures, problems = importing.parse(_LITERT_LOG + _LITERT_STDOUT + _LITERT_LOG + "RuntimeError: failed", "here")

    assert len(figures) == 1
    assert problems == ("run 2 of 2 has no figures: it broke off before its results",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing that benchmark_model"),
        ("hello", "nothing that benchmark_model"),
        ("STARTING!\nERROR: no model\n", "their run failed"),
        ("{", "not valid JSON"),
        ("{}", "has no 'latency'"),
        ("[]", "has no 'latency'"),
        ("[1, 2]", "has no 'latency'"),
        ('{"boards": [], "id": "x"}', "needs no import"),
        ('{"latency": {}}', "neither avg_ms nor median_ms"),
        ('{"latency": {"avg_ms": "fast"}}', "not a number"),
        ('{"latency": {"avg_ms": true}}', "not a number"),
        ('{"latency": {"avg_ms": -1}}', "no figure of a benchmark"),
        ('{"latency": {"avg_ms": 1e300}}', "no figure of a benchmark"),
        ('{"latency": {"avg_ms": 1, "num_runs": 1.5}}', "not a whole number"),
        ('{"latency": {"avg_ms": 1, "num_runs": ' + 400 * "9" + "}}", "no figure of a benchmark"),
        ('{"latency": {"avg_ms": 1}, "num_threads": 1e400}', "no figure of a benchmark"),
        ("count=5 first=1 avg=1e999 std=1\nInference timings in us: Inference (avg): 7\n", "no figure of a benchmark"),
        ("count=5 first=-1 avg=-9 std=1\nInference timings in us: Inference (avg): 7\n", "no figure of a benchmark"),
        (_LITERT_STDOUT.replace("5.60", "5.6.0"), "not a number"),
    ],
)
def test_what_is_no_benchmarks_output_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        importing.parse(text, "results.log")

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_garbage_in_a_real_output_is_refused_or_read_and_never_a_crash() -> None:
    rng = random.Random(11)  # noqa: S311 - a test wants the same garbage each time
    for _ in range(400):
        text = list(rng.choice([made.INFO, made.CSV, _OPTIONS, _LITERT_LOG + _LITERT_STDOUT, json.dumps(_LITERT)]))
        for _ in range(rng.randint(1, 30)):
            text[rng.randrange(len(text))] = rng.choice(["\n", "=", "9", "-", "e", ".", ":", "[", "\x00", "猫", ""])
        try:
            figures, _problems = importing.parse("".join(text), "here")
        except InputError:
            continue
        assert figures


@pytest.mark.parametrize(
    "text",
    [made.INFO, made.LITERT, made.LITERT_RESULTS, made.XNNPACK, made.CSV, _OPTIONS, _LITERT_LOG + _LITERT_STDOUT],
)
def test_a_number_of_thousands_of_digits_is_refused_or_skipped_and_never_a_crash(text: str) -> None:
    for found in re.finditer(r"\d+", text):
        with contextlib.suppress(InputError):
            importing.parse(text[: found.start()] + 5000 * "9" + text[found.end() :], "here")


def test_a_file_becomes_the_same_result_each_time(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_text(made.INFO)
    first, second = importing.read(path, name="by hand").run, importing.read(path, name="by hand").run

    assert first == second == from_json(to_json(first), "here")
    assert (first.tool, first.name, first.boards) == ("benchmark_model", "by hand", ())
    assert first.created == path.stat().st_mtime
    assert first.foreign[0].model == "my net.tflite"
    assert importing.read(path).run.id != first.id


def test_a_model_that_is_not_named_is_called_as_the_user_says_or_as_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pi-4.log"
    path.write_text(_LITERT_STDOUT)

    assert importing.read(path).run.foreign[0].model == "pi-4"
    assert importing.read(path, model="birds.tflite").run.foreign[0].model == "birds.tflite"


def test_what_windows_shells_write_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    for encoding in ("utf-16", "utf-8-sig"):
        path.write_bytes(made.INFO.replace("\n", "\r\n").encode(encoding))

        assert importing.read(path).run.foreign[0].runs == 399


def test_files_that_can_not_be_read_are_said(tmp_path: Path) -> None:
    binary = tmp_path / "model.tflite"
    binary.write_bytes(b"\x1c\x00\x00\x00TFL3" * 50)
    huge = tmp_path / "huge.log"
    huge.touch()
    os.truncate(huge, 1 << 30)
    for path, said in (
        (binary, "not text"),
        (tmp_path, "can't be read"),
        (tmp_path / "none.log", "can't be read"),
        (huge, "too large"),
    ):
        with pytest.raises(InputError, match=said):
            importing.read(path)
