"""The sample of a stream: as many as asked for, everybody with the same chance, and hardly anybody looked at."""

from __future__ import annotations

import random

import pytest

from tflotilla.device.sampling import Reservoir


def offer(reservoir: Reservoir[int], count: int) -> int:
    """Let items 0, 1, … pass; return how many of them it wanted to have."""
    wanted = 0
    for number in range(count):
        if number + 1 >= reservoir.next_at:
            reservoir.put(number)
            wanted += 1
    return wanted


@pytest.mark.parametrize(("size", "count"), [(5, 3), (5, 5), (1, 100), (5, 1000), (100, 1000)])
def test_a_sample_holds_as_many_as_asked_for_and_each_once(size: int, count: int) -> None:
    reservoir: Reservoir[int] = Reservoir(size, random.Random(1).random)  # noqa: S311 - a test wants the same each time
    offer(reservoir, count)

    assert len(reservoir.items) == min(size, count)
    assert len(set(reservoir.items)) == len(reservoir.items)


def test_no_sample_wants_nothing() -> None:
    reservoir: Reservoir[int] = Reservoir(0)

    assert offer(reservoir, 1000) == 0
    assert reservoir.items == []


def test_everybody_has_the_same_chance() -> None:
    """20,000 samples of 3 of 20: each item in 3,000 of them, give or take five standard deviations."""
    uniform = random.Random(2).random  # noqa: S311
    drawn = [0] * 20
    for _ in range(20_000):
        reservoir: Reservoir[int] = Reservoir(3, uniform)
        offer(reservoir, 20)
        for number in reservoir.items:
            drawn[number] += 1

    assert all(abs(times - 3000) < 5 * (20_000 * 0.15 * 0.85) ** 0.5 for times in drawn), drawn


def test_few_are_looked_at() -> None:
    reservoir: Reservoir[int] = Reservoir(5, random.Random(3).random)  # noqa: S311

    assert offer(reservoir, 100_000) < 100


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53, 2**-53])
def test_extreme_numbers_are_numbers_too(number: float) -> None:
    reservoir: Reservoir[int] = Reservoir(2, lambda: number)
    offer(reservoir, 50)

    assert len(reservoir.items) == 2
