"""Who is asked, who has answered and who is given up: pure, with times as plain figures."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.host.telemetry import fake_board
from tflotilla.host.benchmarks import plan
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.errors import BoardError, BrokerError, UsageError

REQUEST = messages.BenchmarkRequest(request="r1", threads=(1, 2), max_seconds=5.0)


def asking(*boards: str, at_once: int = 10) -> plan.Asking:
    return plan.Asking(request="r1", boards=boards, patience_s=60.0, began=0.0, at_once=at_once)


def said(board: str, body: Any) -> messages.Message[Any]:  # noqa: ANN401 - any body
    return messages.Message(board=board, boot="a", seq=1, time=1.0, bundle=None, body=body)


def answer(board: str, request: str = "r1", error: str | None = None) -> messages.Message[Any]:
    report = messages.BenchmarkReport(
        request=request, model_sha256="ab", cells=() if error else (fake_board.cell(),), error=error
    )
    return said(board, report)


ONLINE = messages.Availability(status="online")
OFFLINE = messages.Availability(status="offline")


@pytest.mark.parametrize(("text", "expected"), [("1", (1,)), ("1,2,4", (1, 2, 4)), ("2, 1,2", (2, 1))])
def test_threads_are_read_as_people_write_them(text: str, expected: tuple[int, ...]) -> None:
    assert plan.parse_threads(text) == expected


@pytest.mark.parametrize("text", ["", "a", "1,,2", "0", "65", "-1", "1.5"])
def test_threads_that_cannot_be_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="--threads"):
        plan.parse_threads(text)


def test_auto_is_every_runtime_of_a_board() -> None:
    assert plan.parse_runtimes("auto") == ()
    assert plan.parse_runtimes("ai-edge-litert, tflite-runtime") == ("ai-edge-litert", "tflite-runtime")


def test_an_unknown_runtime_is_a_usage_error_that_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="tflite-runtime, ai-edge-litert, not 'onnx'"):
        plan.parse_runtimes("tflite-runtime,onnx")


@pytest.mark.parametrize(
    "changes",
    [{"min_runs": 0}, {"warmup_runs": -1}, {"min_seconds": 9.0}, {"min_seconds": 0.0, "max_seconds": 0.0}],
)
def test_limits_that_leave_nothing_to_measure_are_usage_errors(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        plan.check(dataclasses.replace(REQUEST, **changes))  # type: ignore[arg-type]


def test_patience_grows_with_the_number_of_cells() -> None:
    one = plan.patience_s(dataclasses.replace(REQUEST, threads=(1,), runtimes=("tflite-runtime",)))

    assert plan.patience_s(REQUEST) > 3 * one
    assert one > REQUEST.max_seconds


def test_every_board_is_asked_at_once_and_ends_with_its_answer() -> None:
    state = asking("a", "b")
    assert state.due() == ("a", "b")

    state = state.asking(state.due(), 1.0).hearing(answer("a"))

    assert (state.due(), state.measuring, state.finished) == ((), ("b",), False)
    assert state.hearing(answer("b")).finished


def test_virtual_boards_measure_one_after_the_other() -> None:
    state = asking("a", "b", "c", at_once=1)
    order = []
    while not state.finished:
        due = state.due()
        order.append(due)
        state = state.asking(due, 1.0)
        assert state.due() == ()
        state = state.hearing(answer(due[0]))

    assert order == [("a",), ("b",), ("c",)]


def test_the_answer_to_another_request_is_not_ours() -> None:
    state = asking("a").asking(("a",), 1.0)

    assert not state.hearing(answer("a", request="r2")).finished
    assert state.hearing(answer("stranger")) == state


def test_a_second_answer_changes_nothing() -> None:
    state = asking("a").asking(("a",), 1.0).hearing(answer("a"))

    assert state.hearing(answer("a", error="late")) == state


def test_a_board_that_cannot_measure_says_why() -> None:
    state = asking("a").asking(("a",), 1.0).hearing(answer("a", error="no bundle serves on this board"))

    assert isinstance(state.failures["a"], BoardError)
    assert str(state.failures["a"]) == "a can't measure: no bundle serves on this board"


def test_a_board_that_is_offline_is_not_waited_for() -> None:
    state = asking("a").hearing(said("a", OFFLINE))

    assert state.finished
    assert isinstance(state.failures["a"], BrokerError)
    assert "a is offline" in str(state.failures["a"])


def test_a_board_that_never_reported_is_given_up_soon() -> None:
    state = asking("a").asking(("a",), 0.0)

    assert not state.at(plan.UNKNOWN_AFTER_S).finished
    assert "never reported" in str(state.at(plan.UNKNOWN_AFTER_S + 0.1).failures["a"])


def test_a_board_that_takes_too_long_is_named_with_the_time_it_had() -> None:
    state = asking("a").asking(("a",), 10.0).hearing(said("a", ONLINE))

    assert not state.at(70.0).finished
    assert str(state.at(70.1).failures["a"]) == "a did not answer within 60 s; --timeout waits longer"


def test_a_board_that_waits_for_its_turn_does_not_lose_patience() -> None:
    state = asking("a", "b", at_once=1).asking(("a",), 0.0)
    state = state.hearing(said("a", ONLINE)).hearing(said("b", ONLINE))

    after = state.at(61.0)

    assert set(after.failures) == {"a"}
    assert after.due() == ("b",)
