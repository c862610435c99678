"""Which numbers of a boot were stored."""

from __future__ import annotations

import random

from tflotilla.host.telemetry.store.numbers import Numbers


def of(*added: int) -> Numbers:
    numbers = Numbers()
    for number in added:
        numbers.add(number)
    return numbers


def test_numbers_in_order_are_one_range() -> None:
    numbers = of(1, 2, 3, 4)

    assert ("1-4", 4, 0) == (numbers.text(), numbers.received, numbers.missing)


def test_a_number_that_came_already_is_a_duplicate() -> None:
    numbers = of(1, 2, 3)

    assert not numbers.add(2)
    assert (3, 1) == (numbers.received, numbers.duplicates)


def test_what_lies_between_ranges_is_missing_until_it_comes() -> None:
    numbers = of(1, 2, 5, 6)
    assert 2 == numbers.missing

    assert numbers.add(4)
    assert numbers.add(3)
    assert ("1-6", 0) == (numbers.text(), numbers.missing)


def test_the_order_does_not_matter() -> None:
    """As plain sets of numbers say it, for many orders."""
    chance = random.Random(7)  # noqa: S311 - a test's
    for _ in range(300):
        given = [chance.randint(1, 60) for _ in range(chance.randint(1, 80))]
        shuffled = chance.sample(given, len(given))
        numbers = of(*given)

        assert of(*shuffled).text() == numbers.text()
        assert len(set(given)) == numbers.received
        assert len(given) - len(set(given)) == numbers.duplicates
        assert max(given) - min(given) + 1 - len(set(given)) == numbers.missing
        assert set(given) == {n for first, last in numbers.ranges for n in range(first, last + 1)}


def test_it_goes_on_after_it_was_written_down() -> None:
    numbers = of(1, 2, 7, 9, 10)
    again = Numbers.read(numbers.text(), received=numbers.received, duplicates=numbers.duplicates)

    assert "1-2 7 9-10" == again.text()
    assert not again.add(9)
    assert again.add(8)
    assert "1-2 7-10" == again.text()


def test_memory_is_bounded_and_what_was_given_up_stays_missing() -> None:
    numbers = of(*range(1, 20_001, 2))

    assert 4096 == len(numbers.ranges)
    assert (10_000, 9_999) == (numbers.received, numbers.missing)
    assert numbers.add(19_998)
