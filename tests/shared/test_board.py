"""Board names, offers, deployment states: the small words of the contract."""

from __future__ import annotations

import pytest

from tflotilla.shared.contract import layout
from tflotilla.shared.contract.board import RuntimeOffer, check_board_id
from tflotilla.shared.contract.deployment import FOLLOWERS, DeploymentState
from tflotilla.shared.contract.processing import Postprocessing, Preprocessing


@pytest.mark.parametrize("name", ["a", "0", "pi-1", "a-", "x" * 63])
def test_a_board_name_is_taken_as_it_is(name: str) -> None:
    assert check_board_id(name) == name


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a.b", "x" * 64, "a b", "a/b", "../a", "a\n", "$(reboot)", "ä"])
def test_any_other_board_name_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(ValueError, match="use lower-case letters, digits and '-'"):
        check_board_id(name)


def test_an_offer_reads_as_pip_writes_it() -> None:
    assert str(RuntimeOffer(name="tflite-runtime", version="2.14.0")) == "tflite-runtime==2.14.0"


def test_every_state_of_a_deployment_leads_to_an_end_and_no_way_leads_back() -> None:
    for state in DeploymentState:
        seen: set[DeploymentState] = set()
        waiting = [state]
        while waiting:
            for follower in FOLLOWERS[waiting.pop()]:
                assert follower is not state
                if follower not in seen:
                    seen.add(follower)
                    waiting.append(follower)

        assert state.final or any(follower.final for follower in seen)


def test_four_states_are_final() -> None:
    assert {state.value for state in DeploymentState if state.final} == {
        "succeeded",
        "rolled_back",
        "failed",
        "rejected",
    }


def test_what_has_served_is_rolled_back_and_never_rejected() -> None:
    for state in (DeploymentState.SWITCHING, DeploymentState.CONFIRMING):
        assert DeploymentState.REJECTED not in FOLLOWERS[state]
        assert DeploymentState.ROLLED_BACK in FOLLOWERS[state]


def test_no_two_things_lie_at_one_place_on_a_board() -> None:
    places = [
        value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str) and name[0] != "_"
    ]

    assert sorted(places) == sorted(set(places))


def test_statistics_hold_one_number_or_one_per_channel() -> None:
    assert Preprocessing(mean=(1.0, 2.0, 3.0)).mean == (1.0, 2.0, 3.0)
    with pytest.raises(ValueError, match="mean must hold 1 or 1 numbers for colour 'gray', not 3"):
        Preprocessing(colour="gray", mean=(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="std must not be 0"):
        Preprocessing(std=(0.0,))


def test_an_answer_has_at_least_one_entry() -> None:
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        Postprocessing(top_k=0)
