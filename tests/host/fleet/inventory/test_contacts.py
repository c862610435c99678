"""What is remembered of boards."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.host.fleet.selection.test_selectors import _SERVED, _ZERO
from tflotilla.host.fleet.inventory import contacts
from tflotilla.host.fleet.inventory.contacts import Contact, Known
from tflotilla.shared.contract.errors import IdentityError, UnreachableError

if TYPE_CHECKING:
    from pathlib import Path

#: A board's facts without its cores.
_FACTS = (
    '"time": 0, "hostname": "pi", "model": null, "arch": "x", "kernel": "6", "libc": null, "python": "3.11.2", '
    '"ram_bytes": 1, "disk_free_bytes": 1, "distribution": null, "systemd": true, "user": "pi"'
)


def _try(state: Path, error: Exception | None, at: float) -> None:
    try:
        with contacts.noted(state, "pi", clock=lambda: at):
            if error is not None:
                raise error
    except (UnreachableError, IdentityError):
        pass


def test_a_board_is_seen_when_it_lets_us_in_and_tried_always(tmp_path: Path) -> None:
    _try(tmp_path, None, 10.0)
    seen = contacts.contact(tmp_path, "pi")
    _try(tmp_path, UnreachableError("pi can't\nbe reached"), 20.0)
    off = contacts.contact(tmp_path, "pi")
    _try(tmp_path, IdentityError("pi shows another host key"), 30.0)
    strange = contacts.contact(tmp_path, "pi")

    assert Contact(tried=10.0, reached=True, seen=10.0) == seen
    assert Contact(tried=20.0, reached=False, seen=10.0, reason="pi can't be reached") == off
    assert Contact(tried=30.0, reached=True, seen=10.0, reason="pi shows another host key") == strange
    assert (True, False, True) == (seen.online, off.online, strange.online)


def test_an_error_of_another_kind_says_nothing_of_the_board(tmp_path: Path) -> None:
    with pytest.raises(KeyError), contacts.noted(tmp_path, "pi"):
        raise KeyError

    assert Contact() == contacts.contact(tmp_path, "pi")


def test_whether_a_board_is_there_is_told_by_the_newest_that_is_known(tmp_path: Path) -> None:
    assert contacts.contact(tmp_path, "pi").online is None

    _try(tmp_path, UnreachableError("off"), 10.0)
    contacts.heard(tmp_path, "pi", "online", at=20.0)
    came = contacts.contact(tmp_path, "pi")
    contacts.heard(tmp_path, "pi", "offline", at=30.0)
    went = contacts.contact(tmp_path, "pi")
    _try(tmp_path, None, 40.0)

    assert (True, 20.0) == (came.online, came.seen)
    assert (False, 20.0) == (went.online, went.seen)
    assert contacts.contact(tmp_path, "pi").online is True


def test_facts_come_back_with_their_age_by_our_clock(tmp_path: Path) -> None:
    contacts.save_facts(tmp_path, "pi", _ZERO, at=77.0)

    assert _ZERO == contacts.facts(tmp_path, "pi")
    assert {"pi": Known(facts=_ZERO, asked_at=77.0), "other": Known()} == contacts.known(tmp_path, ["pi", "other"])


def test_facts_of_before_ages_were_kept_are_as_old_as_their_file(tmp_path: Path) -> None:
    contacts.save_facts(tmp_path, "pi", _ZERO, at=77.0)
    path = tmp_path / "facts" / "pi.json"
    path.write_text(path.read_text().replace('"asked_at":77.0,', ""))
    os.utime(path, (50, 50))

    assert Known(facts=_ZERO, asked_at=50.0) == contacts.known(tmp_path, ["pi"])["pi"]


def test_a_bundle_that_came_into_service_is_remembered_with_the_one_before(tmp_path: Path) -> None:
    contacts.now_serves(tmp_path, "pi", _SERVED.digest, _SERVED)
    contacts.now_serves(tmp_path, "pi", "f" * 64)
    unknown = contacts.contact(tmp_path, "pi")
    contacts.now_serves(tmp_path, "pi", _SERVED.digest)
    back = contacts.contact(tmp_path, "pi")

    assert (None, _SERVED) == (unknown.serving, unknown.previous)
    assert (_SERVED, None) == (back.serving, back.previous)


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"arch": 1}',
        '{"serving": {"x": 1}}',
        '{"serving": 3}',
        "\0" * 99,
        '{"heard": [], "tried": 1.5}',
        '{"seen": "today", "agent": 5}',
        '{"serving": {"digest": 1, "name": "digits", "version": "1.0.0", "release": 1}}',
        f'{{{_FACTS}, "cores": "two"}}',
        f'{{{_FACTS}, "cores": 2, "runtimes": [3]}}',
        f'{{{_FACTS}, "cores": 2, "runtimes": [{{"name": "tflite-runtime", "version": 2}}]}}',
    ],
)
def test_what_cant_be_read_is_as_good_as_never_learnt(tmp_path: Path, damage: str) -> None:
    for folder in ("facts", "contacts"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pi.json").write_text(damage)

    assert contacts.facts(tmp_path, "pi") is None
    assert Contact() == contacts.contact(tmp_path, "pi")
    known = contacts.known(tmp_path, ["pi"])["pi"]
    assert (Contact(), None) == (known.contact, known.facts)


def test_what_cant_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "contacts").touch()
    (tmp_path / "facts").touch()

    contacts.note(tmp_path, "pi", tried=1.0)
    contacts.save_facts(tmp_path, "pi", _ZERO, at=1.0)

    assert Contact() == contacts.contact(tmp_path, "pi")
