"""A virtual board seen through OpenSSH's own client, fabric, and the faults one can give it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.host.lab.conftest import PATIENCE_S, pids_with, run, ssh, unique_sleep
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.host.fleet.lines import ssh as fleet_ssh
from tflotilla.host.lab import keys, lab, processes
from tflotilla.host.lab.faults import Faults
from tflotilla.shared.contract.errors import IdentityError, UnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tflotilla.host.lab.lab import Lab

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed")


@contextmanager
def faulty(here: Lab, name: str, faults: Faults) -> Iterator[None]:
    here.set_faults(name, faults)
    try:
        yield
    finally:
        here.set_faults(name, Faults())


@needs_ssh
def test_a_command_has_its_streams_and_its_exit_status(here: Lab) -> None:
    result = run(here, here.boards[0], "cat; echo to stderr >&2; exit 7", stdin=b"from stdin")

    assert (result.stdout, result.stderr, result.returncode) == (b"from stdin", b"to stderr\n", 7)


@needs_ssh
def test_twenty_megabytes_come_back_as_they_went(here: Lab) -> None:
    data = os.urandom(20_000_000)

    result = run(here, here.boards[0], "cat", stdin=data)

    assert result.stdout == data


@needs_ssh
def test_a_client_that_reads_slowly_stops_the_program_instead_of_filling_memory(here: Lab) -> None:
    board = here.boards[0]
    part = processes.descendants(os.getpid())
    command = "i=0; while [ $i -lt 400 ]; do head -c 1000000 /dev/zero; i=$((i+1)); echo $i > progress; done"
    with subprocess.Popen(ssh(here, board, command), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        client.stdout.read(1)
        progress = board.home / "progress"
        seen = -1
        # Nobody reads any more: the program must come to a stop long before its 400 MB.
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            now = int(progress.read_text() or 0) if progress.exists() else 0
            if now == seen and now > 0:
                break
            seen = now
            time.sleep(0.5)
        client.kill()
    assert 0 < seen < 100
    assert processes.descendants(os.getpid()) <= part


@needs_ssh
def test_a_program_killed_by_a_signal_is_told_as_one(here: Lab) -> None:
    # OpenSSH's client turns exit-signal into 255.
    assert run(here, here.boards[0], "kill -9 $$").returncode == 255


@needs_ssh
def test_a_command_that_is_not_there_is_127(here: Lab) -> None:
    assert run(here, here.boards[0], "/no/such/program").returncode == 127


@needs_ssh
def test_a_terminal_is_given_to_whoever_asks(here: Lab) -> None:
    board = here.boards[0]
    command = ssh(here, board, "test -t 0 && test -t 1 && stty size && echo $TERM; exit 3")
    command.insert(1, "-tt")

    result = subprocess.run(
        command,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm-256color"},
    )

    assert result.returncode == 3
    assert b"xterm-256color" in result.stdout


@needs_ssh
def test_an_interactive_shell_takes_commands_and_leaves_on_exit(here: Lab) -> None:
    board = here.boards[0]
    command = [*ssh(here, board)]
    command.insert(1, "-tt")

    result = subprocess.run(
        command, input=b"echo $((6*7)); pwd\nexit 5\n", capture_output=True, timeout=PATIENCE_S, check=False
    )

    assert result.returncode == 5
    assert b"42" in result.stdout
    assert str(board.home).encode() in result.stdout


@needs_ssh
def test_python_on_a_board_is_not_the_virtual_environment(here: Lab) -> None:
    asks = "import sys; print(sys.prefix == sys.base_prefix, sys.version_info[:2]); import tensorflow"

    result = run(here, here.boards[0], f"python3 -c '{asks}'")

    assert result.stdout.decode() == f"True {sys.version_info[:2]}\n"
    assert b"ModuleNotFoundError" in result.stderr


@needs_ssh
def test_nothing_of_the_hosts_environment_reaches_a_board(here: Lab) -> None:
    names = {line.partition("=")[0] for line in run(here, here.boards[0], "env").stdout.decode().splitlines()}

    expected = {"HOME", "LOGNAME", "PATH", "PWD", "SHELL", "SSH_CONNECTION", "TMPDIR", "USER", processes.MARK}
    assert names - {"_", "SHLVL", "OLDPWD"} == expected


@needs_ssh
@pytest.mark.parametrize("program", ["sudo -n true", "systemctl --user status", "loginctl enable-linger"])
def test_a_board_cannot_change_the_machine_it_lives_on(here: Lab, program: str) -> None:
    result = run(here, here.boards[0], program)

    assert result.returncode == 1
    assert b"required" in result.stderr or b"systemd" in result.stderr


@needs_ssh
def test_boards_have_homes_and_keys_of_their_own(here: Lab) -> None:
    first, second = here.boards
    run(here, first, "echo mine > note")

    assert (first.home / "note").read_text() == "mine\n"
    assert not (second.home / "note").exists()
    assert first.host_key != second.host_key


def test_a_board_listens_on_loopback_only(here: Lab) -> None:
    port = f":{here.boards[0].port:04X}"
    with open("/proc/net/tcp") as table:  # noqa: PTH123 - a file of the kernel
        listening = [line.split()[1] for line in table if line.split()[3] == "0A"]

    assert [address for address in listening if address.endswith(port)] == [f"0100007F{port}"]


@needs_ssh
def test_daemons_belong_to_their_board_and_leave_no_zombies(here: Lab) -> None:
    board = here.boards[0]
    run(here, board, "setsid sh -c '(sleep 60000 & echo $! > pid)' </dev/null >/dev/null 2>&1 &")
    assert processes.wait_until(lambda: (board.home / "pid").exists(), timeout_s=PATIENCE_S)
    assert processes.wait_until(lambda: bool((board.home / "pid").read_text()), timeout_s=PATIENCE_S)
    pid = int((board.home / "pid").read_text())

    def parent() -> int:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - a file of the kernel
            return int(stat.read().rpartition(")")[2].split()[1])

    (server,) = {part for part in processes.marked("") if pid in processes.descendants(part)}
    assert processes.wait_until(lambda: parent() == server, timeout_s=PATIENCE_S)
    os.kill(pid, signal.SIGKILL)
    # A zombie would still have its folder in /proc.
    assert processes.wait_until(lambda: not os.path.exists(f"/proc/{pid}"), timeout_s=PATIENCE_S)  # noqa: PTH110


def test_fabric_logs_in_with_the_fleet_that_the_lab_wrote(here: Lab) -> None:
    fleet = Fleet.load(here.fleet_file)

    for board in here.boards:
        with fleet_ssh.connect(board.name, fleet.boards[board.name], fleet) as link:
            done = link.run("echo $HOME; cat", stdin=b"x" * 3_000_000, timeout_s=PATIENCE_S)
        assert done.stdout == f"{board.home}\n".encode() + b"x" * 3_000_000


def test_a_stranger_is_not_let_in(here: Lab, tmp_path: Path) -> None:
    keys.generate(tmp_path / "stranger", comment="stranger")
    fleet = Fleet.load(here.fleet_file)
    stranger = dataclasses.replace(fleet.boards["lab-1"], identity=str(tmp_path / "stranger"))

    with pytest.raises(IdentityError), fleet_ssh.connect("lab-1", stranger, fleet):
        pass


def test_a_board_that_refuses_the_login_is_an_identity_error(here: Lab) -> None:
    fleet = Fleet.load(here.fleet_file)

    with (
        faulty(here, "lab-1", Faults(refuse_login=True)),
        pytest.raises(IdentityError),
        fleet_ssh.connect("lab-1", fleet.boards["lab-1"], fleet),
    ):
        pass


def test_a_board_that_refuses_connections_is_off_and_comes_back_at_its_port(here: Lab) -> None:
    board = here.boards[0]
    with faulty(here, "lab-1", Faults(refuse_connections=True)), pytest.raises(ConnectionRefusedError):
        socket.create_connection((board.host, board.port), timeout=PATIENCE_S)

    with socket.create_connection((board.host, board.port), timeout=PATIENCE_S) as connection:
        assert connection.recv(8) == b"SSH-2.0-"


def test_a_changed_host_key_is_refused(tmp_path: Path) -> None:
    with lab.up(home=tmp_path, boards=1, bound=True) as here:
        fleet = Fleet.load(here.fleet_file)
        here.change_host_key("lab-1")

        with pytest.raises(IdentityError), fleet_ssh.connect("lab-1", fleet.boards["lab-1"], fleet):
            pass


@needs_ssh
def test_a_board_without_python_has_everything_else(here: Lab) -> None:
    with faulty(here, "lab-1", Faults(python="missing")):
        result = run(here, here.boards[0], "python3 -V; echo $?; command -v python || ls -d / && echo here | cat")

    assert result.stdout == b"127\n/\nhere\n"


@needs_ssh
@pytest.mark.parametrize(
    "asks",
    ["-V", "-c 'import sys; print(\"Python %d.%d.%d\" % sys.version_info[:3])'", "- < version.py"],
)
def test_an_old_python_says_so_however_it_is_asked(here: Lab, asks: str) -> None:
    board = here.boards[0]
    (board.home / "version.py").write_text("import platform; print('Python', platform.python_version())\n")

    with faulty(here, "lab-1", Faults(python="old")):
        result = run(here, board, f"python3 {asks}")

    assert result.stdout == b"Python 3.7.3\n"


@needs_ssh
def test_a_line_is_cut_after_so_many_bytes_and_so_often(here: Lab) -> None:
    board = here.boards[0]
    received = board.home / "received"

    with faulty(here, "lab-1", Faults(cut_after_bytes=300_000, cuts=2)):
        codes = [run(here, board, "cat > received", stdin=b"x" * 2_000_000).returncode for _ in range(2)]
        # The client may be gone before `cat` wrote what came through.
        came_through = processes.wait_until(
            lambda: received.exists() and 100_000 < received.stat().st_size < 300_000, timeout_s=PATIENCE_S
        )
        third = run(here, board, "cat > received", stdin=b"x" * 2_000_000)

    assert codes == [255, 255]
    assert came_through
    assert third.returncode == 0
    assert received.stat().st_size == 2_000_000


@needs_ssh
def test_a_slow_line_is_slow(here: Lab) -> None:
    with faulty(here, "lab-1", Faults(bytes_per_second=100_000)):
        begin = time.monotonic()
        result = run(here, here.boards[0], "wc -c", stdin=b"x" * 200_000)
        took_s = time.monotonic() - begin

    assert result.stdout.strip() == b"200000"
    assert took_s > 1.9


def test_a_power_cut_ends_everything_and_keeps_the_files(tmp_path: Path) -> None:
    nap = unique_sleep()
    with lab.up(home=tmp_path, boards=1, bound=True) as here:
        (board,) = here.boards
        fleet = Fleet.load(here.fleet_file)
        with fleet_ssh.connect(board.name, fleet.boards[board.name], fleet) as link:
            # The second one hides its mark; it is the board's by descent.
            link.run(
                f"setsid sleep {nap} >/dev/null 2>&1 & setsid env -i sleep {nap} >/dev/null 2>&1 & echo kept > file",
                timeout_s=PATIENCE_S,
            )
        assert processes.wait_until(lambda: len(pids_with(f"sleep\0{nap}")) == 2, timeout_s=PATIENCE_S)

        here.cut_power(board.name)

        assert not pids_with(f"sleep\0{nap}")
        assert not here.running(board.name)
        with pytest.raises(UnreachableError), fleet_ssh.connect(board.name, fleet.boards[board.name], fleet):
            pass

        here.power_on(board.name)

        assert here.running(board.name)
        with fleet_ssh.connect(board.name, fleet.boards[board.name], fleet) as link:
            assert link.run("cat file", timeout_s=PATIENCE_S).stdout == b"kept\n"


def test_a_board_that_is_not_of_the_lab_is_named(here: Lab) -> None:
    with pytest.raises(UsageError, match=r"lab 'lab' has no board 'pi-9'; it has lab-1, lab-2"):
        here.cut_power("pi-9")


def test_faults_that_would_stop_a_board_for_ever_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="bytes_per_second must be at least 1, not 0"):
        Faults(bytes_per_second=0)
