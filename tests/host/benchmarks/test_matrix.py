"""Which configurations a user's axes become on a board, and what can't be an axis."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import facts_made
from tests.host.telemetry import fake_board
from tflotilla.host.benchmarks import matrix
from tflotilla.host.benchmarks.matrix import Axes
from tflotilla.host.cli import quantities
from tflotilla.shared.contract.agent_config import DelegateConfig
from tflotilla.shared.contract.errors import BoardError, UsageError

FACTS = fake_board.facts()


def test_every_runtime_of_the_board_comes_with_every_number_of_threads() -> None:
    found = matrix.configurations(Axes(threads=(1, 2)), FACTS)

    assert [(one.inference.runtime, one.inference.num_threads) for one in found] == [
        ("ai-edge-litert", 1),
        ("ai-edge-litert", 2),
        ("tflite-runtime", 1),
        ("tflite-runtime", 2),
    ]


def test_auto_threads_are_one_to_all_cores() -> None:
    found = matrix.configurations(Axes(runtimes=("ai-edge-litert",), threads=()), FACTS)

    assert [one.inference.num_threads for one in found] == [1, 2, 3, 4]


def test_every_axis_is_crossed_with_every_other() -> None:
    delegate = DelegateConfig(library="/lib/x.so", options={"a": "b"})
    axes = Axes(
        threads=(1, 4), xnnpack=(True, False), delegates=(None, delegate), affinities=((), (0,)), batches=(1, 8)
    )

    found = matrix.configurations(axes, FACTS)

    assert len(found) == 2 * 2 * 2 * 2 * 2 * 2
    assert len({str(one) for one in found}) == len(found)


def test_a_runtime_that_the_board_lacks_is_asked_for_all_the_same() -> None:
    facts = replace(FACTS, runtimes=(facts_made.LITERT,))

    found = matrix.configurations(Axes(runtimes=("tflite-runtime",)), facts)

    assert [one.inference.runtime for one in found] == ["tflite-runtime"]


def test_a_board_without_runtimes_is_an_error_of_the_board() -> None:
    with pytest.raises(BoardError, match="no runtime"):
        matrix.configurations(Axes(), replace(FACTS, runtimes=()))


def test_more_than_a_board_takes_on_is_refused_with_the_number() -> None:
    with pytest.raises(UsageError, match="512 configurations are more than the 256"):
        matrix.configurations(Axes(threads=tuple(range(1, 33)), batches=tuple(range(1, 9))), FACTS)


@pytest.mark.parametrize(("text", "expected"), [("1", (1,)), ("1,2,4", (1, 2, 4)), ("2, 1,2", (2, 1)), ("auto", ())])
def test_threads_are_read_as_people_write_them(text: str, expected: tuple[int, ...]) -> None:
    assert matrix.parse_threads(text) == expected


@pytest.mark.parametrize("text", ["", "a", "1,,2", "0", "65", "-1", "1.5"])
def test_threads_that_cannot_be_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="--threads"):
        matrix.parse_threads(text)


def test_an_unknown_runtime_is_a_usage_error_that_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="tflite-runtime, ai-edge-litert, not 'onnx'"):
        matrix.parse_runtimes("tflite-runtime,onnx")


@pytest.mark.parametrize(
    ("text", "expected"), [("on", (True,)), ("false", (False,)), ("both", (True, False)), ("OFF", (False,))]
)
def test_xnnpack_is_on_off_or_both(text: str, expected: tuple[bool, ...]) -> None:
    assert matrix.parse_xnnpack(text) == expected


def test_delegates_are_libraries_with_options_and_none_is_one_of_them() -> None:
    assert matrix.parse_delegates(["none", "/lib/x.so:a=b:c=d=e", "none"]) == (
        None,
        DelegateConfig(library="/lib/x.so", options={"a": "b", "c": "d=e"}),
    )
    assert matrix.parse_delegates([]) == (None,)


@pytest.mark.parametrize("text", ["", ":a=b", "/lib/x.so:a"])
def test_a_delegate_that_cannot_be_read_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--delegate"):
        matrix.parse_delegates([text])


def test_processors_are_numbers_and_ranges() -> None:
    assert matrix.parse_affinities(["0,1", "2-3", "none", "3,2"]) == ((0, 1), (2, 3), ())
    assert matrix.parse_affinities([]) == ((),)


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "5000", "1,,2", "5-2", "0-99999999999"])
def test_processors_that_cannot_be_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="--affinity"):
        matrix.parse_affinities([text])


@pytest.mark.parametrize("text", ["0", "2000", "x"])
def test_batches_that_cannot_be_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="--batch"):
        matrix.parse_batches(text)


@pytest.mark.parametrize(("text", "expected"), [("30ms", 30.0), ("0.5s", 500.0), ("30", 30.0), ("250us", 0.25)])
def test_times_have_units(text: str, expected: float) -> None:
    assert quantities.milliseconds("--max-p99", text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "fast", "3 weeks", "-1ms", "1e3"])
def test_a_time_that_is_none_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(UsageError, match="--max-p99 must be like 30ms"):
        quantities.milliseconds("--max-p99", text)


def test_sizes_have_units_too() -> None:
    assert quantities.mebibytes("--max-rss", "120MiB") == 120.0
    assert quantities.mebibytes("--max-rss", "1GiB") == 1024.0
    assert quantities.mebibytes("--max-rss", None) is None
    assert quantities.seconds("--sustained", "10min") == 600.0
