"""Expressions that pick boards."""

from __future__ import annotations

import pytest

from tflotilla.host.fleet import selectors
from tflotilla.shared.contract.errors import UsageError

_BOARDS = {
    "pi-1": {"room": "kitchen", "gen": "4"},
    "pi-2": {"room": "kitchen", "gen": "5"},
    "zero-1": {"room": "hall"},
}


@pytest.mark.parametrize(
    ("expression", "picked"),
    [
        ("all", ("pi-1", "pi-2", "zero-1")),
        ("*", ("pi-1", "pi-2", "zero-1")),
        ("pi-2", ("pi-2",)),
        ("zero-1,pi-1", ("pi-1", "zero-1")),
        ("zero-1 pi-1", ("pi-1", "zero-1")),
        ("pi-*", ("pi-1", "pi-2")),
        ("room=kitchen", ("pi-1", "pi-2")),
        ("room=kitchen,gen=5", ("pi-2",)),
        ("gen!=4", ("pi-2", "zero-1")),
        ("!pi-1", ("pi-2", "zero-1")),
        ("pi-*,gen!=4", ("pi-2",)),
        ("all,!pi-*", ("zero-1",)),
    ],
)
def test_names_add_labels_narrow_and_bang_leaves_out(expression: str, picked: tuple[str, ...]) -> None:
    assert selectors.select(expression, _BOARDS) == picked


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "empty"),
        (" , ", "empty"),
        ("pi-9", "no board 'pi-9'; the fleet has pi-1, pi-2, zero-1"),
        ("room=attic", "picks no board"),
        ("$(reboot)", "neither a board"),
        ("Pi-1", "neither a board"),
    ],
)
def test_what_picks_nothing_says_what_there_is(expression: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        selectors.select(expression, _BOARDS)

    assert said in str(refused.value)


def test_labels_are_read_from_pairs() -> None:
    assert selectors.parse_labels(["room=kitchen", "site/floor="]) == {"room": "kitchen", "site/floor": ""}


@pytest.mark.parametrize("pair", ["room", "=x", "a=b c", "a=b,c", "a=!", "$(x)=1", "a=b=c"])
def test_a_label_that_no_selector_could_pick_is_refused(pair: str) -> None:
    with pytest.raises(UsageError, match="write key=value"):
        selectors.parse_labels([pair])
