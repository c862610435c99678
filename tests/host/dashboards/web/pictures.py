"""Takes the pictures of the page that the documentation shows: `python -m tests.host.dashboards.web.pictures`.

The fleet is simulated, so nobody's boards are shown. Pictures go to docs/images/dashboard-*.png.
"""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

from PIL import Image

from tests.end_to_end import browser
from tests.host.dashboards.web import looking, stories

FOLDER = Path(__file__).resolve().parents[4] / "docs" / "images"
_BOARDS = 40
_PAST_WINDOWS = 120
_COLOURS = 128
#: Name → route, width, height, scheme, and what is there when it is drawn.
_TILES = "document.querySelectorAll('.tile .value').length > 100"
_CURVES = "document.querySelectorAll('.uplot').length === 2 && document.querySelector('.thumbnail:not([hidden])')"
_TABLE = "document.querySelector('main table tbody tr')"
_PICTURES = {
    "fleet": ("#/", 1280, 1180, "light", _TILES),
    "fleet-dark": ("#/?group=label%3Asite", 1280, 1180, "dark", _TILES),
    "board": ("#/boards/pi-003", 1280, 1500, "dark", _CURVES),
    "model": ("#/models/digits", 1280, 1200, "light", _TABLE),
    "rollout": (f"#/rollouts/{stories.HALTED}", 1280, 1200, "light", "document.querySelector('.wave')"),
    "benchmarks": ("#/benchmarks", 1280, 1200, "light", "document.querySelector('h1')"),
    "phone": ("#/", 390, 844, "dark", _TILES),
}


def take(folder: Path = FOLDER) -> list[Path]:
    """Write every picture; return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as kept:
        served = looking.served(Path(kept) / "page", boards=_BOARDS, past=_PAST_WINDOWS)
        (Path(kept) / "page").mkdir()
        with served as (page, _serving), browser.opened(Path(kept) / "browser") as tab:
            eyes = looking.Eyes(tab, page.address)
            for name, (route, width, height, scheme, drawn) in _PICTURES.items():
                page.speak()
                eyes.open(route, width=width, height=height, scheme="dark" if scheme == "dark" else "light")
                page.made.now.hear([page.board("pi-003").picture(time.time())])
                eyes.until(drawn)
                picture = folder / f"dashboard-{name}.png"
                picture.write_bytes(_small(tab.screenshot(whole=False)))
                written.append(picture)
    return written


def _small(png: bytes) -> bytes:
    """Fewer colours: a page has no need of millions."""
    written = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(_COLOURS).save(written, "PNG", optimize=True)
    return written.getvalue()


if __name__ == "__main__":
    for each in take():
        print(f"{each} {each.stat().st_size}")  # noqa: T201 - its only word
