"""Waits that grow, are bounded and jittered."""

from __future__ import annotations

from tflotilla.device.backoff import Backoff


def test_waits_double_up_to_the_limit() -> None:
    backoff = Backoff(first_s=0.5, limit_s=3.0, chance=lambda: 1.0)

    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_jitter_takes_at_most_half() -> None:
    backoff = Backoff(first_s=2.0, limit_s=60.0, chance=lambda: 0.0)

    assert backoff.next_s() == 1.0


def test_a_success_begins_again() -> None:
    backoff = Backoff(first_s=1.0, limit_s=60.0, chance=lambda: 1.0)
    backoff.next_s()
    backoff.next_s()

    backoff.reset()

    assert backoff.next_s() == 1.0


def test_years_of_failures_do_not_overflow() -> None:
    backoff = Backoff(first_s=1.0, limit_s=60.0, chance=lambda: 1.0, failures=10**6)

    assert backoff.next_s() == 60.0
