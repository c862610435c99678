"""`watch` as users run it, against scripted boards over a real mosquitto."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.host.telemetry import fake_board

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests import brokers
    from tests.host.telemetry.fake_board import FakeBoard

pytestmark = pytest.mark.mosquitto
PATIENCE_S = 120.0
Make = "Callable[..., FakeBoard]"


def tflotilla(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tflotilla.host", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=os.environ | {"COLUMNS": "200"}
    )


def talk_until(stop: threading.Event, board: FakeBoard) -> threading.Thread:
    def talk() -> None:
        board.say("state", fake_board.state())
        while not stop.wait(0.1):
            board.say("metrics", fake_board.metrics())
            board.say("predictions", fake_board.predictions(time.time()))

    thread = threading.Thread(target=talk)
    thread.start()
    return thread


def watched(board: FakeBoard, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    stop = threading.Event()
    with board:
        thread = talk_until(stop, board)
        try:
            return tflotilla("watch", *arguments)
        finally:
            stop.set()
            thread.join()


def test_watch_prints_one_json_object_per_message(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    result = watched(board("pi-1"), "--fleet", fleet_file, "--for", "2", "--json")

    assert (result.returncode, result.stderr) == (0, "")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["board"] for line in lines} == {"pi-1"}
    by_channel = {line["channel"]: line for line in lines}
    assert set(by_channel) == {"availability", "state", "metrics", "predictions"}
    assert by_channel["predictions"]["message"]["body"]["results"][0]["top"][0]["label"] == "seven"


def test_watch_prints_plain_lines_when_piped(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    result = watched(board("pi-1"), "--fleet", fleet_file, "--for", "2")

    assert (result.returncode, result.stderr) == (0, "")
    assert "pi-1             online\n" in result.stdout
    assert "10.0 inferences/s, p50 25.0 µs, p99 75.0 µs, mostly seven\n" in result.stdout
    assert "\x1b" not in result.stdout


def on_a_terminal(board: FakeBoard, *arguments: str | Path, types: bytes = b"") -> tuple[str, int]:
    """Run `watch` on a terminal of 24 lines; type once the board is drawn; return what was shown, and the exit code."""
    master, slave = pty.openpty()
    stop = threading.Event()
    shown = b""
    with board as talking:
        thread = talk_until(stop, talking)
        command = [sys.executable, "-m", "tflotilla.host", "watch", *map(str, arguments)]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
        with subprocess.Popen(command, stdout=slave, stdin=slave, env=environment) as process:
            os.close(slave)
            try:
                while data := os.read(master, 65536):
                    shown += data
                    if types and b"seven" in shown:
                        os.write(master, types)
                        types = b""
            except OSError:  # how Linux says that the other end of a terminal is gone
                pass
        stop.set()
        thread.join()
    os.close(master)
    return shown.decode(), process.returncode


def test_watch_draws_a_table_on_a_terminal(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    shown, _ = on_a_terminal(board("pi-1"), "--fleet", fleet_file, "--for", "2")

    assert "digits-1.0.0" in shown
    assert "litert x2" in shown
    # Boards that never spoke are there, too, and hurt more than one that works.
    assert shown.index("pi-3") < shown.rindex("pi-1")


def test_watch_obeys_keys_and_ends_when_asked(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    shown, code = on_a_terminal(board("pi-1"), "--fleet", fleet_file, "--sort", "p99", types=b"nq")

    assert "by p99; " in shown
    assert "by name; " in shown
    assert 0 == code


def test_watch_shows_only_the_boards_that_were_picked(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    shown, _ = on_a_terminal(board("pi-1"), "--fleet", fleet_file, "--for", "2", "--filter", "!pi-3")
    piped = watched(board("pi-1"), "--fleet", fleet_file, "--for", "1", "--filter", "pi-3")

    assert "pi-2" in shown
    assert "pi-3" not in shown
    assert (0, "") == (piped.returncode, piped.stdout)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--sort", "size"), "--sort 'size': expected one of hurt, name, p99"),
        (("--filter", "pi-9"), "no board 'pi-9'; the fleet has pi-1, pi-2, pi-3"),
    ],
)
def test_watch_refuses_what_it_cannot_show(arguments: tuple[str, ...], expected: str, fleet_file: Path) -> None:
    result = tflotilla("watch", "--fleet", fleet_file, *arguments)

    assert (2, "") == (result.returncode, result.stdout)
    assert expected in result.stderr


def test_watch_says_when_the_broker_is_down(fleet_file: Path, mosquitto: brokers.Mosquitto) -> None:
    mosquitto.kill()

    result = tflotilla("watch", "--fleet", fleet_file, "--for", "1")

    assert result.returncode == 10
    assert result.stdout == ""
    assert result.stderr.startswith(f"tflotilla: MQTT broker 127.0.0.1:{mosquitto.port} can't be reached")
    assert result.stderr.count("\n") == 1


def test_watch_says_when_the_password_is_refused(fleet_file: Path) -> None:
    (fleet_file.parent / "password").write_text("wrong\n")

    result = tflotilla("watch", "--fleet", fleet_file, "--for", "1")

    assert result.returncode == 10
    assert "refuses user 'host'" in result.stderr


@pytest.mark.parametrize("seconds", ["0", "-1"])
def test_watch_for_no_time_is_a_usage_error(fleet_file: Path, seconds: str) -> None:
    assert tflotilla("watch", "--fleet", fleet_file, "--for", seconds).returncode == 2


def test_a_fleet_without_a_broker_is_told_what_to_add(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text('name = "barn"\n[boards.pi]\nhost = "pi"\n')

    for command in (("watch", "--for", "1"), ("benchmark", "all", "--over", "mqtt")):
        result = tflotilla(*command, "--fleet", tmp_path / "fleet.toml")
        assert result.returncode == 3
        assert "no [mqtt] table" in result.stderr
