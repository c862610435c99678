"""The fleet's page in a real browser: tiles, filter, groups, what changes, and what is old."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.end_to_end import browser
from tests.host.dashboards.web import feed, looking, simulated
from tflotilla.host.fleet.selection import selectors
from tflotilla.host.telemetry.inbox import Received
from tflotilla.shared.contract import messages, topics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.dashboards

BOARDS = 24
_TITLES = "[...document.querySelectorAll('.group h3')]"
_NAMES = "[...document.querySelectorAll('.tile')].map(each => each.dataset.board)"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.opened(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[looking.Served, looking.Serving]]:
    with looking.served(tmp_path_factory.mktemp("page"), boards=BOARDS) as opened:
        yield opened


@pytest.fixture
def served(page: tuple[looking.Served, looking.Serving]) -> looking.Served:
    return page[0]


@pytest.fixture
def eyes(tab: browser.Browser, served: looking.Served) -> looking.Eyes:
    return looking.Eyes(tab, served.address)


def _tile(board: str) -> str:
    return f".tile[data-board={board}]"


def test_every_board_is_a_tile_and_what_hurts_stands_first(eyes: looking.Eyes) -> None:
    """With its status as a word; one that never spoke and one that is in no inventory are tiles, too."""
    eyes.open()

    names = eyes.until(f"document.querySelectorAll('.tile .value').length && {_NAMES}")

    assert {*simulated.names(BOARDS), "pi-new", "stranger"} == set(names)
    assert ["pi-008", "pi-004"] == names[:2]
    assert "its model does not run: worker died 5 times in 60 s (SIGSEGV)" == eyes.text(f"{_tile('pi-008')} .why")
    assert "failing" == eyes.text(f"{_tile('pi-008')} .word")
    assert "unknown" == eyes.text(f"{_tile('pi-new')} .word")
    assert ["\N{EN DASH}"] * 4 == eyes.texts(f"{_tile('pi-new')} .value")
    assert [] == eyes.complaints()


@pytest.mark.parametrize(
    "expression",
    [
        "all",
        "pi-007",
        "pi-00*",
        "pi-001,pi-002 !pi-002",
        "room=kitchen",
        "room=kit*,gen=4",
        "gen!=4",
        "pi-*,room=kitchen,!pi-001",
        "site=lab and (room=roof or room=hall)",
        "not site=lab",
        'room="kitchen" or pi-01[0-3]',
        "pi-0[!0]*",
        "name=pi-02? and not not gen=4",
        "!room=kitchen",
    ],
)
def test_the_filter_picks_what_the_command_line_picks(eyes: looking.Eyes, expression: str) -> None:
    labels = {name: simulated.labels(number) for number, name in enumerate([*simulated.names(BOARDS), "pi-new"])}
    boards = {**labels, "stranger": {}}
    eyes.open(f"#/?sort=name&filter={quote(expression)}")

    shown = eyes.until(f"document.querySelectorAll('.tile .value').length && {_NAMES}")

    assert sorted(selectors.select(expression, boards)) == sorted(shown)
    assert "" == eyes.ask("document.getElementById('filter-problem').textContent")


def test_the_filter_narrows_while_one_types_and_stands_in_the_address(eyes: looking.Eyes) -> None:
    eyes.open()
    eyes.until("document.querySelectorAll('.tile .value').length")

    eyes.tab.press("/")
    eyes.tab.write("00")

    assert 9 == eyes.until(
        "document.querySelectorAll('.tile').length < 20 && document.querySelectorAll('.tile').length"
    )
    assert "#/?filter=00" == eyes.ask("location.hash")
    eyes.tab.press("Escape")
    assert BOARDS + 2 == eyes.until(
        "document.querySelectorAll('.tile').length > 20 && document.querySelectorAll('.tile').length"
    )


def test_a_filter_that_cannot_be_read_says_so_and_hides_nothing(eyes: looking.Eyes) -> None:
    eyes.open()
    eyes.until("document.querySelectorAll('.tile .value').length")

    eyes.fill("#filter", "colour=red")

    assert "no board has a label 'colour'" == eyes.text("#filter-problem")
    assert "true" == eyes.ask("document.getElementById('filter').getAttribute('aria-invalid')")
    assert BOARDS + 2 == eyes.ask("document.querySelectorAll('.tile').length")


def test_boards_are_grouped_by_label(eyes: looking.Eyes) -> None:
    eyes.open()
    eyes.until("document.querySelectorAll('.tile .value').length")

    eyes.choose("select[name=group]", "label:site")

    titles = eyes.until(f"{_TITLES}.length === 4 && {_TITLES}.map(each => each.innerText.split(' · ')[0])")
    assert ["site=lab", "site=north", "site=south", "no site"] == titles
    first = eyes.ask(
        "[...document.querySelectorAll('.group')[0].querySelectorAll('.tile')].map(each => each.dataset.board)"
    )
    assert {"lab"} == {simulated.labels(int(name.removeprefix("pi-")) - 1)["site"] for name in first}


def test_a_count_filters_by_its_status(eyes: looking.Eyes) -> None:
    eyes.open()
    eyes.until("document.querySelectorAll('.count').length > 2")

    eyes.ask("[...document.querySelectorAll('.count')].find(each => each.innerText.includes('throttled')).click()")

    assert ["pi-012"] == eyes.until(f"document.querySelectorAll('.tile').length === 1 && {_NAMES}")


def test_a_tile_lives(eyes: looking.Eyes, served: looking.Served) -> None:
    """A new window is on the page within a look or two of the server."""
    eyes.open("#/?sort=name")
    before = eyes.text(f"{_tile('pi-002')} .p99")

    served.speak("pi-002")

    assert eyes.until(f"document.querySelector('{_tile('pi-002')} .p99').innerText !== {json.dumps(before)}")


def test_a_board_that_leaves_is_greyed_with_its_age(eyes: looking.Eyes, served: looking.Served) -> None:
    eyes.open("#/?sort=name")
    served.speak("pi-005")
    eyes.until(f"document.querySelector('{_tile('pi-005')} .word').innerText === 'online'")
    gone = messages.Message(
        board="pi-005", boot="boot-1", seq=0, time=0.0, bundle=None, body=messages.Availability(status="offline")
    )

    topic = topics.topic(feed.FLEET, "pi-005", "availability")
    served.made.now.hear([Received(topic=topic, payload=gone.to_bytes(), at=served.made.now.time(), retained=True)])

    assert eyes.until(f"document.querySelector('{_tile('pi-005')} .word').innerText === 'offline'")
    assert eyes.ask(f"document.querySelector('{_tile('pi-005')}').hasAttribute('data-old')")
    assert eyes.text(f"{_tile('pi-005')} .age").startswith("as of ")


def test_words_of_boards_are_never_markup(eyes: looking.Eyes, served: looking.Served) -> None:
    eyes.open("#/boards/pi-001")
    served.speak("pi-001")

    assert eyes.until("[...document.querySelectorAll('.mix tbody th')].some(each => each.innerText === '<b>nine</b>')")
    assert 0 == eyes.ask("document.querySelectorAll('.mix b, .answers b').length")


def test_without_the_broker_the_page_says_that_figures_are_old(eyes: looking.Eyes, served: looking.Served) -> None:
    eyes.open()
    assert "live" == eyes.text("#link-word")

    served.made.now.connection(connected=False, reason="connection refused")

    assert "no broker" == eyes.until(
        "document.body.classList.contains('is-stale') && document.getElementById('link-word').innerText"
    )
    expected = "The dashboard does not hear the broker (connection refused): figures are old until it does."
    assert expected == eyes.text("#stale")
    served.made.now.connection(connected=True)
    assert eyes.until("!document.body.classList.contains('is-stale')")


def test_a_thousand_tiles_are_drawn_only_in_sight(tab: browser.Browser, tmp_path: Path) -> None:
    """All can be found by name; their figures come when they come into sight."""
    with looking.served(tmp_path, boards=1000, past=1) as (served, _serving):
        eyes = looking.Eyes(tab, served.address)
        eyes.open("#/?sort=name")
        eyes.until("document.querySelectorAll('.tile').length === 1002")

        drawn = "[...document.querySelectorAll('.tile')].filter(each => each.querySelector('.value')).length"
        assert eyes.until(drawn) < 200
        assert "pi-990" == eyes.ask(f"document.querySelector('{_tile('pi-990')}').textContent")
        eyes.ask(f"document.querySelector('{_tile('pi-990')}').scrollIntoView()")
        assert eyes.until(f"document.querySelectorAll('{_tile('pi-990')} .value').length") == 4
        assert eyes.ask(drawn) < 400


def test_a_server_that_is_gone_makes_the_page_stale_until_it_is_back(
    eyes: looking.Eyes, page: tuple[looking.Served, looking.Serving]
) -> None:
    eyes.open()
    page[1].end()

    said = eyes.until("document.body.classList.contains('is-stale') && document.getElementById('stale').innerText")

    page[1].again()
    assert said.startswith("No news from the dashboard for ")
    assert eyes.until("!document.body.classList.contains('is-stale') && document.getElementById('stale').hidden")
