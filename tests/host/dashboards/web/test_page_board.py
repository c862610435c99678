"""A board's page in a real browser: curves, answers, mixes, what runs, what happened."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end import browser
from tests.host.benchmarks import answers
from tests.host.dashboards.web import feed, looking
from tflotilla.host.telemetry import decoding
from tflotilla.host.telemetry.inbox import Received
from tflotilla.shared.contract import topics
from tflotilla.shared.contract.messages import LabelCount, Message

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.dashboards

_DRAWN = "document.querySelectorAll('.uplot').length === 2 && document.querySelectorAll('.stages tbody tr').length"
_COUNT = "Number(document.querySelector('.stages tbody td').innerText.replace(',', ''))"
_FACTS = """
Object.fromEntries([...document.querySelectorAll(".facts > div")].map(
  (each) => [each.firstChild.innerText, each.lastChild.innerText]))
"""
_PIXELS = "document.querySelector('.thumbnail canvas').getContext('2d').getImageData(0, 0, 96, 96).data"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.opened(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[looking.Served]:
    with looking.served(tmp_path_factory.mktemp("page")) as (opened, _serving):
        yield opened


@pytest.fixture
def eyes(tab: browser.Browser, served: looking.Served) -> looking.Eyes:
    return looking.Eyes(tab, served.address)


def test_a_board_is_opened_from_its_tile(eyes: looking.Eyes) -> None:
    eyes.open("#/?sort=name")
    eyes.until("document.querySelectorAll('.tile .value').length")

    eyes.tab.click(".tile[data-board=pi-002] > a")

    assert eyes.until("document.querySelector('h1').innerText === 'pi-002'")
    assert eyes.until("document.title.startsWith('pi-002')")
    assert 5 == eyes.until(_DRAWN)
    assert ["decode", "preprocess", "invoke", "postprocess", "total"] == eyes.texts(".stages tbody th")
    assert [] == eyes.complaints()


def test_curves_sums_and_answers_go_on_while_the_board_speaks(eyes: looking.Eyes, served: looking.Served) -> None:
    eyes.open("#/boards/pi-002")
    eyes.until(_DRAWN)
    eyes.ask("document.querySelectorAll('.figures-of').forEach(each => { each.open = true })")
    before = eyes.ask(_COUNT)
    newest = eyes.until("document.querySelector('.figures-of tbody tr th')?.innerText")
    answered = eyes.text(".answers li .item")

    served.speak("pi-002")

    assert eyes.until(f"{_COUNT} === {before + 20}")
    assert eyes.until(f"document.querySelector('.figures-of tbody tr th').innerText !== '{newest}'")
    assert eyes.until(f"document.querySelector('.answers li .item').innerText !== '{answered}'")


def test_the_stream_of_answers_can_be_stopped_to_be_read(eyes: looking.Eyes, served: looking.Served) -> None:
    eyes.open("#/boards/pi-002")
    served.speak("pi-002")
    eyes.until("document.querySelectorAll('.answers li').length > 3")
    eyes.ask("document.querySelector('.stream .buttons button').click()")
    before = eyes.texts(".answers .item")

    served.speak("pi-002")

    assert eyes.until("/Go on \\(\\d+ newer\\)/.test(document.querySelector('.stream .buttons button').innerText)")
    assert before == eyes.texts(".answers .item")


def test_every_bar_stands_beside_its_figure_and_its_reference(eyes: looking.Eyes) -> None:
    eyes.open("#/boards/pi-002")
    eyes.until("document.querySelectorAll('.mix tbody tr').length === 10")

    assert ["Label", "Bar", "Share", "Reference", "Mean score", "Count"] == [
        word.strip() for word in eyes.texts(".mix thead th")
    ]
    marks = "[...document.querySelectorAll('.meter .mark')]"
    assert 10 == eyes.ask(f"{marks}.filter(each => each.style.left === '10%').length")
    assert 10 == eyes.ask("document.querySelectorAll('.histogram li').length")
    said = eyes.ask("document.querySelector('.histogram li:last-child').innerText")
    assert said.startswith("Scores of 90 to 100 %: ")


def test_a_delegate_that_is_not_active_is_said(eyes: looking.Eyes) -> None:
    eyes.open("#/boards/pi-003")
    eyes.until("document.querySelectorAll('.facts > div').length > 20")

    facts = eyes.ask(_FACTS)

    assert "libedgetpu.so.1" == facts["Delegate requested"]
    assert "none (not what was requested)" == facts["Delegate active"]
    assert "no device found" == facts["Why"]
    assert "95.7\N{NARROW NO-BREAK SPACE}% (float 96.2\N{NARROW NO-BREAK SPACE}%)" == facts["Accuracy"]
    assert "Raspberry Pi 4 Model B Rev 1.4" == facts["Machine"]


def test_deployments_are_told_with_how_they_ended(eyes: looking.Eyes) -> None:
    eyes.open("#/boards/pi-014")

    told = eyes.text(".deployments li")

    assert "rolled back" in told
    assert "digits-2.0.0" in told
    assert "p99 is 6.2 times that of the bundle before: ProbeError" in told


def test_a_board_that_is_away_shows_no_old_figure_as_new(eyes: looking.Eyes) -> None:
    eyes.open("#/boards/pi-004")

    assert "Figures are as of 2\N{NARROW NO-BREAK SPACE}h ago." == eyes.text(".old")
    assert eyes.until("document.querySelector('.page').classList.contains('is-old')")
    assert "Nothing was measured yet." == eyes.text(".readout")


def test_what_the_board_looked_at_is_drawn(eyes: looking.Eyes, served: looking.Served) -> None:
    """Onto a canvas; it is not loaded from anywhere."""
    eyes.open("#/boards/pi-002")
    eyes.until(_DRAWN)

    served.made.now.hear([served.board("pi-002").picture(time.time())])

    assert eyes.until("document.querySelector('.thumbnail:not([hidden]) canvas')?.width === 96")
    assert eyes.ask(f"new Set({_PIXELS}).size") > 20
    assert all(address.startswith(served.address) for address in eyes.tab.requests())


def test_what_was_measured_on_request_is_told(eyes: looking.Eyes, served: looking.Served) -> None:
    eyes.open("#/boards/pi-002")
    assert "None was heard of" in eyes.text(".card.benchmark .soft")
    body = answers.report(board="pi-002")
    said = Message(board="pi-002", boot="boot-1", seq=9000, time=time.time(), bundle=None, body=body)
    topic = topics.topic(feed.FLEET, "pi-002", "benchmark")

    served.made.now.hear([Received(topic=topic, payload=said.to_bytes(), at=time.time())])

    assert eyes.until("document.querySelector('.card.benchmark dl').innerText.includes('valid')")
    facts = eyes.ask(_FACTS)
    assert ("700", "25.3\N{NARROW NO-BREAK SPACE}µs") == (facts["Invokes"], facts["p50, invoke"])


@pytest.mark.parametrize("width", [1280, 360])
def test_a_label_without_an_end_does_not_widen_the_page(eyes: looking.Eyes, served: looking.Served, width: int) -> None:
    label = LabelCount(label="A" * 5000, count=9000, mean_score=0.5)
    window = next(each for each in served.board("pi-006").window(time.time()) if each.topic.endswith("/metrics"))
    said = decoding.understood(window.topic, window.payload)
    assert said is not None
    body = dataclasses.replace(said.body, labels=(label,))
    payload = dataclasses.replace(said, body=body, seq=9000 + width).to_bytes()
    served.made.now.hear([dataclasses.replace(window, payload=payload)])

    eyes.open("#/boards/pi-006", width=width)

    assert eyes.until("document.querySelector('.mix tbody th')?.innerText.length === 201")
    assert eyes.ask("document.documentElement.scrollWidth") <= width


def test_a_board_that_nobody_knows_is_said_to_be_unknown(eyes: looking.Eyes) -> None:
    eyes.open("#/boards/nobody")

    assert "no board 'nobody'" == eyes.text(".page > .problem")


def test_a_percentile_and_a_stage_can_be_chosen(eyes: looking.Eyes) -> None:
    eyes.open("#/boards/pi-002")
    eyes.until(_DRAWN)
    eyes.ask("document.querySelectorAll('.figures-of').forEach(each => { each.open = true })")
    p99 = eyes.until("document.querySelector('.latency .figures-of tbody td')?.innerText")

    eyes.tab.click(".segments label:first-of-type span")
    eyes.tab.click(".stages tbody tr:first-child input")

    assert eyes.until(f"document.querySelector('.latency .figures-of tbody td').innerText !== '{p99}'")
    assert not eyes.ask("document.querySelector('.stages tbody tr:first-child input').checked")
    assert [] == eyes.complaints()
