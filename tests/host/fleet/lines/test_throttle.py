"""The shared rate: nobody waits without reason, all together go no faster than it, and a rate must be one."""

from __future__ import annotations

import pytest

from tflotilla.host.fleet.lines.throttle import Throttle


class _Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def _throttle(time: _Time, rate: float = 1000.0, burst: int = 500) -> Throttle:
    return Throttle(rate, burst_bytes=burst, clock=lambda: time.now, sleep=time.sleep)


def test_a_long_transfer_takes_what_its_bytes_take_at_the_rate() -> None:
    time = _Time()
    throttle = _throttle(time)

    for _piece in range(100):
        throttle.take(100)

    # The first burst is free.
    assert time.now - 100 == pytest.approx(9.5)


def test_a_pause_is_worth_one_burst_and_no_more() -> None:
    time = _Time()
    throttle = _throttle(time)
    throttle.take(500)
    time.now += 3600
    began = time.now

    throttle.take(500)
    assert time.now == began
    throttle.take(500)
    assert time.now - began == pytest.approx(0.5)


def test_those_who_ask_at_once_wait_one_after_the_other() -> None:
    waits: list[float] = []
    throttle = Throttle(1000.0, burst_bytes=0, clock=lambda: 0.0, sleep=waits.append)

    for _board in range(3):
        throttle.take(100)

    assert waits == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="above 0 bytes per second"):
        Throttle(rate)
