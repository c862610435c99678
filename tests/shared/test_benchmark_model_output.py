"""Every shape in which `benchmark_model` tells its figures is read, and nothing is read into what it did not say."""

from __future__ import annotations

import math
import random

import pytest

from tests import benchmark_model_made as made
from tflotilla.shared.contract.errors import ContractError
from tflotilla.shared.inference import benchmark_model_output
from tflotilla.shared.inference.benchmark_model_output import ProfileRow, RunSummary

_WHOLE = {"info": made.INFO, "logged": made.LOGGED, "with start": made.WITH_START}


@pytest.mark.parametrize(
    "text",
    [*_WHOLE.values(), made.LOGCAT, made.XNNPACK, made.CSV],
    ids=[*_WHOLE, "logcat", "xnnpack", "csv"],
)
def test_timings_are_those_that_were_printed(text: str) -> None:
    output = benchmark_model_output.parse(text)

    assert (18777, 6479, 2775.82, 2504.32) == (
        output.init_us,
        output.first_inference_us,
        output.warmup_avg_us,
        output.inference_avg_us,
    )
    assert output.warmup == RunSummary(
        count=190, first_us=6479, curr_us=2562, min_us=2487, max_us=6583, avg_us=2775.82, std_us=406
    )
    assert output.runs is not None
    assert (399, 2453, 2657, 16) == (
        output.runs.count,
        output.runs.min_us,
        output.runs.max_us,
        output.runs.std_us,
    )
    assert (4, "/models/my net.tflite", 3.67827) == (output.num_threads, output.graph, output.model_size_mb)


@pytest.mark.parametrize("text", _WHOLE.values(), ids=_WHOLE)
def test_the_operators_come_in_running_order_and_once(text: str) -> None:
    output = benchmark_model_output.parse(text)

    assert output.operators[0] == ProfileRow(
        node_type="CONV_2D",
        first_ms=2.113,
        avg_ms=2.0,
        percent=80,
        cumulative_percent=80,
        memory_kb=0,
        times_called=1,
        name="[net/conv/Relu]:0",
    )
    assert [row.node_type for row in output.operators] == ["CONV_2D", "AVERAGE_POOL_2D", "SOFTMAX"]
    assert output.operators[2].name == "[net/a;net/b, out]:2"
    assert [row.node_type for row in output.initialization] == ["AllocateTensors"]


def test_percentiles_and_memory_are_read_where_they_are_printed() -> None:
    modern, old = benchmark_model_output.parse(made.INFO), benchmark_model_output.parse(made.WITH_START)

    assert modern.runs is not None
    assert old.runs is not None
    assert (2470, 2501, 2590) == (modern.runs.p5_us, modern.runs.median_us, modern.runs.p95_us)
    assert (None, None, None) == (old.runs.p5_us, old.runs.median_us, old.runs.p95_us)
    assert (8.45312, 10.5898) == (modern.memory_init_mb, modern.memory_overall_mb)
    assert (8.97656, 18.7227) == (old.memory_init_mb, old.memory_overall_mb)


def test_xnnpacks_own_operators_are_read_with_the_spaces_in_their_types() -> None:
    output = benchmark_model_output.parse(made.XNNPACK)

    assert [row.node_type for row in output.operators] == [
        "Convolution (NHWC, QU8) IGEMM",
        "Average Pooling (NHWC, QU8)",
        "TfLiteXNNPackDelegate",
        "SOFTMAX",
    ]
    assert output.xnnpack
    assert (2, 3) == (output.nodes_delegated, output.nodes_total)


def test_comma_separated_tables_are_read_too() -> None:
    output = benchmark_model_output.parse(made.CSV)

    assert [(row.node_type, row.avg_ms, row.percent) for row in output.operators] == [
        ("Convolution (NHWC, QU8) IGEMM", 2, 80),
        ("SOFTMAX", 0.5, 20),
    ]
    assert output.operators[0].name == "Delegate/Convolution (NHWC, QU8) IGEMM:0"


def test_litert_s_program_of_the_same_name_says_the_same_in_other_words() -> None:
    litert, older = benchmark_model_output.parse(made.LITERT), benchmark_model_output.parse(made.INFO)

    assert (litert.graph, litert.num_threads) == (older.graph, older.num_threads)
    assert (litert.runs, litert.inference_avg_us) == (older.runs, older.inference_avg_us)
    assert (litert.first_inference_us, litert.warmup_avg_us) == (older.first_inference_us, older.warmup_avg_us)
    assert litert.init_us == 18780
    assert (litert.memory_init_mb, litert.memory_overall_mb) == (8.94, 11.51)
    assert litert.xnnpack
    assert [row.times_called for row in litert.operators] == [1, 0, 2, 1]
    assert sum(row.run_ms for row in litert.operators) == pytest.approx(2.5)


def test_litert_s_results_alone_are_as_fine_as_they_are_printed() -> None:
    output = benchmark_model_output.parse(made.LITERT_RESULTS)

    assert output.runs is not None
    assert output.warmup is not None
    assert (output.runs.count, output.runs.avg_us, output.runs.min_us, output.runs.max_us) == (399, 2500, 2450, 2660)
    assert (output.warmup.count, output.first_inference_us) == (190, 6480)
    assert (output.resolution_us, benchmark_model_output.parse(made.LITERT).resolution_us) == (10, 1)


def test_a_single_run_is_read_from_its_short_summary() -> None:
    warmup = "count=190 first=6479 curr=2562 min=2487 max=6583 avg=2775.82 std=406 p5=2490 median=2600 p95=3100"
    regular = "count=399 first=2581 curr=2509 min=2453 max=2657 avg=2504.32 std=16 p5=2470 median=2501 p95=2590"
    single = "count=1 curr=6479 p5=6479 median=6479 p95=6479"

    output = benchmark_model_output.parse(made.LITERT.replace(warmup, single).replace(regular, single))

    assert (output.first_inference_us, output.warmup_avg_us, output.inference_avg_us) == (6479, 6479, 6479)


def test_in_an_android_phones_log_litert_s_lines_are_read_too() -> None:
    phone = made.LITERT_RESULTS.replace("INFO: ", "09-28 06:21:39.234 19410 19410 I litert  : ")

    assert benchmark_model_output.parse(phone).runs == benchmark_model_output.parse(made.LITERT_RESULTS).runs


def test_options_that_it_did_not_know_are_told() -> None:
    text = made.INFO.replace("INFO: Graph", "WARN: Unconsumed cmdline flags: --use_profiler=true\nINFO: Graph")

    assert benchmark_model_output.parse(text).unknown_options == "--use_profiler=true"


def test_the_oldest_format_gives_what_it_has() -> None:
    output = benchmark_model_output.parse(made.OLDEST)

    assert (38467, None, 83235, 79732) == (
        output.init_us,
        output.first_inference_us,
        output.warmup_avg_us,
        output.inference_avg_us,
    )
    assert () == output.operators
    assert output.memory_overall_mb is None
    assert not output.xnnpack


def test_a_run_that_was_broken_off_in_its_warm_up_has_no_figures_of_the_regular_runs() -> None:
    output = benchmark_model_output.parse(made.INFO[: made.INFO.index("INFO: Running benchmark for at least 50")])

    assert output.runs is None
    assert output.inference_avg_us is None


def test_a_pasted_and_indented_text_without_tabs_is_read() -> None:
    pasted = "".join(f"    {line}\n" for line in made.INFO.expandtabs().splitlines())

    assert benchmark_model_output.parse(pasted).operators == benchmark_model_output.parse(made.INFO).operators


@pytest.mark.parametrize("text", ["", "hello\n", "Graph: [x]\n", "\x00\xff" * 100, "count=\n", "=== Run Order ===\n"])
def test_what_is_something_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ContractError, match="not what benchmark_model prints") as caught:
        benchmark_model_output.parse(text)

    assert "\n" not in str(caught.value)


def test_damaged_texts_are_read_or_refused_and_nothing_else() -> None:
    draw = random.Random(4)  # noqa: S311 - the same damage every time
    for _ in range(150):
        text = draw.choice([made.INFO, made.CSV, made.XNNPACK, made.OLDEST])
        at = draw.randrange(len(text))
        damaged = (
            text[:at] + draw.choice(["", "\x00", "%", "1e999", "nan", "\n", "[", "-"]) + text[at + draw.randrange(40) :]
        )
        try:
            output = benchmark_model_output.parse(damaged)
        except ContractError:
            continue
        figures = [value for row in output.operators for value in (row.first_ms, row.avg_ms, row.percent)]
        assert all(math.isfinite(value) for value in figures)
