"""Expressions that pick boards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import facts_made
from tflotilla.host.fleet.inventory.contacts import Contact, Known
from tflotilla.host.fleet.selection import selectors
from tflotilla.shared.contract.errors import UsageError
from tflotilla.shared.contract.messages import ServedBundle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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


_GROUPS = {"kitchen": ("pi-1", "pi-2"), "old.ones": ("zero-1",)}
_ZERO = facts_made.facts(
    time=0.0,
    hostname="zero",
    model="Raspberry Pi Zero 2 W Rev 1.0",
    arch="armv7l",
    ram_bytes=1 << 29,
    distribution="Raspbian GNU/Linux 12 (bookworm)",
    runtimes=(facts_made.TFLITE,),
)
_SERVED = ServedBundle(digest="abcdef" + "0" * 58, name="digits", version="1.0.0", release=1)
_KNOWN = {
    "pi-1": Known(contact=Contact(tried=9.0, reached=True, seen=9.0, agent="0.2.1", serving=_SERVED, said=9.0)),
    "pi-2": Known(contact=Contact(tried=9.0, reached=False, reason="it is off")),
    "zero-1": Known(facts=_ZERO, asked_at=5.0),
}


def _known(names: Iterable[str]) -> Mapping[str, Known]:
    return {name: _KNOWN[name] for name in names}


def _select(expression: str) -> tuple[str, ...]:
    return selectors.select(expression, _BOARDS, groups=_GROUPS, known=_known)


@pytest.mark.parametrize(
    ("expression", "picked"),
    [
        ("room=kitchen and gen=5", ("pi-2",)),
        ("gen=4 or room=hall", ("pi-1", "zero-1")),
        ("room=kitchen and gen=4 or room=hall", ("pi-1", "zero-1")),
        ("room=kitchen and (gen=4 or room=hall)", ("pi-1",)),
        ("not room=kitchen", ("zero-1",)),
        ("not not room=kitchen", ("pi-1", "pi-2")),
        ("not (gen=4 or gen=5)", ("zero-1",)),
        ("pi-*, zero-1 and gen=4", ("pi-1",)),
        ("(pi-1)", ("pi-1",)),
        ("room=kit*", ("pi-1", "pi-2")),
        ("room=h?ll", ("zero-1",)),
        ("room=[hx]all", ("zero-1",)),
        ("pi-[!2]", ("pi-1",)),
        ("!pi-[!2]", ("pi-2", "zero-1")),
        ("room==hall", ("zero-1",)),
        ("room!==hall", ("pi-1", "pi-2")),
        ("gen=*", ("pi-1", "pi-2")),
        ("gen!=*", ("zero-1",)),
        ("'room=kitchen'", ("pi-1", "pi-2")),
        ("!room=kitchen", ("zero-1",)),
        ("name=*-1", ("pi-1", "zero-1")),
        ("@kitchen", ("pi-1", "pi-2")),
        ("@kitchen,gen=4", ("pi-1",)),
        ("@kitchen,zero-1,!pi-1", ("pi-2", "zero-1")),
        ("all,!@kitchen", ("zero-1",)),
        ("@old*", ("zero-1",)),
        ("group=old.ones", ("zero-1",)),
        ("online", ("pi-1",)),
        ("offline", ("pi-2",)),
        ("!offline", ("pi-1", "zero-1")),
        ("not offline and not online", ("zero-1",)),
        ("arch=armv7l", ("zero-1",)),
        ("arch!=armv7l", ("pi-1", "pi-2")),
        ('model="raspberry pi zero 2*"', ("zero-1",)),
        ("model=*zero*", ("zero-1",)),
        ("python=3.11", ("zero-1",)),
        ("python=3.11.2", ("zero-1",)),
        ("runtime=tflite-runtime", ("zero-1",)),
        ("runtime=tflite-runtime==2.14.0", ("zero-1",)),
        ("os=bookworm", ("zero-1",)),
        ("os=raspbian", ("zero-1",)),
        ("agent=0.2", ("pi-1",)),
        ("bundle=digits", ("pi-1",)),
        ("bundle=digits-1.0.0", ("pi-1",)),
        ("bundle=abcdef", ("pi-1",)),
        ("python=3.1 or pi-2", ("pi-2",)),
        ("broken=yes or pi-2", ("pi-2",)),
    ],
)
def test_conditions_are_joined_by_and_or_not_and_parentheses(expression: str, picked: tuple[str, ...]) -> None:
    assert picked == _select(expression)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("room=hall and", "character 14: something to pick is missing after 'and'"),
        ("and room=hall", "character 1: something to pick is missing before 'and'"),
        ("room=hall and or gen=4", "character 15: something to pick is missing after 'and'"),
        ("(room=hall", "character 1: '(' has no ')'"),
        ("room=hall)", "character 10: ')' without '('"),
        ("(room=hall (gen=4)", "character 12: 'and', 'or' or ')' is missing before '('"),
        ("room=hall not gen=4", "character 11: 'and' or 'or' is missing before 'not'"),
        ("()", "character 2: something to pick is missing after '('"),
        ('room="hall', 'character 6: " begins a quotation that has no end'),
        ("room=hall and =4", "character 15: '=4' has no key"),
        ("@", "is not a group"),
        ("@attic", "no group '@attic'; the fleet's groups: kitchen, old.ones"),
        ("room=hall or pi-9", "no board 'pi-9'"),
        ("room=hall or Pi", "'Pi' is neither a board"),
        ("romo=hall", "no board has a label 'romo'; did you mean 'room'?"),
        ("not romo=hall", "no board has a label 'romo'; did you mean 'room'?"),
        ("not ROOM=hall", "no board has a label 'ROOM'; did you mean 'room'?"),
        ("not naem=pi-1", "no board has a label 'naem'; did you mean 'name'?"),
        ("pi-1 AND pi-2", "character 6: write 'and', not 'AND'"),
        ("NOT pi-1", "character 1: write 'not', not 'NOT'"),
        ("pi!1", "'pi!1' is neither a board"),
        ("colour=red", "no board has a label 'colour', and it is no fact (arch, model, python"),
        ("(" * 200 + "pi-1" + ")" * 200, "nested too deeply"),
    ],
)
def test_a_selector_that_cant_be_meant_so_says_where_in_one_line(expression: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        _select(expression)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_label_goes_before_a_fact_of_its_name() -> None:
    boards = {"pi-2": {"arch": "mine"}, "zero-1": {}}

    assert selectors.select("arch=mine", boards, known=_known) == ("pi-2",)
    assert selectors.select("arch=armv7l", boards, known=_known) == ("zero-1",)


def test_what_boards_said_is_looked_up_only_when_a_selector_asks_for_it() -> None:
    def never(_names: Iterable[str]) -> Mapping[str, Known]:
        pytest.fail("a label needs no facts")

    assert selectors.select("room=hall", _BOARDS, known=never) == ("zero-1",)
    with pytest.raises(UsageError, match="'arch=armv7l': only names, groups and labels can be asked for here"):
        selectors.select("arch=armv7l", _BOARDS)


@pytest.mark.parametrize(("limit", "left"), [("1", ("pi-1",)), ("9", ("pi-1", "zero-1")), ("zero-*", ("zero-1",))])
def test_a_limit_is_a_number_of_boards_or_another_selector(limit: str, left: tuple[str, ...]) -> None:
    assert left == selectors.limited(("pi-1", "zero-1"), limit, _BOARDS)


@pytest.mark.parametrize(
    ("limit", "said"), [("0", "at least one"), ("pi-2", "leaves none of the 2 boards"), ("pi-9", "no board 'pi-9'")]
)
def test_a_limit_that_leaves_nothing_is_refused(limit: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        selectors.limited(("pi-1", "zero-1"), limit, _BOARDS)

    assert said in str(refused.value)
