"""Versions side by side, runs held against each other, one rollout whole: in a real browser."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end import browser
from tests.host.dashboards.web import looking

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.dashboards

_ROLLED_BACK = "#/rollouts/digits-1.9.0-22bb"
_ROUTES = ["#/models", "#/models/digits", "#/benchmarks", _ROLLED_BACK, "#/rollouts"]
_DRAWN = "document.querySelector('main tbody tr') || document.querySelector('main .rollout')"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.opened(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[looking.Served]:
    with looking.served(tmp_path_factory.mktemp("page"), boards=24) as (opened, _serving):
        yield opened


@pytest.fixture
def eyes(tab: browser.Browser, served: looking.Served) -> looking.Eyes:
    return looking.Eyes(tab, served.address)


def _row(eyes: looking.Eyes, card: str, head: str) -> list[str]:
    """The cells of a table's row, by its head, within the card of that name."""
    picked = json.dumps(f"[aria-label={card!r}] tbody tr")
    rows = f"document.querySelectorAll({picked})"
    found: list[str] = eyes.until(
        f"[...{rows}].map(row => [...row.children].map(cell => cell.innerText)).find(cells => cells[0] === {head!r})"
    )
    return found


def test_versions_of_a_model_stand_side_by_side(eyes: looking.Eyes) -> None:
    """What each costs over all its boards, what it scored where it was made, how far it drifted from there."""
    eyes.open("#/models/digits")

    version = _row(eyes, "Versions", "2.0.0")

    assert ["2", "int8"] == version[1:3]
    assert "96.9\N{NARROW NO-BREAK SPACE}%" == version[7]
    assert version[9].endswith("ms")
    assert version[12].startswith("PSI ")
    assert ["2.0.0", "1.0.0"] == [
        text.split(" ")[0] for text in eyes.texts("[aria-label='Label mix'] .side-by-side h3")
    ]
    assert [] == eyes.complaints()


def test_latencies_of_a_stage_can_be_chosen(eyes: looking.Eyes) -> None:
    eyes.open("#/models/digits")
    total = _row(eyes, "Latency over all boards", "2.0.0")

    eyes.ask("document.querySelector('input[value=decode]').click()")

    assert total[2] != _row(eyes, "Latency over all boards", "2.0.0")[2]


def test_figures_of_versions_follow_what_boards_say(eyes: looking.Eyes, served: looking.Served) -> None:
    eyes.open("#/models/digits")
    before = _row(eyes, "Versions", "2.0.0")[5]

    served.speak()

    assert eyes.until(
        "[...document.querySelectorAll('[aria-label=Versions] tbody tr')]"
        f".some(row => row.children[0].innerText === '2.0.0' && row.children[5].innerText !== {before!r})"
    )


def test_a_model_that_nobody_serves_is_said_to_be_none(eyes: looking.Eyes) -> None:
    eyes.open("#/models/cats")

    assert eyes.until(
        "document.querySelector('main p.soft:not([hidden])')?.innerText.startsWith('No board has reported cats')"
    )


def test_two_runs_are_held_against_each_other(eyes: looking.Eyes) -> None:
    """The newest against the one before, each pair with its ratio, interval, verdict, and a curve of each run."""
    eyes.open("#/benchmarks")

    card = "section.card[aria-label^='pi-001']"
    assert "regression" in eyes.text(f"{card} h2")
    assert eyes.until(f"document.querySelector({json.dumps(card + ' canvas')}) !== null")
    assert ["p50", "p90", "p99", "Rate", "Memory"] == eyes.texts(f"{card}:first-child tbody th")
    assert [] == eyes.complaints()


def test_which_runs_are_compared_can_be_chosen_and_stands_in_the_address(eyes: looking.Eyes) -> None:
    eyes.open("#/benchmarks")
    eyes.until("document.querySelector('main .served')?.innerText.includes('candidate')")
    main = eyes.ask("[...document.querySelectorAll('select')[1].options].find(o => o.text.startsWith('main')).value")

    eyes.choose("select[aria-label='New run']", main)

    assert eyes.until("document.querySelector('main .served').innerText.startsWith('main')")
    assert eyes.ask(f"location.hash.includes({main!r})")


def test_one_rollout_shows_what_its_gates_saw(eyes: looking.Eyes) -> None:
    """What broke its limit stands first, with board and figures; who did what stands below."""
    eyes.open(_ROLLED_BACK)

    gate = eyes.until(
        "[...(document.querySelector('[aria-label=Gates] tbody tr')?.children ?? [])].map(e => e.innerText)"
    )

    assert ["1", "latency", "pi-001"] == gate[:3]
    assert "at most ×1.5" in gate[3]
    assert "failed" == gate[4].strip()
    assert "undone" == eyes.texts("[aria-label=Boards] tbody tr:first-child .word")[0]
    assert "anna@desk" in eyes.text("[aria-label='Who did what'] tbody")


@pytest.mark.parametrize("route", _ROUTES)
def test_a_phone_needs_no_scrolling_sideways(eyes: looking.Eyes, route: str) -> None:
    eyes.open(route, width=360)
    eyes.until(_DRAWN)

    assert eyes.ask("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("route", _ROUTES)
def test_a_screen_reader_finds_nothing_amiss(eyes: looking.Eyes, route: str, scheme: str) -> None:
    axe = looking.axe_script()
    eyes.open(route, scheme="dark" if scheme == "dark" else "light")
    eyes.until(_DRAWN)

    assert [] == eyes.violations(axe)
