"""Plots: the same bytes every time, at home in any page, and honest about what can't be drawn."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from tflotilla.host.models import plots
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def _kinds() -> dict[str, plots.Plot]:
    series = plots.Series(name="int8 <&>", x=(1.0, 2.0, 5.0), y=(0.5, math.nan, 0.9))
    points = [
        plots.Point(label="float32", x=3.0, y=0.97, group="litert", size=100.0, highlight=True),
        plots.Point(label="nowhere", x=math.nan, y=0.9, group="litert", size=10.0),
    ]
    return {
        "bars": plots.bars(labels=["a <b>", "b"], values=[1.0, math.inf], title="Bars & more", value_label="dB"),
        "lines": plots.lines(series=[series, series], title="Lines", x_label="x", y_label="y", log_x=True),
        "scatter": plots.scatter(points=points, title="S", x_label="x", y_label="y", front=[(3.0, 0.97)], log_x=True),
        "histogram": plots.histogram(
            values=[1.0, 2.0, 2.0, math.nan], title="H", value_label="v", marks=[("max", 2.0)]
        ),
        "nothing": plots.bars(labels=[], values=[], title="None", value_label="v"),
    }


@pytest.mark.parametrize("kind", ["bars", "lines", "scatter", "histogram", "nothing"])
def test_a_plot_is_the_same_every_time_and_takes_nothing_from_elsewhere(kind: str) -> None:
    first, again = _kinds()[kind].svg(), _kinds()[kind].svg()

    assert first == again
    ET.fromstring(first)  # noqa: S314 - our own bytes; well-formed or an error
    assert [] == [found for found in re.findall(r'(?:href|src)="([^"]*)"', first) if not found.startswith("#")]
    assert [] == re.findall(r"url\((?!#)", first)
    assert "viewBox=" in first
    assert " width=" not in first[: first.index(">")], "it scales"


def test_texts_are_escaped() -> None:
    svg = _kinds()["bars"].svg()

    assert "a &lt;b&gt;" in svg
    assert "Bars &amp; more" in svg
    assert "<b>" not in svg


def test_two_plots_of_one_page_share_no_id() -> None:
    plot = _kinds()["scatter"]
    one, other = (set(re.findall(r' id="([^"]+)"', plot.svg(name=name))) for name in ("1", "2"))

    assert set() == one & other


def test_a_plot_is_written_by_its_suffix(tmp_path: Path) -> None:
    plot = _kinds()["lines"]
    plot.save(tmp_path / "p.svg")
    plot.save(tmp_path / "p.png")

    assert (tmp_path / "p.svg").read_text().startswith("<svg")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match=r"written as \.svg or \.png"):
        plot.save(tmp_path / "p.pdf")
