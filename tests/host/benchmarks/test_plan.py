"""Who is asked, who has answered and who is given up: pure, with times as plain figures."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.host.benchmarks import answers
from tests.host.telemetry import fake_board
from tflotilla.host.benchmarks import plan
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.benchmark import Method
from tflotilla.shared.contract.errors import BoardError, BrokerError, ConflictError

ONLINE = messages.Availability(status="online")
OFFLINE = messages.Availability(status="offline")


def said(board: str, body: Any) -> messages.Message[Any]:  # noqa: ANN401 - any body
    return messages.Message(board=board, boot="a", seq=1, time=1.0, bundle=None, body=body)


def asking(*boards: str, at_once: int = 10) -> plan.Asking:
    """Return boards that are online and have said what they are."""
    state = silent(*boards, at_once=at_once)
    for board in boards:
        state = state.hearing(said(board, ONLINE), 0.0).hearing(said(board, fake_board.state()), 0.0)
    return state


def silent(*boards: str, at_once: int = 10) -> plan.Asking:
    return plan.Asking(request="r1", boards=boards, patience_s=60.0, began=0.0, at_once=at_once)


def answer(board: str, position: int = 1, total: int = 1, request: str = "r1") -> messages.Message[Any]:
    return said(board, answers.report(position, total, request=request, board=board))


@pytest.mark.parametrize(
    ("changes", "more_s"),
    [
        ({"max_seconds": 40.0}, 10.0),
        ({"warmup_seconds": 7.0}, 7.0),
        ({"sustained_seconds": 600.0}, 600.0),
        ({"cool_to_c": 55.0, "cool_seconds": 120.0}, 120.0),
        ({"scenario": "server", "qps": 5.0}, 0.0),
        ({"max_seconds": 600.0, "stages": True}, 570.0 + 600.0 + 60.0),
        ({"inputs": "samples", "samples": "0" * 64}, 900.0),
    ],
)
def test_patience_is_what_the_method_takes_and_no_less(changes: dict[str, Any], more_s: float) -> None:
    assert plan.patience_s(dataclasses.replace(Method(), **changes)) == plan.patience_s(Method()) + more_s


def test_a_search_for_the_highest_rate_is_given_the_time_of_its_trials() -> None:
    searching = Method(scenario="server", latency_bound_ms=30.0)

    assert plan.patience_s(searching) > plan.patience_s(Method()) + 20 * searching.max_seconds


def test_a_board_is_asked_when_it_is_online_and_has_said_what_it_is() -> None:
    state = silent("a")
    assert state.due() == ()
    state = state.hearing(said("a", ONLINE), 0.0)
    assert state.due() == ()

    state = state.hearing(said("a", fake_board.state()), 0.0)

    assert state.due() == ("a",)
    assert state.facts["a"].cores == 4


def test_a_board_ends_with_the_last_of_its_configurations() -> None:
    state = asking("a", "b")
    state = state.asking(state.due(), 1.0).hearing(answer("a", 1, 2), 2.0)
    assert (state.due(), state.measuring) == ((), ("a", "b"))

    state = state.hearing(answer("a", 2, 2), 3.0)

    assert (state.measuring, state.finished) == (("b",), False)
    assert [report.position for report in state.cells("a")] == [1, 2]
    assert state.hearing(answer("b"), 4.0).finished


def test_virtual_boards_measure_one_after_the_other() -> None:
    state = asking("a", "b", "c", at_once=1)
    order = []
    while not state.finished:
        due = state.due()
        order.append(due)
        state = state.asking(due, 1.0)
        assert state.due() == ()
        state = state.hearing(answer(due[0]), 2.0)

    assert order == [("a",), ("b",), ("c",)]


def test_the_answer_to_another_request_is_not_ours() -> None:
    state = asking("a").asking(("a",), 1.0)

    assert not state.hearing(answer("a", request="r2"), 2.0).finished
    assert state.hearing(answer("stranger"), 2.0) == state


def test_an_answer_that_comes_twice_counts_once() -> None:
    once = asking("a").asking(("a",), 1.0).hearing(answer("a", 1, 2), 2.0)

    twice = once.hearing(answer("a", 1, 2), 2.0)

    assert len(twice.cells("a")) == 1
    assert not twice.finished


def test_a_board_that_cannot_measure_says_why() -> None:
    refused = said("a", answers.refusal("no bundle serves on this board"))

    state = asking("a").asking(("a",), 1.0).hearing(refused, 2.0)

    assert isinstance(state.failures["a"], BoardError)
    assert str(state.failures["a"]) == "a can't measure: no bundle serves on this board"


def test_a_board_that_measures_for_somebody_else_is_a_conflict() -> None:
    busy = said("a", answers.refusal("benchmark '12ab' is running on this board; try again when it is done"))

    state = asking("a").asking(("a",), 1.0).hearing(busy, 2.0)

    assert isinstance(state.failures["a"], ConflictError)


def test_a_board_that_is_offline_before_it_is_asked_is_not_waited_for() -> None:
    state = silent("a").hearing(said("a", OFFLINE), 0.0)

    assert state.finished
    assert isinstance(state.failures["a"], BrokerError)
    assert "a is offline" in str(state.failures["a"])


def test_a_board_that_goes_away_while_it_measures_is_asked_again_when_it_is_back() -> None:
    state = asking("a").asking(("a",), 1.0).hearing(answer("a", 1, 3), 2.0)

    away = state.hearing(said("a", OFFLINE), 3.0)
    assert (away.finished, away.due()) == (False, ())
    back = away.hearing(said("a", ONLINE), 9.0)

    assert back.due() == ("a",)
    assert len(back.cells("a")) == 1


def test_a_board_that_only_repeats_that_it_is_online_is_not_asked_twice() -> None:
    state = asking("a").asking(("a",), 1.0).hearing(said("a", ONLINE), 2.0)

    assert state.due() == ()


def test_after_the_broker_was_away_only_those_who_measure_are_asked_again() -> None:
    state = asking("a", "b").asking(("a", "b"), 1.0).hearing(answer("a"), 2.0)

    assert state.doubting().due() == ("b",)


def test_a_board_that_never_reported_is_given_up_soon() -> None:
    state = silent("a")

    assert not state.at(plan.UNKNOWN_AFTER_S).finished
    assert "never reported" in str(state.at(plan.UNKNOWN_AFTER_S + 0.1).failures["a"])


def test_each_answer_renews_the_patience() -> None:
    state = asking("a").asking(("a",), 10.0)
    assert not state.at(70.0).finished
    assert str(state.at(70.1).failures["a"]) == "a did not answer within 60 s; --timeout waits longer"

    later = state.hearing(answer("a", 1, 2), 69.0)

    assert not later.at(129.0).finished
    assert "after 1 configurations" in str(later.at(129.1).failures["a"])
    assert len(later.at(129.1).cells("a")) == 1


def test_a_board_that_waits_for_its_turn_does_not_lose_patience() -> None:
    state = asking("a", "b", at_once=1).asking(("a",), 0.0)

    after = state.at(61.0)

    assert set(after.failures) == {"a"}
    assert after.due() == ("b",)
