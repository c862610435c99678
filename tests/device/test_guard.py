"""The guard, with real processes: it starts, restarts, ends and speaks of an agent whose serving is fake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.device.agents import CONFIG, DEADLINE_S, ROOT, environment, wait_until
from tflotilla.device import control, guard
from tflotilla.device.home import Home
from tflotilla.device.pid_lock import PidLock, holder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home whose launcher runs a fake agent, as a bootstrap would leave it."""
    found = Home(tmp_path / "home with spaces, 'quotes' and $(touch nothing)")
    found.make()
    found.config.write_text(CONFIG)
    found.launcher.parent.mkdir()
    found.launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.device.fake_agent "$@"\n')
    found.launcher.chmod(0o700)
    yield found
    guard.stop(found)
    assert not control.is_running(found)


def _cli(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tflotilla.device", *arguments, "--home", str(home.path)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=DEADLINE_S, env=environment(), cwd=ROOT
    )


def _restarted(home: Home, before: int | None) -> bool:
    return control.is_running(home) and holder(home.pid) not in (None, before)


def test_start_waits_until_the_agent_answers_and_stop_until_it_is_gone(home: Home) -> None:
    started = _cli(home, "start")

    assert (started.returncode, started.stderr) == (0, "")
    assert control.is_running(home)
    pid = guard.status(home)
    assert pid is not None
    assert str(pid) in started.stdout

    assert _cli(home, "stop").stdout == "stopped\n"
    assert guard.status(home) is None
    assert not control.is_running(home)
    assert _cli(home, "stop").stdout == "no agent runs\n"


def test_starting_twice_keeps_the_first(home: Home) -> None:
    _cli(home, "start")
    first = guard.status(home), holder(home.pid)

    again = _cli(home, "start")

    assert again.returncode == 0
    assert (guard.status(home), holder(home.pid)) == first


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (40, "signal 40")])
def test_an_agent_that_is_killed_is_started_again(home: Home, number: int, name: str) -> None:
    _cli(home, "start")
    agent = holder(home.pid)
    assert agent is not None

    os.kill(agent, number)

    wait_until(lambda: _restarted(home, agent), "another agent answers")
    assert f"the agent was killed by {name}; starting it again in" in home.log.read_text()


def test_the_agent_ends_with_a_guard_that_is_killed_and_both_can_be_started_again(home: Home) -> None:
    _cli(home, "start")
    pid = guard.status(home)
    assert pid is not None

    os.kill(pid, signal.SIGKILL)

    wait_until(lambda: not control.is_running(home), "the agent is gone")
    wait_until(lambda: guard.status(home) is None, "the guard is gone")
    assert _cli(home, "start").returncode == 0


def test_an_agent_that_does_not_come_up_is_an_error_with_its_last_words(home: Home) -> None:
    (home.path / "fail").write_text("agent.toml: key 'board' is missing")

    started = _cli(home, "start")

    assert started.returncode == 7
    assert "ended with exit code 3: agent.toml: key 'board' is missing; its log is" in started.stderr
    assert len(started.stderr.splitlines()) == 1
    assert guard.status(home) is None


def test_a_launcher_that_can_t_be_run_is_an_error(home: Home) -> None:
    home.launcher.write_text("#!/no/such/interpreter\n")

    started = _cli(home, "start")

    assert started.returncode == 7
    assert "the agent can't be started" in started.stderr


def test_a_bad_configuration_is_said_at_once(home: Home) -> None:
    home.config.write_text("bord = 'pi-1'\n")

    started = _cli(home, "start")

    assert started.returncode == 3
    assert "did you mean 'board'?" in started.stderr
    assert not home.log.exists()


def test_the_daemon_holds_nothing_of_whoever_started_it(home: Home) -> None:
    """An ssh command ends when nobody holds its streams any more: `run` above would wait for ever."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "tflotilla.device", "--home", str(home.path), "start"]
    subprocess.run(command, check=True, pass_fds=[writing], env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL)
    os.close(writing)

    assert os.read(reading, 1) == b""
    os.close(reading)
    pid = guard.status(home)
    assert pid is not None
    assert os.getsid(pid) != os.getsid(0)


def test_the_log_stays_small(tmp_path: Path) -> None:
    with guard._Log(tmp_path / "agent.log", limit_bytes=1000) as log:
        for number in range(200):
            log.write(b"line %d\n" % number)

    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert len(sizes) == 2
    assert max(sizes) <= 1000
    assert (tmp_path / "agent.log").read_text().endswith("line 199\n")


def test_a_lock_belongs_to_one_process_and_names_it(tmp_path: Path) -> None:
    lock = PidLock(tmp_path / "pid")

    assert holder(tmp_path / "pid") is None
    assert lock.acquire()
    assert holder(tmp_path / "pid") == os.getpid()
    assert not PidLock(tmp_path / "pid").acquire()
    lock.release()
    assert holder(tmp_path / "pid") is None
    # The number is still in the file, and nobody believes it.
    assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
