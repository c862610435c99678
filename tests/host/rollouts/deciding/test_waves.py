"""How waves are written, and which boards each of them takes."""

from __future__ import annotations

import pytest

from tflotilla.host.rollouts.deciding import waves
from tflotilla.host.rollouts.plan import Disposition, PlannedBoard, Wave
from tflotilla.shared.contract.errors import UsageError

LABELS = {"site=lab": {"pi-2", "pi-4"}, "(site=lab, arch=x)": {"pi-4"}, "nobody=here": set[str]()}


def boards(count: int, disposition: Disposition = "ready", *, first: int = 0) -> list[PlannedBoard]:
    return [PlannedBoard(board=f"pi-{number}", disposition=disposition) for number in range(first, first + count)]


def split(text: str, planned: list[PlannedBoard]) -> tuple[Wave, ...]:
    return waves.split(waves.parse(text), planned, select=lambda selector: LABELS[selector])


def sizes(text: str, count: int) -> list[int]:
    return [len(wave.boards) for wave in split(text, boards(count))]


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("1,10%,50%,100%", 100, [1, 9, 40, 50]),
        ("1,10%,50%,100%", 10_000, [1, 999, 4000, 5000]),
        ("1,10%,50%,100%", 5, [1, 2, 2]),
        ("1,10%,50%,100%", 1, [1]),
        ("1,10%,50%,100%", 0, []),
        ("100%", 7, [7]),
        ("2, 3 ,100%", 10, [2, 3, 5]),
        ("0.1%,12.5%,100%", 1000, [1, 124, 875]),
        ("5,5", 3, [3]),
        ("10%,100%", 30, [3, 27]),
    ],
)
def test_counts_are_more_boards_and_shares_count_from_the_first(text: str, count: int, expected: list[int]) -> None:
    assert expected == sizes(text, count)


def test_a_share_is_exact_and_rounded_up() -> None:
    """0.07 * 100 is 7.000000000000001 in floats."""
    assert [7, 93] == sizes("7%,100%", 100)
    assert [1, 2] == sizes("1%,100%", 3)


def test_boards_that_answered_come_first_and_those_that_are_off_last() -> None:
    planned = [*boards(2, "offline"), *boards(2, "unknown", first=2), *boards(2, first=4)]

    found = split("1,100%", planned)

    assert [("pi-4",), ("pi-5", "pi-2", "pi-3", "pi-0", "pi-1")] == [wave.boards for wave in found]


def test_boards_that_need_nothing_or_cannot_are_in_no_wave() -> None:
    planned = [*boards(2, "current"), *boards(2, "incompatible", first=2), *boards(2, first=4)]

    assert [("pi-4", "pi-5")] == [wave.boards for wave in split("100%", planned)]


def test_a_selector_takes_what_it_picks_of_those_that_are_left() -> None:
    assert [("pi-2", "pi-4"), ("pi-0", "pi-1", "pi-3")] == [wave.boards for wave in split("site=lab,100%", boards(5))]
    assert [("pi-0", "pi-1", "pi-2"), ("pi-4",), ("pi-3",)] == [
        wave.boards for wave in split("3,site=lab,100%", boards(5))
    ]


def test_commas_in_parentheses_are_the_selectors_own() -> None:
    assert [("pi-4",), ("pi-0", "pi-1", "pi-2", "pi-3")] == [
        wave.boards for wave in split("(site=lab, arch=x),100%", boards(5))
    ]


def test_an_exclamation_mark_asks_for_approval() -> None:
    found = split("1,10%!,site=lab!,100%", boards(20))

    assert [("1", False), ("10%", True), ("site=lab", True), ("100%", False)] == [
        (wave.size, wave.approval) for wave in found
    ]


def test_the_approval_of_an_empty_wave_is_asked_before_the_next() -> None:
    found = split("1,10%!,nobody=here,100%", boards(5))

    assert [("1", False), ("100%", True)] == [(wave.size, wave.approval) for wave in found]


@pytest.mark.parametrize("text", ["1,10%,50%,100%", "3,site=lab,25%,100%", "site=lab!,1,1,99.9%,100%"])
@pytest.mark.parametrize("count", [1, 2, 5, 17, 1000])
def test_every_board_is_in_exactly_one_wave(text: str, count: int) -> None:
    planned = boards(count)

    dealt = [board for wave in split(text, planned) for board in wave.boards]

    assert sorted(board.board for board in planned) == sorted(dealt)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a wave is empty"),
        ("1,,100%", "a wave is empty"),
        ("!,100%", "a wave is empty"),
        ("0,100%", "a wave of 0 boards proves nothing"),
        ("0%,100%", "'0%' must be above 0% and at most 100%"),
        ("101%", "'101%' must be above 0% and at most 100%"),
        ("50%,10%,100%", "'10%' is not more than the 50% before it"),
        ("100%,1", "'1' comes after 100%"),
        ("x%", "'x%' is no share"),
        ("nan%", "'nan%' is no share"),
        ("9" * 5000, "is no share"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        waves.parse(text)

    assert "\n" not in str(raised.value)


def test_boards_that_no_wave_takes_are_an_error() -> None:
    with pytest.raises(UsageError, match="waves '1,10%': 9 of 10 boards, pi-1 for one, are in no wave; end with 100%"):
        split("1,10%", boards(10))
