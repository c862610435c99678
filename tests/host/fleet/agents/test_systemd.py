"""A system-wide agent on a board that a real systemd boots: installed, changed for another, undone, over a reboot."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests import brokers, systemd
from tflotilla.host.fleet import push
from tflotilla.host.fleet.agents import bootstrap
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.shared.contract import layout
from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.brokers import Mosquitto
    from tests.sshd import Sshd
    from tests.systemd import Booted

pytestmark = [pytest.mark.sshd, pytest.mark.mosquitto, pytest.mark.fleet]

_WINDOW_S = 8.0
_WATCHING = "waiting for the new agent to report; else the old one comes back"


class HostDiedError(Exception):
    """The host is gone from here on."""


@pytest.fixture
def booted(tmp_path: Path, board: Sshd) -> Iterator[list[Booted]]:
    """Have `board` run on a system that systemd booted."""
    with systemd.running(tmp_path / "system") as boards:
        _log_in_on(board, boards[-1])
        yield boards
        board.stop()


def _log_in_on(board: Sshd, booted: Booted) -> None:
    board.stop()
    board.inside = booted.inside
    board.start()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with brokers.mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def installed(booted: list[Booted], warm: Sshd, fleet: Fleet, broker: Mosquitto) -> Fleet:
    """Return a fleet whose board has a system-wide agent, from which the broker took a report."""
    booted[-1].home.mkdir(mode=0o700)
    there = warm.home / layout.USER_HOME / layout.ENVIRONMENTS
    shutil.copytree(there, booted[-1].home / layout.ENVIRONMENTS, symlinks=True)
    text = fleet.path.read_text().replace('install = "user"', 'install = "system"')
    fleet.path.write_text(text)
    good = _with_broker(fleet, broker.port)
    bootstrap.bootstrap("pi-1", good)
    brokers.until(lambda: _reports(good), "the first agent to report")
    return good


def _with_broker(fleet: Fleet, port: int) -> Fleet:
    text = fleet.path.read_text().partition("\n[mqtt]")[0]
    fleet.path.write_text(f'{text}\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n')
    return Fleet.load(fleet.path)


def _reports(fleet: Fleet) -> bool:
    state = push.status("pi-1", fleet).state
    return state is not None and bool(state.reporting)


def _plan(booted: Booted) -> dict[str, object]:
    plan: dict[str, object] = json.loads((booted.home / layout.UPGRADE / "plan.json").read_text())
    return plan


def test_a_system_wide_agent_is_a_unit_that_is_enabled_and_a_second_bootstrap_leaves_it_alone(
    booted: list[Booted], installed: Fleet
) -> None:
    board = booted[-1]
    before = board.systemctl("show", "-p", "MainPID", "--value", layout.SYSTEMD_UNIT)

    done = bootstrap.bootstrap("pi-1", installed)

    assert done.home == layout.SYSTEM_HOME
    assert board.systemctl("is-enabled", layout.SYSTEMD_UNIT) == "enabled"
    assert board.systemctl("is-active", layout.SYSTEMD_UNIT) == "active"
    assert done.changed == ()
    assert board.systemctl("show", "-p", "MainPID", "--value", layout.SYSTEMD_UNIT) == before


def test_one_that_does_not_report_is_undone_by_a_unit_of_its_own_even_when_that_is_killed(
    booted: list[Booted], installed: Fleet, broker: Mosquitto
) -> None:
    board = booted[-1]

    def kill(text: str) -> None:
        if text == _WATCHING:
            board.systemctl("kill", "--signal=KILL", layout.UPGRADE_UNIT)

    with pytest.raises(BoardError, match=r"the broker took no report of it.*; the old one runs again"):
        bootstrap.bootstrap("pi-1", _with_broker(installed, brokers.free_port()), window_s=_WINDOW_S, on_step=kill)

    assert f"port = {broker.port}\n" in (board.home / layout.CONFIG).read_text()
    brokers.until(lambda: _reports(installed), "the old agent to report again")


def test_a_board_that_reboots_meanwhile_goes_on_by_itself(
    booted: list[Booted], board: Sshd, installed: Fleet, broker: Mosquitto
) -> None:
    def pull_the_plug(text: str) -> None:
        if text == _WATCHING:
            board.stop()
            booted[-1].pull_the_plug()
            raise HostDiedError

    with pytest.raises(HostDiedError):
        bootstrap.bootstrap(
            "pi-1", _with_broker(installed, brokers.free_port()), window_s=_WINDOW_S, on_step=pull_the_plug
        )
    assert _plan(booted[-1])["state"] in ("watching", "undoing")

    booted.append(systemd.boot(booted[-1].folder))

    brokers.until(lambda: _plan(booted[-1])["state"] == "undone", "the board to decide by itself")
    _log_in_on(board, booted[-1])
    assert f"port = {broker.port}\n" in (booted[-1].home / layout.CONFIG).read_text()
    brokers.until(lambda: _reports(installed), "the old agent to report again")


def test_removing_it_leaves_no_unit(booted: list[Booted], installed: Fleet) -> None:
    bootstrap.purge("pi-1", installed)

    board = booted[-1]
    assert [path for path in (board.folder / "units").rglob("tflotilla*") if not path.is_symlink()] == []
    assert not board.home.exists()
    assert board.systemctl("is-active", layout.SYSTEMD_UNIT) == "inactive"
    assert subprocess.run([*board.inside, "true"], check=False).returncode == 0
