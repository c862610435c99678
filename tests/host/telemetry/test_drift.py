"""A shift that chance could make is none, one that it could not shows."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tflotilla.host.telemetry import drift


@pytest.mark.parametrize("categories", [2, 10, 1000])
@pytest.mark.parametrize(("n", "m"), [(11, 11), (30, 200), (600, 3000)])
def test_chance_alone_is_no_shift(categories: int, n: int, m: int) -> None:
    dice = random.Random(categories + n)  # noqa: S311 - a sample
    weights = [1 / (1 + number) for number in range(categories)]

    shifted = 0
    for _ in range(200):
        before = Counter(dice.choices(range(categories), weights, k=n))
        found = drift.psi(before, Counter(dice.choices(range(categories), weights, k=m)))
        shifted += found.value > max(0.25, found.chance)

    assert shifted <= 1


def test_a_shift_shows_when_there_are_counts_enough() -> None:
    before, after = {"a": 60, "b": 40}, {"a": 240, "b": 360}

    assert drift.psi(before, after).value < drift.psi(before, after).chance < 0.5
    many = drift.psi({"a": 600, "b": 400}, {"a": 2000, "b": 8000})
    assert many.value > 0.25 > many.chance
