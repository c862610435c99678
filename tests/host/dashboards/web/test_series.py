"""Curves of one board: in order, bounded, whatever its clock does."""

from __future__ import annotations

from tests.host.dashboards.web.test_tiles import METRICS
from tflotilla.host.dashboards.web.series import LENGTH, Series
from tflotilla.shared.contract.messages import Message, Metrics

NOW = 1.8e9


def window(time: float, seq: int, *, boot: str = "b1") -> Message[Metrics]:
    """Return the message of one window."""
    return Message(board="pi-1", boot=boot, seq=seq, time=time, bundle=None, body=METRICS)


def filled(times: list[float]) -> Series:
    """Return a series of windows that came when they say."""
    series = Series()
    for seq, time in enumerate(times, 1):
        series.add(window(time, seq), time)
    return series


def test_a_window_is_a_column_of_every_curve() -> None:
    series = filled([NOW])

    assert {
        "time": [NOW],
        "rate": [20.0],
        "temperature_c": [51.0],
        "p50_ms": {"total": [5.0]},
        "p99_ms": {"total": [6.0]},
    } == series.document()
    assert {"time": NOW, "rate": 20.0, "temperature_c": 51.0, "p50_ms": {"total": 5.0}, "p99_ms": {"total": 6.0}} == (
        series.last()
    )


def test_only_the_last_windows_are_kept_in_order() -> None:
    times = [NOW + number for number in range(LENGTH + 5)]

    assert times[5:] == filled(times).document()["time"]


def test_an_empty_series_is_empty() -> None:
    assert {"time": [], "rate": [], "temperature_c": [], "p50_ms": {}, "p99_ms": {}} == Series().document()


def test_windows_that_a_board_kept_while_it_was_cut_off_stand_where_they_were() -> None:
    series = Series()
    for seq in range(1, 4):
        series.add(window(NOW - 600 + seq, seq), NOW)

    assert [NOW - 599, NOW - 598, NOW - 597] == series.document()["time"]


def test_a_window_that_comes_out_of_order_is_not_drawn() -> None:
    series = filled([NOW, NOW + 2])

    assert not series.add(window(NOW + 1, 1), NOW + 3)
    assert [NOW, NOW + 2] == series.document()["time"]


def test_a_clock_at_1970_counts_for_nothing() -> None:
    series = Series()
    series.add(window(12.0, 1), NOW)
    series.add(window(13.0, 2), NOW + 1)

    assert [NOW, NOW + 1] == series.document()["time"]


def test_a_clock_that_is_set_back_does_not_stop_the_curve() -> None:
    series = filled([NOW])

    assert series.add(window(NOW - 3600, 2), NOW + 1)
    assert series.add(window(NOW - 7200, 1, boot="b2"), NOW + 2)
    assert [NOW, NOW + 1, NOW + 2] == series.document()["time"]


def test_a_clock_far_ahead_counts_for_nothing() -> None:
    series = Series()
    series.add(window(NOW + 86_400, 1), NOW)

    assert [NOW] == series.document()["time"]
