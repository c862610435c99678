"""The page for everybody, in a real browser: phones, keyboards, screen readers, light and dark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from tests.end_to_end import browser
from tests.host.dashboards.web import looking, stories

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.dashboards

#: Each page's route, and what is there when it is drawn.
PAGES = {
    "#/": "document.querySelectorAll('.tile .value').length > 50",
    "#/boards/pi-003": "document.querySelectorAll('.uplot, .mix tbody tr').length > 8",
    "#/boards/pi-004": "document.querySelectorAll('.uplot').length === 2",
    "#/rollouts": "document.querySelectorAll('.rollout').length === 3",
    f"#/rollouts/{stories.RUNNING}": "document.querySelector('.wave')",
    "#/models": "document.querySelector('h1')",
    "#/benchmarks": "document.querySelector('h1')",
    "#/nowhere": "document.querySelector('h1')",
}
_FOCUSED = "document.activeElement.closest('.tile')?.dataset.board"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.opened(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[looking.Served]:
    with looking.served(tmp_path_factory.mktemp("page")) as (opened, _serving):
        yield opened


@pytest.fixture
def eyes(tab: browser.Browser, served: looking.Served) -> Iterator[looking.Eyes]:
    eyes = looking.Eyes(tab, served.address)
    yield eyes
    eyes.ask("localStorage.clear()")


@pytest.fixture(scope="module")
def axe() -> str:
    return looking.axe_script()


@pytest.mark.parametrize("route", PAGES)
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_pages_fit_their_window(eyes: looking.Eyes, route: str, width: int) -> None:
    eyes.open(route, width=width)
    eyes.until(PAGES[route])

    assert eyes.ask("document.documentElement.scrollWidth") <= width
    cut = "[...document.querySelectorAll('.tile > a')].filter(each => each.scrollHeight > each.clientHeight + 1).length"
    assert 0 == eyes.ask(cut)
    assert [] == eyes.complaints()


def test_an_address_that_is_none_still_tells_whether_the_dashboard_answers(eyes: looking.Eyes) -> None:
    eyes.open("#/nothing")

    assert "There is no such page" == eyes.text("h1")
    assert eyes.until("document.getElementById('link').dataset.state === 'live'")


@pytest.mark.parametrize("route", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong(eyes: looking.Eyes, axe: str, route: str, scheme: Literal["light", "dark"]) -> None:
    """Contrast, names, roles, headings, landmarks, and what else it knows."""
    eyes.open(route, scheme=scheme)
    eyes.until(PAGES[route])

    assert [] == eyes.violations(axe)


def test_axe_finds_nothing_wrong_with_dialogs(eyes: looking.Eyes, axe: str) -> None:
    eyes.open()
    eyes.tab.press("?")
    eyes.until("document.querySelector('dialog[open] dl.keys dt')")
    assert [] == eyes.violations(axe)
    eyes.tab.press("Escape")
    eyes.until("!document.querySelector('dialog')")
    eyes.tab.click("#token")
    eyes.until("document.querySelector('dialog[open]')")
    assert [] == eyes.violations(axe)
    eyes.tab.press("Escape")


def test_the_fleet_is_walked_by_keyboard(eyes: looking.Eyes) -> None:
    eyes.open("#/?sort=name")
    eyes.until("document.querySelectorAll('.tile .value').length")

    eyes.tab.press("j")
    eyes.tab.press("j")
    assert "pi-002" == eyes.ask(_FOCUSED)
    eyes.tab.press("k")
    assert "pi-001" == eyes.ask(_FOCUSED)
    assert eyes.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    eyes.tab.press("Enter")
    assert "#/boards/pi-001" == eyes.until("location.hash.startsWith('#/boards') && location.hash")
    eyes.until("document.querySelector('h1').innerText === 'pi-001'")
    eyes.tab.press("Escape")
    assert eyes.until("location.hash.startsWith('#/?') || location.hash === '#/'")


def test_the_first_stop_leads_past_the_head(eyes: looking.Eyes) -> None:
    eyes.open()
    eyes.tab.press("Tab")
    assert "Skip to the content" == eyes.ask("document.activeElement.innerText")
    eyes.tab.press("Enter")
    assert "main" == eyes.until("document.activeElement.id === 'main' && document.activeElement.id")
    assert eyes.ask("document.querySelectorAll('.tile').length > 0")


def test_single_keys_can_be_turned_off(eyes: looking.Eyes) -> None:
    """Who speaks to a browser would say them by accident."""
    eyes.open()
    eyes.tab.press("?")
    eyes.tab.click("#single-keys")
    eyes.tab.press("Escape")
    eyes.until("!document.querySelector('dialog')")

    eyes.tab.press("?")

    assert not eyes.ask("document.querySelector('dialog')")


def test_colours_follow_the_system_until_they_are_chosen(eyes: looking.Eyes) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    eyes.open(scheme="dark")
    dark = eyes.ask(ground)
    eyes.open(scheme="light")
    light = eyes.ask(ground)
    assert dark != light

    eyes.tab.press("t")
    eyes.tab.press("t")

    assert dark == eyes.until(f"{ground} !== '{light}' && {ground}")
    eyes.open(scheme="light")
    assert dark == eyes.ask(ground)
    assert "Dark" == eyes.text("#theme")


def test_the_state_of_the_fleet_is_spoken(eyes: looking.Eyes) -> None:
    eyes.open()

    assert eyes.until("document.getElementById('summary').textContent").startswith("26 boards: ")
    assert "polite" == eyes.ask("document.getElementById('summary').getAttribute('aria-live')")


def test_nothing_is_loaded_from_elsewhere(eyes: looking.Eyes, served: looking.Served) -> None:
    eyes.open("#/boards/pi-002")
    eyes.until("document.querySelectorAll('.uplot').length === 2")

    assert [] == [address for address in eyes.tab.requests() if not address.startswith(served.address)]
