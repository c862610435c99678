"""A flood of complaints stays a trickle of events."""

from __future__ import annotations

from tflotilla.device.events import PER_MINUTE, EventGate


def test_few_complaints_pass_as_they_come() -> None:
    gate = EventGate()

    assert [gate.admit(f"{n}", now=float(n)) for n in range(3)] == [("0",), ("1",), ("2",)]


def test_a_flood_is_held_back_and_counted_with_the_next_minute() -> None:
    gate = EventGate()
    told = [gate.admit("broken", now=0.1) for _ in range(PER_MINUTE + 500)]

    assert sum(map(len, told)) == PER_MINUTE
    assert gate.admit("later", now=61.0) == ("500 more complaints were not reported one by one", "later")
    assert gate.admit("again", now=62.0) == ("again",)


def test_a_quiet_minute_leaves_nothing_to_count() -> None:
    gate = EventGate()
    gate.admit("one", now=0.0)

    assert gate.admit("two", now=100.0) == ("two",)
