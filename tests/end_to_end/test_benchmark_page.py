"""A benchmark's page in a real browser: as wide as a phone, in light and in dark, without a word on the console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from tests.end_to_end import browser
from tests.host.benchmarks import rich_runs
from tflotilla.host.benchmarks.rendering import forms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LUMINANCE = (
    "getComputedStyle(document.body).{}.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0)"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "benchmark.html"
    path.write_text(forms.render(rich_runs.full(), "html"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.opened(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (768, "light"), (1280, "dark")])
def test_the_page_fits_its_window_and_asks_for_nothing(
    width: int, scheme: Literal["light", "dark"], tab: browser.Browser, page: Path
) -> None:
    tab.show(page, width=width, scheme=scheme)
    tab.ask("document.querySelectorAll('details').forEach(each => { each.open = true })")

    assert tab.ask("document.documentElement.scrollWidth") <= width
    assert [] == tab.complaints()
    assert [page.as_uri()] == tab.requests()
    ground, ink = (tab.ask(_LUMINANCE.format(each)) for each in ("backgroundColor", "color"))
    assert (ground > ink) == (scheme == "light")
    assert abs(ground - ink) > 300, "words can be told from their ground"
    assert tab.ask("document.querySelectorAll('svg text').length") > 50


def test_every_plot_has_room_and_every_link_a_place(tab: browser.Browser, page: Path) -> None:
    tab.show(page, width=390, scheme="light")

    narrow = "[...document.querySelectorAll('svg')].filter(each => each.getBoundingClientRect().width < 250).length"
    assert tab.ask(narrow) == 0
    lost = "[...document.querySelectorAll('a')].filter(each => !document.querySelector(each.hash)).length"
    assert tab.ask(lost) == 0
    assert tab.ask("document.querySelectorAll('a').length") >= 4
