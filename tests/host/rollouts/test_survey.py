"""What is remembered of boards when nobody asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tflotilla.host.fleet.inventory import contacts
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.host.rollouts import survey
from tflotilla.shared.contract.errors import UnreachableError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    (tmp_path / "fleet.toml").write_text('name = "garden"\n[boards.pi-1]\nhost = "10.0.0.1"\n')
    return Fleet.load(tmp_path / "fleet.toml")


def test_a_board_of_which_nothing_is_known_is_not_held_to_be_off(fleet: Fleet) -> None:
    assert None is survey.remembered(["pi-1"], fleet)["pi-1"].error


def test_a_board_that_was_off_last_is_no_canary_of_a_plan_that_asks_nobody(fleet: Fleet) -> None:
    contacts.heard(fleet.state, "pi-1", "offline", at=1000.0)

    error = survey.remembered(["pi-1"], fleet)["pi-1"].error

    assert isinstance(error, UnreachableError)
    assert "pi-1 was off when it was tried or heard last" == str(error)


def test_a_board_that_came_back_since_is_there(fleet: Fleet) -> None:
    contacts.heard(fleet.state, "pi-1", "offline", at=1000.0)
    contacts.heard(fleet.state, "pi-1", "online", at=1001.0)

    assert None is survey.remembered(["pi-1"], fleet)["pi-1"].error


def test_each_of_many_boards_is_remembered_by_itself(fleet: Fleet) -> None:
    contacts.heard(fleet.state, "pi-1", "offline", at=1000.0)

    found = survey.remembered(["pi-2", "pi-1"], fleet)

    assert [("pi-2", False), ("pi-1", True)] == [(name, each.error is not None) for name, each in found.items()]
