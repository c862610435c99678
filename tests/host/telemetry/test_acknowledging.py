"""What a collector owes to boards: exactly what is stored, in order of waiting, not too often, in bounded memory."""

from __future__ import annotations

import random

import pytest

from tflotilla.host.telemetry.acknowledging import MOST_RANGES, Debts
from tflotilla.shared.contract.messages import Ack


def acked(*acks: Ack) -> set[int]:
    """Every number that these acks say is stored."""
    found: set[int] = set()
    for ack in acks:
        found |= set(range(1, ack.up_to + 1))
        for first, last in ack.also:
            found |= set(range(first, last + 1))
    return found


def test_what_came_from_the_beginning_is_acked_up_to_its_last() -> None:
    debts = Debts()
    for number in (1, 2, 3):
        debts.stored("pi-1", "a", number, 0.0)

    assert [("pi-1", Ack(boot="a", up_to=3))] == list(debts.due(1.0, everything=True))
    assert [] == list(debts.due(2.0, everything=True))


def test_what_began_late_or_has_holes_is_acked_in_ranges() -> None:
    debts = Debts()
    for number in (7, 5, 6, 9, 12, 11):
        debts.stored("pi-1", "a", number, 0.0)

    assert [("pi-1", Ack(boot="a", up_to=0, also=((5, 7), (9, 9), (11, 12))))] == list(debts.due(1.0, everything=True))


def test_a_hole_that_is_filled_later_joins_what_is_whole() -> None:
    debts = Debts()
    for number in (1, 2, 4):
        debts.stored("pi-1", "a", number, 0.0)
    first = list(debts.due(1.0, everything=True))
    debts.stored("pi-1", "a", 3, 2.0)
    second = list(debts.due(3.0, everything=True))

    assert [("pi-1", Ack(boot="a", up_to=2, also=((4, 4),)))] == first
    assert [("pi-1", Ack(boot="a", up_to=3))] == second


def test_boots_and_boards_are_told_apart() -> None:
    debts = Debts()
    for board, boot in (("pi-1", "a"), ("pi-1", "b"), ("pi-2", "a")):
        debts.stored(board, boot, 1, 0.0)

    assert [("pi-1", "a"), ("pi-1", "b"), ("pi-2", "a")] == [
        (board, ack.boot) for board, ack in debts.due(1.0, everything=True)
    ]


def test_a_repetition_is_acked_again() -> None:
    """Its board has not heard the first ack."""
    debts = Debts()
    debts.stored("pi-1", "a", 8, 0.0)
    list(debts.due(1.0, everything=True))
    debts.stored("pi-1", "a", 8, 2.0)

    assert [("pi-1", Ack(boot="a", up_to=0, also=((8, 8),)))] == list(debts.due(3.0, everything=True))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_order_exactly_what_was_stored_is_acked(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same each time
    numbers = [number for number in range(1, 400) if chance.random() < 0.8]
    coming = numbers + chance.choices(numbers, k=50)
    chance.shuffle(coming)
    debts, acks = Debts(), []
    for at, number in enumerate(coming):
        debts.stored("pi-1", "a", number, float(at))
        if chance.random() < 0.05:
            acks += [ack for _, ack in debts.due(float(at), everything=True)]
    for _ in range(3):
        acks += [ack for _, ack in debts.due(1e6, everything=True)]

    assert set(numbers) == acked(*acks)
    assert all(len(ack.also) <= MOST_RANGES for ack in acks)


def test_a_small_fleet_hears_within_a_moment() -> None:
    debts = Debts(gathered_s=0.3)
    list(debts.due(0.0))
    debts.stored("pi-1", "a", 1, 1.0)

    assert [] == list(debts.due(1.1))
    assert 1 == len(list(debts.due(1.3)))


def test_of_a_large_fleet_those_who_wait_longest_hear_first_and_so_many_a_second() -> None:
    debts = Debts(per_second=100)
    list(debts.due(0.0))
    for number in range(1000):
        debts.stored(f"pi-{number}", "a", 1, number / 1000)
    heard = [[board for board, _ in debts.due(second)] for second in (1.0, 2.0, 3.0)]

    assert [[f"pi-{number}" for number in range(start, start + 100)] for start in (0, 100, 200)] == heard
    assert 700 == len(debts)


def test_a_clock_that_is_set_back_silences_nobody() -> None:
    debts = Debts()
    list(debts.due(1000.0))
    debts.stored("pi-1", "a", 1, 1000.0)
    list(debts.due(10.0))

    assert 1 == len(list(debts.due(11.0)))


def test_many_ranges_are_said_in_several_acks() -> None:
    debts = Debts()
    for number in range(10, 10 + 4 * MOST_RANGES, 2):
        debts.stored("pi-1", "a", number, 0.0)
    acks = [ack for _, ack in debts.due(1.0, everything=True)]

    assert [MOST_RANGES, MOST_RANGES] == [len(ack.also) for ack in acks]
