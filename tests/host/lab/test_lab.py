"""A lab as a whole: it comes up whole or not at all, and nothing of it stays behind, however it ends."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.host.lab.conftest import PATIENCE_S, pids_with, unique_sleep
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.host.lab import broker as lab_broker
from tflotilla.host.lab import lab, processes
from tflotilla.host.telemetry import mqtt
from tflotilla.shared.contract.errors import BrokerError, ConflictError, InputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.lab.lab import Lab

KINDS = [
    pytest.param(
        "mosquitto",
        marks=[
            pytest.mark.mosquitto,
            pytest.mark.skipif(lab_broker.find_mosquitto() is None, reason="mosquitto is not installed"),
        ],
    ),
    "embedded",
]
_UP = """
import sys, time
from pathlib import Path
from tflotilla.host.lab import lab
from tflotilla.host.fleet.lines import ssh
from tflotilla.host.fleet.inventory.fleet import Fleet
here = lab.up(home=Path(sys.argv[1]), boards=2, bound=sys.argv[2] == "bound")
fleet = Fleet.load(here.fleet_file)
with ssh.connect("lab-1", fleet.boards["lab-1"], fleet) as link:
    link.run(f"setsid sleep {sys.argv[3]} >/dev/null 2>&1 &", timeout_s=60)
print("up", flush=True)
time.sleep(600)
"""


def killed_while_up(folder: Path, *, bound: bool) -> int:
    """Bring a lab up in another process, with a daemon on a board, kill that process; return what the daemon sleeps."""
    sleep = unique_sleep()
    arguments = [sys.executable, "-c", _UP, str(folder), "bound" if bound else "free", str(sleep)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        assert processes.wait_until(lambda: bool(pids_with(f"sleep\0{sleep}")), timeout_s=PATIENCE_S)
        parent.kill()
    return sleep


def gone(here: Lab) -> bool:
    return not processes.marked(f"{here._record.id}/")


def kill_its_servers(here: Lab) -> None:
    parts = [part.process for part in here._record.parts.values()]
    processes.send([part.pid for part in parts], signal.SIGKILL)
    assert processes.wait_until(lambda: not any(map(processes.alive, parts)), timeout_s=PATIENCE_S)


def test_a_lab_of_three_boards_is_up_within_seconds(tmp_path: Path) -> None:
    begin = time.monotonic()
    with lab.up(home=tmp_path, bound=True) as here:
        took_s = time.monotonic() - begin

        assert [board.name for board in here.boards] == ["lab-1", "lab-2", "lab-3"]
        assert len({board.port for board in here.boards}) == 3
        assert all(here.running(board.name) for board in here.boards)
        assert here.broker_running
    # 0.4 s on an idle machine.
    assert took_s < 30


def test_down_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    here = lab.up(home=tmp_path, boards=2)
    assert len(processes.marked(f"{here._record.id}/")) >= 3

    here.down()

    assert gone(here)
    assert list(tmp_path.iterdir()) == []
    here.down()


def test_a_bound_lab_goes_with_the_process_that_made_it_even_when_that_is_killed(tmp_path: Path) -> None:
    nap = killed_while_up(tmp_path, bound=True)
    here = lab.find(home=tmp_path)

    assert processes.wait_until(lambda: gone(here), timeout_s=PATIENCE_S)
    assert not pids_with(f"sleep\0{nap}")


def test_a_lab_outlives_its_maker_until_down_finds_all_of_it(tmp_path: Path) -> None:
    nap = killed_while_up(tmp_path, bound=False)
    assert all(lab.find(home=tmp_path).running(name) for name in ("lab-1", "lab-2"))

    lab.down(home=tmp_path)

    assert not pids_with(f"sleep\0{nap}")
    assert list(tmp_path.iterdir()) == []


def test_down_finds_what_a_killed_board_left_behind(tmp_path: Path) -> None:
    nap = killed_while_up(tmp_path, bound=False)
    here = lab.find(home=tmp_path)
    kill_its_servers(here)
    assert pids_with(f"sleep\0{nap}")

    lab.down(home=tmp_path)

    assert not pids_with(f"sleep\0{nap}")
    assert gone(here)


def test_a_second_lab_of_the_same_name_is_refused_and_the_first_stays(tmp_path: Path) -> None:
    with lab.up(home=tmp_path, boards=1, bound=True) as here:
        with pytest.raises(ConflictError, match="tflotilla lab down lab"):
            lab.up(home=tmp_path, boards=1)

        assert here.running("lab-1")


def test_a_lab_that_died_makes_room_for_a_new_one_of_its_name(tmp_path: Path) -> None:
    nap = killed_while_up(tmp_path, bound=False)
    kill_its_servers(lab.find(home=tmp_path))

    with lab.up(home=tmp_path, boards=1, bound=True) as here:
        assert not pids_with(f"sleep\0{nap}")
        assert [board.name for board in here.boards] == ["lab-1"]


def test_labs_of_two_names_live_side_by_side(tmp_path: Path) -> None:
    with lab.up(home=tmp_path, name="one", boards=1, bound=True), lab.up(home=tmp_path, name="two", boards=1) as two:
        assert [each.name for each in lab.list_labs(home=tmp_path)] == ["one", "two"]
        two.down()
        assert [each.name for each in lab.list_labs(home=tmp_path)] == ["one"]


@pytest.mark.parametrize("name", ["", "../up", "a b", "Lab", "$(id)", "-x"])
def test_a_name_that_cannot_be_a_fleet_is_a_usage_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="lower-case"):
        lab.up(name=name, home=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("boards", [0, -1, 201])
def test_a_number_of_boards_that_makes_no_sense_is_a_usage_error(tmp_path: Path, boards: int) -> None:
    with pytest.raises(UsageError, match="1 to 200"):
        lab.up(boards=boards, home=tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match=r"file/lab can't be made"):
        lab.up(home=tmp_path / "file")


def test_a_lab_that_is_not_there_is_a_usage_error_that_names_those_there_are(tmp_path: Path) -> None:
    with lab.up(home=tmp_path, name="barn", boards=1, bound=True), pytest.raises(UsageError, match="there are: barn"):
        lab.down("house", home=tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_broker_lets_in_the_labs_user_and_nobody_else(tmp_path: Path, kind: lab_broker.Kind) -> None:
    with lab.up(home=tmp_path, boards=1, broker=kind, bound=True) as here:
        config = here.broker.config
        wrong = tmp_path / "wrong"
        wrong.write_text("not the password\n")

        assert here.broker.kind == kind
        with mqtt.connect(config, folder=tmp_path) as broker:
            broker.subscribe(["tflotilla/#"])
            broker.publish("tflotilla/lab/lab-1/event", b"hello")
            assert [each.payload for each in broker.receive(timeout_s=PATIENCE_S)] == [b"hello"]
        refused = dataclasses.replace(config, password_file=str(wrong))
        with pytest.raises(BrokerError), mqtt.connect(refused, folder=tmp_path, timeout_s=5):
            pass


def test_the_fleet_of_a_lab_is_a_valid_one_with_everything_in_it(tmp_path: Path) -> None:
    with lab.up(home=tmp_path, boards=2, bound=True) as here:
        fleet = Fleet.load(here.fleet_file)

        assert fleet.name == "lab"
        assert fleet.select("number=2") == ("lab-2",)
        assert {entry.install for entry in fleet.boards.values()} == {"user"}
        assert [fleet.pinned(board.name) for board in here.boards] == [
            tuple(board.host_key.split()) for board in here.boards
        ]
        assert 'namespaces="tflotilla-bundle" ssh-ed25519 ' in fleet.allowed_signers().read_text()
        assert fleet.mqtt_files()["mqtt-password"] == here.broker.password_file.read_bytes()


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    with lab.up(home=tmp_path, boards=1, bound=True) as here:
        secrets = [
            here.client_key,
            here.broker.password_file,
            here.fleet_file.parent / "signing_key",
            here.folder / "lab-1" / "host_key",
        ]

        assert [oct(file.stat().st_mode & 0o777) for file in secrets] == ["0o600"] * 4
