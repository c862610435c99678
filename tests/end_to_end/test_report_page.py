"""The report's page in a real browser: as wide as a phone, in light and in dark, without a word on the console."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end import browser
from tests.host.models.test_report import made
from tflotilla.host.models.report import pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.opened(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window_and_asks_for_nothing(
    width: int, scheme: Literal["light", "dark"], tab: browser.Browser, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text(pages.html(made()), encoding="utf-8")

    tab.show(page, width=width, scheme=scheme)

    assert tab.ask("document.documentElement.scrollWidth") <= width
    assert [] == tab.complaints()
    assert [page.as_uri()] == tab.requests()
    pixels = np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("L"))
    assert (pixels.mean() > 128) == (scheme == "light")
    assert pixels.std() > 10, "something is on it"
    assert tab.ask("document.querySelectorAll('svg text').length") > 10
