"""A board behind a real sshd puts its old agent back when the new one does not report, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests import brokers
from tflotilla.host.fleet import push
from tflotilla.host.fleet.agents import bootstrap, upgrade
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.shared.contract import layout
from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.brokers import Mosquitto
    from tests.sshd import Sshd

pytestmark = [pytest.mark.sshd, pytest.mark.mosquitto, pytest.mark.fleet]

_WINDOW_S = 6.0


class HostDiedError(Exception):
    """The host is gone from here on."""


def _home(board: Sshd) -> Path:
    return board.home / layout.USER_HOME


def _plan(board: Sshd) -> dict[str, object]:
    plan: dict[str, object] = json.loads((_home(board) / layout.UPGRADE / "plan.json").read_text())
    return plan


def _decided(board: Sshd) -> bool:
    return _plan(board)["state"] in ("confirmed", "undone") and not (_home(board) / layout.UPGRADE_PENDING).exists()


def _with_broker(fleet: Fleet, port: int) -> Fleet:
    text = fleet.path.read_text().partition("\n[mqtt]")[0]
    fleet.path.write_text(f'{text}\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n')
    return Fleet.load(fleet.path)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with brokers.mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def reporting(warm: Sshd, fleet: Fleet, broker: Mosquitto) -> Fleet:
    """Return a fleet whose board runs an agent from which the broker took a report."""
    good = _with_broker(fleet, broker.port)
    bootstrap.bootstrap("pi-1", good)
    brokers.until(lambda: bool(_state(good).get("reporting")), "the first agent to report")
    assert warm.home.exists()
    return good


def _state(fleet: Fleet) -> dict[str, object]:
    state = push.status("pi-1", fleet).state
    return {} if state is None else {"reporting": state.reporting}


def _mistyped(fleet: Fleet) -> Fleet:
    return _with_broker(fleet, brokers.free_port())


def _is_the_old_one(board: Sshd, fleet: Fleet, broker: Mosquitto) -> None:
    assert f"port = {broker.port}\n" in (_home(board) / layout.CONFIG).read_text()
    brokers.until(lambda: bool(_state(fleet).get("reporting")), "the old agent to report again")


def test_an_agent_that_reaches_no_broker_is_undone_and_says_why(
    warm: Sshd, reporting: Fleet, broker: Mosquitto
) -> None:
    steps: list[str] = []

    with pytest.raises(BoardError) as refused:
        bootstrap.bootstrap("pi-1", _mistyped(reporting), window_s=_WINDOW_S, on_step=steps.append)

    assert str(refused.value).startswith(
        "pi-1: the new agent did not report within 6 s: the broker took no report of it"
    )
    assert str(refused.value).endswith("; the old one runs again")
    assert "the new agent does not report; putting the old one back" in steps
    assert _plan(warm)["state"] == "undone"
    _is_the_old_one(warm, reporting, broker)


def test_a_changed_configuration_that_works_stays_and_takes_no_longer_than_the_agent(
    warm: Sshd, reporting: Fleet, broker: Mosquitto
) -> None:
    text = reporting.path.read_text()
    reporting.path.write_text(f"{text}\n[boards.pi-1.agent.reporting]\nwindow_s = 3.0\n")

    done = bootstrap.bootstrap("pi-1", Fleet.load(reporting.path))

    assert done.changed == ("agent.toml",)
    assert _plan(warm)["state"] == "confirmed"
    assert sorted(path.name for path in (_home(warm) / layout.UPGRADE).iterdir()) == ["lock", "log", "pid", "plan.json"]
    assert broker.running


def test_a_host_that_dies_meanwhile_changes_nothing(warm: Sshd, reporting: Fleet, broker: Mosquitto) -> None:
    def die(text: str) -> None:
        if "waiting for the new agent" in text:
            raise HostDiedError

    with pytest.raises(HostDiedError):
        bootstrap.bootstrap("pi-1", _mistyped(reporting), window_s=_WINDOW_S, on_step=die)

    assert _plan(warm)["state"] in ("watching", "undoing")
    brokers.until(lambda: _decided(warm), "the board to decide by itself")
    assert _plan(warm)["state"] == "undone"
    _is_the_old_one(warm, reporting, broker)


def test_a_line_that_breaks_meanwhile_is_taken_up_and_the_end_is_told(warm: Sshd, reporting: Fleet) -> None:
    cuts: list[str] = []

    def cut(text: str) -> None:
        if "waiting for the new agent" in text and not cuts:
            cuts.append(text)
            warm.relay.cut()

    with pytest.raises(BoardError, match=r"did not report within 6 s: .*; the old one runs again"):
        bootstrap.bootstrap("pi-1", _mistyped(reporting), window_s=_WINDOW_S, on_step=cut, pause=lambda _s: None)


@pytest.mark.parametrize("whom", ["watcher", "its keeper"])
def test_who_watches_may_be_killed(warm: Sshd, reporting: Fleet, broker: Mosquitto, whom: str) -> None:
    def kill(text: str) -> None:
        if "waiting for the new agent" in text:
            keeper = int((_home(warm) / layout.UPGRADE / "pid").read_text())
            children = subprocess.run(
                ["ps", "-o", "pid=", "--ppid", str(keeper)], capture_output=True, text=True, check=True
            )
            os.kill(keeper if whom == "its keeper" else int(children.stdout.split()[0]), signal.SIGKILL)

    with pytest.raises(BoardError, match=r"did not report within 6 s: .*; the old one runs again"):
        bootstrap.bootstrap("pi-1", _mistyped(reporting), window_s=_WINDOW_S, on_step=kill)

    _is_the_old_one(warm, reporting, broker)


def test_a_board_that_goes_down_meanwhile_decides_when_it_is_up_again(
    warm: Sshd, reporting: Fleet, broker: Mosquitto
) -> None:
    def go_down(text: str) -> None:
        if "waiting for the new agent" in text:
            warm.stop()
            warm.kill_processes()
            raise HostDiedError

    with pytest.raises(HostDiedError):
        bootstrap.bootstrap("pi-1", _mistyped(reporting), window_s=_WINDOW_S, on_step=go_down)
    warm.start()

    # What cron does at boot.
    environment = {"HOME": str(warm.home), "PATH": "/usr/bin:/bin"}
    subprocess.run([_home(warm) / layout.LAUNCHER, "start"], env=environment, check=True, capture_output=True)

    brokers.until(lambda: _decided(warm), "the board to go on by itself")
    assert _plan(warm)["state"] == "undone"
    _is_the_old_one(warm, reporting, broker)


def test_the_next_bootstrap_waits_for_what_goes_on_and_then_does_its_own(
    warm: Sshd, reporting: Fleet, broker: Mosquitto
) -> None:
    def die(text: str) -> None:
        if "waiting for the new agent" in text:
            raise HostDiedError

    with pytest.raises(HostDiedError):
        bootstrap.bootstrap("pi-1", _mistyped(reporting), window_s=_WINDOW_S, on_step=die)
    steps: list[str] = []

    done = bootstrap.bootstrap("pi-1", _with_broker(reporting, broker.port), on_step=steps.append)

    assert "the new agent does not report; putting the old one back" in steps
    assert done.changed == ()
    _is_the_old_one(warm, reporting, broker)


def test_both_environments_are_there_until_it_is_decided(warm: Sshd, reporting: Fleet) -> None:
    before = (_home(warm) / layout.ENVIRONMENT).readlink()
    seen: list[bool] = []

    def look(text: str) -> None:
        if "putting the old one back" in text:
            seen.append((_home(warm) / before).is_dir())

    # Another runtime is another environment, and the broker is wrong too.
    with pytest.raises(BoardError, match="the old one runs again"):
        bootstrap.bootstrap("pi-1", _mistyped(reporting), runtime="ai-edge-litert", window_s=_WINDOW_S, on_step=look)

    assert seen == [True]
    assert (_home(warm) / layout.ENVIRONMENT).readlink() == before


def test_removing_the_agent_ends_who_watches(warm: Sshd, reporting: Fleet) -> None:
    def die(text: str) -> None:
        if "waiting for the new agent" in text:
            raise HostDiedError

    with pytest.raises(HostDiedError):
        bootstrap.bootstrap("pi-1", _mistyped(reporting), window_s=600, on_step=die)
    keeper = int((_home(warm) / layout.UPGRADE / "pid").read_text())

    bootstrap.purge("pi-1", reporting)

    assert not _home(warm).exists()
    brokers.until(lambda: not _lives(keeper), "the watcher to end")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_reason_of_a_board_is_shown_without_its_control_characters() -> None:
    progress = upgrade.Progress(id="1", state="undone", reason="\x1b[31mred", old_runs=False, window_s=60)

    with pytest.raises(BoardError) as refused:
        upgrade.judge(progress, "pi-1")

    assert "\\x1b[31mred; the old one is back, and does not answer either" in str(refused.value)
