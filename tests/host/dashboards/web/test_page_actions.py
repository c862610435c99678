"""What the page may change, in a real browser: nothing without a token, and nothing that was not typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.end_to_end import browser
from tests.host.dashboards.web import feed, looking, stories

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.dashboards

_APPROVE = f".rollout[data-id='{stories.RUNNING}'] [data-deed=approve]"
_SUBMIT = "dialog[open] button[type=submit]"
#: As another browser would.
_PAUSE = f"""
fetch("api/rollouts/{stories.RUNNING}/pause", {{
  method: "POST",
  body: JSON.stringify({{ confirm: "{stories.RUNNING}" }}),
  headers: {{ "Content-Type": "application/json", Authorization: "Bearer {feed.TOKEN}" }},
}}).then((answer) => {{ window.answered = answer.status; }});
"""
_GONE = "!document.querySelector('dialog[open]')"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.opened(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def served(tmp_path: Path) -> Iterator[looking.Served]:
    with looking.served(tmp_path, boards=12, past=1) as (opened, _serving):
        yield opened


@pytest.fixture
def eyes(tab: browser.Browser, served: looking.Served) -> Iterator[looking.Eyes]:
    eyes = looking.Eyes(tab, served.address)
    yield eyes
    eyes.ask("sessionStorage.clear()")


def _unlock(eyes: looking.Eyes, token: str = feed.TOKEN) -> None:
    eyes.fill("#token-text", token)
    eyes.tab.click(_SUBMIT)


def test_a_page_without_a_token_file_has_no_buttons(tab: browser.Browser, tmp_path: Path) -> None:
    with looking.served(tmp_path, boards=4, token=None, past=1) as (opened, _serving):
        eyes = looking.Eyes(tab, opened.address)
        eyes.open()
        eyes.until("document.querySelector('.rollout')")

        buttons = "[...document.querySelectorAll('.deeds button, #token')]"
        assert eyes.ask(f"{buttons}.length") > 1
        assert not eyes.ask(f"{buttons}.some(each => each.checkVisibility())")


def test_a_wrong_token_is_refused_and_not_kept(eyes: looking.Eyes) -> None:
    eyes.open()
    eyes.tab.click("#token")

    _unlock(eyes, "not-the-right-token")

    assert "The dashboard refuses this token." == eyes.text("dialog .problem:not([hidden])")
    assert eyes.ask("sessionStorage.getItem('token') === null")
    eyes.tab.press("Escape")
    assert eyes.until(_GONE)
    assert "Read-only" == eyes.text("#token")


def test_a_token_is_kept_for_this_tab_until_it_is_given_back(eyes: looking.Eyes) -> None:
    eyes.open()
    eyes.tab.click("#token")
    _unlock(eyes)

    assert eyes.until(f"{_GONE} && document.getElementById('token').innerText === 'Changes allowed'")
    eyes.tab.click("#token")
    assert eyes.until("document.getElementById('token').innerText === 'Read-only'")
    assert eyes.ask("sessionStorage.getItem('token') === null && localStorage.getItem('token') === null")


def test_a_wave_is_approved_by_typing_the_rollouts_name(eyes: looking.Eyes, served: looking.Served) -> None:
    """The token is asked for first; then the wave begins, and the strip shows it."""
    eyes.open()
    assert "needs approval" == eyes.text(".wave:nth-child(2) .word")

    eyes.tab.click(_APPROVE)
    _unlock(eyes)
    eyes.until("document.querySelector('#confirm-text')")
    assert eyes.ask(f"document.querySelector('{_SUBMIT}').disabled")
    eyes.fill("#confirm-text", "digits")
    assert eyes.ask(f"document.querySelector('{_SUBMIT}').disabled")
    eyes.fill("#confirm-text", stories.RUNNING)
    eyes.tab.click(_SUBMIT)

    assert eyes.text("#toast").startswith("approve is written down")
    served.conductor.step()
    served.conductor.step()
    assert eyes.until("document.querySelector('.wave:nth-child(2) .word').innerText === 'pushing'")
    assert "1 of 1 serving" == eyes.text(".wave:nth-child(2) .figures")
    assert eyes.until(f'!document.querySelector("{_APPROVE}").checkVisibility()')
    assert [] == eyes.complaints()


def test_what_the_server_refuses_is_said(eyes: looking.Eyes) -> None:
    """Somebody else was faster: the dialog was open already when the rollout was paused."""
    eyes.open()
    eyes.until("document.querySelector('.rollout')")
    eyes.tab.click(f".rollout[data-id='{stories.RUNNING}'] [data-deed=pause]")
    _unlock(eyes)
    eyes.until("document.querySelector('#confirm-text')")
    eyes.tab.run(_PAUSE)
    assert 200 == eyes.until("window.answered")

    eyes.fill("#confirm-text", stories.RUNNING)
    eyes.tab.click(_SUBMIT)

    assert "paused" in eyes.text("dialog .problem:not([hidden])")


def test_a_board_is_asked_for_a_benchmark(eyes: looking.Eyes, served: looking.Served) -> None:
    eyes.open("#/boards/pi-002")
    eyes.until("document.querySelector('.board-head button').checkVisibility()")

    eyes.tab.click(".board-head button")
    _unlock(eyes)
    eyes.until("document.querySelector('#confirm-text')")
    eyes.fill("#confirm-text", "pi-002")
    eyes.tab.press("Enter")

    assert "pi-002 was asked for a benchmark." == eyes.text("#toast")
    assert ["pi-002"] == served.made.asked
