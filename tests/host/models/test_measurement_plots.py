"""Plots of measurements: the same bytes every time, the ideal beside what was reached, nothing that isn't a number."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from tflotilla.host.models import measurement_plots, plots

LINE = plots.Series(name="int8 <&>", x=(1.0, 2.0, 4.0), y=(1.0, 1.7, 2.2))


def _kinds(line: plots.Series = LINE) -> dict[str, plots.Plot]:
    warm = plots.Series(name="temperature", x=(0.0, 5.0), y=(48.0, 71.0))
    return {
        "cumulative": measurement_plots.cumulative(series=[line], title="C & D", x_label="ms"),
        "scaling": measurement_plots.scaling(series=[line], title="S"),
        "over_time": measurement_plots.over_time(
            series=[line],
            title="T",
            y_label="ms",
            other=[warm],
            other_label="°C",
            marks=[measurement_plots.Mark(name="cold", y=1.2), measurement_plots.Mark(name="nowhere", y=math.inf)],
        ),
        "dots": measurement_plots.over_time(series=[line], title="T", y_label="ms", dots=True),
    }


def _words(plot: plots.Plot) -> list[str]:
    root = ET.fromstring(plot.svg())  # noqa: S314 - our own bytes; well-formed or an error
    return ["".join(each.itertext()).strip() for each in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("kind", _kinds())
def test_a_plot_is_the_same_every_time_and_escapes_what_it_shows(kind: str) -> None:
    svg = _kinds()[kind].svg()

    assert svg == _kinds()[kind].svg()
    assert "<&>" not in svg
    assert [] == [found for found in re.findall(r'(?:href|src)="([^"]*)"', svg) if not found.startswith("#")]


@pytest.mark.parametrize("kind", _kinds())
@pytest.mark.parametrize("values", [(), (math.nan,), (math.inf,), (-1.0,), (0.0,)])
def test_what_can_not_be_drawn_is_left_out(kind: str, values: tuple[float, ...]) -> None:
    svg = _kinds(plots.Series(name="none", x=values, y=values))[kind].svg()

    ET.fromstring(svg)  # noqa: S314 - our own bytes
    assert "NaN" not in svg
    assert "nan" not in re.findall(r' d="([^"]*)"', svg)


def test_scaling_shows_what_would_be_ideal_and_only_numbers_of_threads_that_were_tried() -> None:
    words = _words(_kinds()["scaling"])

    assert "ideal" in words
    assert ["1", "2", "4"] == [word for word in words if word in {"1", "2", "3", "4"}][:3]
    assert "times as fast" in words


def test_temperature_has_a_scale_and_a_name_of_its_own() -> None:
    words = _words(_kinds()["over_time"])

    assert {"°C", "temperature", "ms", "cold"} <= set(words)
    assert "nowhere" not in words


def test_two_lines_differ_by_more_than_colour() -> None:
    many = [plots.Series(name=f"n{n}", x=(1.0, 2.0), y=(1.0, 1.0 + n)) for n in range(8)]
    looks = [measurement_plots._style(number) for number in range(len(many))]

    assert all(one != other for one, other in pairwise(looks))
    assert looks[0] != looks[6], "the colours begin again, the dashes don't"
    assert {f"n{n}" for n in range(8)} <= set(_words(measurement_plots.scaling(series=many, title="S")))
