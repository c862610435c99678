"""A bare HOME behind a real sshd becomes a board with a running agent; what is wrong with a board is said plainly."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests import sshd as real_sshd
from tests.host.fleet.conftest import entry
from tflotilla.host.fleet import push
from tflotilla.host.fleet.agents import bootstrap, probe
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.shared.contract import layout
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import (
    BoardError,
    ConfigError,
    ConflictError,
    IdentityError,
    UnreachableError,
    UsageError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sshd import Sshd

pytestmark = pytest.mark.sshd


def _never(_key: object) -> NoReturn:
    pytest.fail("nobody is to be asked")


def _home(board: Sshd) -> Path:
    return board.home / layout.USER_HOME


def _write_program(path: Path, script: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_bare_board_gets_an_agent_and_a_second_bootstrap_sends_and_restarts_nothing(
    board: Sshd, fleet: Fleet
) -> None:
    steps: list[str] = []
    progress: list[tuple[int, int]] = []
    assert list(board.home.iterdir()) == []

    first = bootstrap.bootstrap(
        "pi-1", fleet, on_step=steps.append, on_bytes=lambda sent, total: progress.append((sent, total))
    )

    assert first.hello.running
    assert first.hello.facts.runtimes
    assert first.changed == ("agent", "agent.toml", "allowed_signers", "environment", "launcher", "switched")
    assert progress[-1][0] == progress[-1][1] > 1_000_000
    assert [sent for sent, _total in progress] == sorted(sent for sent, _total in progress)
    assert "starting the agent" in steps
    assert fleet.facts("pi-1") == first.hello.facts
    assert (_home(board) / layout.CONFIG).stat().st_mode & 0o777 == 0o600
    agent = (_home(board) / layout.PID).read_text()

    second = bootstrap.bootstrap("pi-1", fleet, on_step=steps.append, on_bytes=_never_called)

    assert second.changed == ()
    assert second.environment == first.environment
    assert second.bytes_sent < 40_000
    assert (_home(board) / layout.PID).read_text() == agent


def _never_called(_sent: int, _total: int) -> NoReturn:
    pytest.fail("nothing is to be sent")


def test_the_boards_agent_runs_with_the_boards_python_and_sees_both_runtimes_where_both_have_wheels(
    warm: Sshd, fleet: Fleet
) -> None:
    done = bootstrap.bootstrap("pi-1", fleet)

    state = push.status("pi-1", fleet).state
    assert state is not None
    python = state.facts.python.split(".")[:2]
    expected = {"3.11": ["tflite-runtime", "ai-edge-litert"], "3.12": ["ai-edge-litert"]}[".".join(python)]
    assert [offer.name for offer in state.facts.runtimes] == expected
    assert RuntimeOffer(name="ai-edge-litert", version="2.3.0") in done.hello.facts.runtimes
    assert str(warm.bin / "python3") in (_home(warm) / layout.LAUNCHER).read_text()


def test_what_fleet_toml_says_anew_reaches_the_board_and_the_agent_starts_anew(warm: Sshd, fleet: Fleet) -> None:
    bootstrap.bootstrap("pi-1", fleet)
    agent = (_home(warm) / layout.PID).read_text()
    (fleet.folder / "secret").write_text("pass'word $(x)\n")
    text = fleet.path.read_text()
    fleet.path.write_text(f'{text}\n[mqtt]\nhost = "broker.invalid"\nusername = "u"\npassword_file = "secret"\n')

    done = bootstrap.bootstrap("pi-1", Fleet.load(fleet.path))

    assert done.changed == ("agent.toml", "mqtt-password")
    assert (_home(warm) / layout.PID).read_text() != agent
    password = _home(warm) / layout.MQTT_PASSWORD
    assert password.read_text() == "pass'word $(x)\n"
    assert password.stat().st_mode & 0o777 == 0o600
    assert "broker.invalid" in (_home(warm) / layout.CONFIG).read_text()
    assert "broker.invalid" not in (_home(warm) / f"{layout.CONFIG}.before").read_text()


def test_a_cut_transfer_goes_on_where_it_broke(board: Sshd, fleet: Fleet) -> None:
    waits: list[float] = []
    totals: list[int] = []
    board.relay.cut_after_bytes = 15_000_000

    done = bootstrap.bootstrap("pi-1", fleet, on_bytes=lambda _sent, total: totals.append(total), pause=waits.append)

    assert done.cuts == 1
    assert waits == [0.5]
    assert done.hello.running
    # What was on its way when the line broke is sent again, and no more.
    assert done.bytes_sent < max(totals) + 10_000_000


def test_a_board_that_is_cut_again_and_again_is_given_up_with_one_line(board: Sshd, fleet: Fleet) -> None:
    def cut_again(_wait_s: float) -> None:
        board.relay.cut_after_bytes = 200_000

    cut_again(0)
    with pytest.raises(UnreachableError, match=r"lost|broke"):
        bootstrap.bootstrap("pi-1", fleet, pause=cut_again)

    assert not (_home(board) / layout.ENVIRONMENT).is_symlink()


def test_an_agent_that_was_not_restarted_because_of_a_cut_is_restarted_next_time(warm: Sshd, fleet: Fleet) -> None:
    bootstrap.bootstrap("pi-1", fleet)
    agent = (_home(warm) / layout.PID).read_text()
    (_home(warm) / "incoming" / "restart-pending").touch()

    done = bootstrap.bootstrap("pi-1", fleet)

    assert done.changed == ()
    assert (_home(warm) / layout.PID).read_text() != agent
    assert not (_home(warm) / "incoming" / "restart-pending").exists()


def test_a_board_that_is_off_is_not_tried_again(board: Sshd, fleet: Fleet) -> None:
    board.stop()

    with pytest.raises(UnreachableError, match="is it on"):
        bootstrap.bootstrap("pi-1", fleet, pause=_never)


def test_a_board_without_python3_is_told_what_to_install(board: Sshd, fleet: Fleet) -> None:
    (board.bin / "python3").unlink()
    (board.bin / "sh").symlink_to("/bin/sh")
    board.system_path = str(board.bin)
    board.restart()

    with pytest.raises(BoardError, match=r"pi-1 has no python3 on its PATH; install Python 3\.10"):
        bootstrap.bootstrap("pi-1", fleet)

    assert list(board.home.iterdir()) == []


def test_a_too_old_python_is_told_with_both_versions_and_the_one_that_would_do(board: Sshd, fleet: Fleet) -> None:
    real = (board.bin / "python3").readlink()
    faked = "import sys; sys.version_info = (3, 6, 9, 'final', 0); exec(sys.stdin.read())"
    _write_program(board.bin / "python3", f'exec {real} -c "{faked}"')
    (board.bin / "python3.14").symlink_to(real)

    with pytest.raises(BoardError) as refused:
        bootstrap.bootstrap("pi-1", fleet)

    assert "pi-1: its python3 is Python 3.6.9, and the agent needs 3.10 or newer" in str(refused.value)
    assert f'set python = "{board.bin}/python3.14"' in str(refused.value)
    assert list(board.home.iterdir()) == []


def test_an_interpreter_with_a_wild_path_is_a_word_and_never_a_command(warm: Sshd, fleet: Fleet) -> None:
    wild = warm.folder / "my 'py' $(touch spoiled) \"x\""
    wild.mkdir()
    (wild / "python3").symlink_to((warm.bin / "python3").readlink())
    odd = Fleet.load(fleet.path)
    boards = {"pi-1": dataclasses.replace(odd.board("pi-1"), python=str(wild / "python3"))}
    odd = dataclasses.replace(odd, boards=boards)

    done = bootstrap.bootstrap("pi-1", odd)

    assert done.hello.running
    assert list(warm.folder.rglob("*spoiled")) == []


def test_a_full_disk_is_told_with_figures_before_anything_is_sent(board: Sshd, fleet: Fleet) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(board.home)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine mounts no tmpfs")
    try:
        with pytest.raises(BoardError, match=r"no space in .*: 1\d\d\.\d MB are needed and \d+\.\d MB are free"):
            bootstrap.bootstrap("pi-1", fleet)
        left = [path for path in _home(board).rglob("*") if path.is_file() and path.stat().st_size > 0]
    finally:
        subprocess.run(["umount", str(board.home)], check=True)

    assert left == []


def test_a_disk_that_fills_up_meanwhile_leaves_nothing_half_done(board: Sshd, fleet: Fleet) -> None:
    board.limit_file_size(4 << 20)

    with pytest.raises(BoardError, match=r"no space in .* MB are needed"):
        bootstrap.bootstrap("pi-1", fleet)

    assert [path for path in _home(board).rglob("*") if path.is_file() and path.stat().st_size > 0] == []


def test_a_second_bootstrap_at_the_same_time_is_a_conflict(board: Sshd, fleet: Fleet) -> None:
    lock = _home(board) / "incoming" / "bootstrap.lock"
    lock.parent.mkdir(parents=True)
    with subprocess.Popen(
        ["flock", str(lock), "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"locked\n")
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(ConflictError, match="another bootstrap"):
            bootstrap.bootstrap("pi-1", fleet)
        holder.stdin.close()


def test_a_mistake_in_fleet_toml_costs_no_connection(board: Sshd, fleet: Fleet) -> None:
    before = board.relay.connections
    untrusting = dataclasses.replace(fleet, signing=dataclasses.replace(fleet.signing, key=None))

    with pytest.raises(ConfigError, match="signing"):
        bootstrap.bootstrap("pi-1", untrusting)

    assert board.relay.connections == before


def test_a_probe_tells_what_a_bare_board_is(board: Sshd, fleet: Fleet) -> None:
    found = probe.probe("pi-1", fleet)

    assert found.agent_version is None
    assert found.facts.arch == os.uname().machine
    assert found.facts.runtimes == ()
    assert fleet.facts("pi-1") == found.facts
    assert list(board.home.iterdir()) == []


def test_a_shell_that_talks_at_login_disturbs_nothing(warm: Sshd, fleet: Fleet) -> None:
    (warm.home / ".bashrc").write_text('echo "Welcome to {json}!"\necho \'{"a": 1}\' >&2\n')
    bootstrap.bootstrap("pi-1", fleet)

    assert push.status("pi-1", fleet).running


def test_asking_a_board_without_agent_says_how_it_gets_one(fleet: Fleet) -> None:
    with pytest.raises(BoardError, match="pi-1 has no agent yet; `tflotilla board bootstrap pi-1`"):
        push.status("pi-1", fleet)


def test_enrolment_by_fingerprint_asks_nobody_and_pins_that_key(board: Sshd, fleet: Fleet) -> None:
    changed, key = bootstrap.enrol("pi-2", entry(board), fleet, fingerprint=board.fingerprint, confirm=_never)

    assert key.fingerprint == board.fingerprint
    assert changed.pinned("pi-2") == fleet.pinned("pi-1")


def test_enrolment_by_the_fingerprint_of_the_servers_other_key_pins_that_one(board: Sshd, fleet: Fleet) -> None:
    other = real_sshd.generate_key(board.folder / "host_key_rsa", "rsa")
    board.extra_host_keys.append(other)
    board.restart()
    said = subprocess.run(["ssh-keygen", "-l", "-f", f"{other}.pub"], check=True, capture_output=True, text=True)

    changed, key = bootstrap.enrol("pi-2", entry(board), fleet, fingerprint=said.stdout.split()[1], confirm=_never)

    assert key.kind == "ssh-rsa"
    assert probe.probe("pi-2", changed).facts.cores >= 1


def test_enrolment_with_another_fingerprint_is_refused_and_adds_nothing(board: Sshd, fleet: Fleet) -> None:
    before = fleet.path.read_text()

    with pytest.raises(IdentityError) as refused:
        bootstrap.enrol("pi-2", entry(board), fleet, fingerprint="SHA256:nonsense", confirm=_never)

    assert board.fingerprint in str(refused.value)
    assert fleet.path.read_text() == before


def test_enrolment_that_is_not_confirmed_adds_nothing(board: Sshd, fleet: Fleet) -> None:
    with pytest.raises(IdentityError, match="not accepted"):
        bootstrap.enrol("pi-2", entry(board), fleet, confirm=lambda _key: False)
    with pytest.raises(UsageError, match="already"):
        bootstrap.enrol("pi-1", entry(board), fleet, confirm=_never)

    assert list(Fleet.load(fleet.path).boards) == ["pi-1"]
