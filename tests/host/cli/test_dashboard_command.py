"""`dashboard` as users run it, with scripted boards over a real mosquitto."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.brokers import until
from tests.host.telemetry import fake_board

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests import brokers
    from tests.host.telemetry.fake_board import FakeBoard

TOKEN = "0123456789abcdef"
BEARER = {"authorization": f"Bearer {TOKEN}"}
PATIENCE_S = 120.0


@contextlib.contextmanager
def dashboard(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Run the command on a free port, and end it by SIGTERM."""
    command = [sys.executable, "-m", "tflotilla.host", "dashboard", "--listen", "127.0.0.1:0", "--json"]
    with subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            with httpx.Client(base_url=json.loads(line)["url"], timeout=PATIENCE_S) as client:
                yield process, client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)


def failed(*arguments: str | Path) -> tuple[int, str]:
    """Run the command to its end; return its exit code and its one line."""
    command = [sys.executable, "-m", "tflotilla.host", "dashboard", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return result.returncode, result.stderr


def tile(client: httpx.Client, board: str) -> dict[str, Any]:
    """Return a board's tile as it is now."""
    tiles = client.get("/api/fleet").json()["tiles"]
    return next(each for each in tiles if each["board"] == board)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(TOKEN)
    return file


@pytest.mark.mosquitto
def test_what_boards_say_over_the_broker_is_on_the_page(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    with dashboard("--fleet", fleet_file) as (process, client), board("pi-1") as one:
        one.say("state", fake_board.state())
        one.say("metrics", fake_board.metrics())
        until(lambda: tile(client, "pi-1")["rate"] == 10.0, "the board's figures")

        assert ("online", "digits-1.0.0") == (tile(client, "pi-1")["status"], tile(client, "pi-1")["model"])
        assert "unknown" == tile(client, "pi-2")["status"]
        one.die()
        until(lambda: tile(client, "pi-1")["status"] == "offline", "the board to be offline")
    assert 0 == process.returncode


@pytest.mark.mosquitto
def test_a_board_is_asked_to_measure_by_who_has_the_token(
    fleet_file: Path, token_file: Path, board: Callable[..., FakeBoard]
) -> None:
    with dashboard("--fleet", fleet_file, "--token-file", token_file) as (_process, client), board("pi-1") as one:
        until(lambda: tile(client, "pi-1")["status"] == "online", "the board to be heard")
        path, confirmed = "/api/boards/pi-1/benchmark", {"confirm": "pi-1"}

        assert 401 == client.post(path, json=confirmed).status_code
        answer = client.post(path, json=confirmed, headers=BEARER)
        until(lambda: bool(one.requests), "the board to be asked")

    assert [(202, answer.json()["request"], False)] == [
        (answer.status_code, request.request, request.cancel) for request in one.requests
    ]


@pytest.mark.mosquitto
def test_the_page_outlives_the_broker(
    fleet_file: Path, token_file: Path, mosquitto: brokers.Mosquitto, board: Callable[..., FakeBoard]
) -> None:
    with dashboard("--fleet", fleet_file, "--token-file", token_file) as (_process, client):
        with board("pi-1"):
            until(lambda: tile(client, "pi-1")["status"] == "online", "the board to be heard")
            mosquitto.kill()
            until(lambda: not client.get("/api/fleet").json()["connected"], "the page to notice")

            assert "online" == tile(client, "pi-1")["status"]
            assert "the connection to the MQTT broker was lost" == client.get("/api/fleet").json()["reason"]
            refused = client.post("/api/boards/pi-1/benchmark", json={"confirm": "pi-1"}, headers=BEARER)
            assert (503, "the MQTT broker is away; nothing was asked") == (
                refused.status_code,
                refused.json()["error"],
            )
        mosquitto.start()
        with board("pi-2"):
            until(lambda: tile(client, "pi-2")["status"] == "online", "the other board to be heard", timeout_s=90)

        assert client.get("/api/fleet").json()["connected"] is True


@pytest.mark.mosquitto
def test_no_board_is_called_silent_because_the_broker_hangs(
    fleet_file: Path, mosquitto: brokers.Mosquitto, board: Callable[..., FakeBoard]
) -> None:
    with dashboard("--fleet", fleet_file) as (_process, client), board("pi-1") as one:
        one.say("state", fake_board.state())
        one.say("metrics", fake_board.metrics())
        until(lambda: tile(client, "pi-1")["rate"] == 10.0, "the board's figures")
        mosquitto.freeze()
        try:
            until(lambda: not client.get("/api/fleet").json()["connected"], "the page to notice")

            assert "online" == tile(client, "pi-1")["status"]
        finally:
            mosquitto.thaw()
        until(lambda: client.get("/api/fleet").json()["connected"], "the page to be back", timeout_s=90)


def test_the_page_lives_without_a_broker_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('name = "barn"\n[mqtt]\nport = 1\n[boards.pi-1]\nhost = "127.0.0.1"\n')
    with dashboard("--fleet", file) as (_process, client):
        until(lambda: "refused" in client.get("/api/fleet").json()["reason"], "the reason")
        fleet = client.get("/api/fleet").json()

    assert (False, ["pi-1"]) == (fleet["connected"], [each["board"] for each in fleet["tiles"]])
    assert "MQTT broker 127.0.0.1:1 can't be reached" in fleet["reason"]


def test_a_fleet_without_a_broker_is_told_what_to_add(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('name = "barn"\n')
    with dashboard("--fleet", file) as (_process, client):
        fleet = client.get("/api/fleet").json()

    assert f"{file} has no [mqtt] table; add host and port of your broker" == fleet["reason"]


def test_boards_that_are_added_to_the_fleet_file_appear(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('name = "barn"\n[boards.pi-1]\nhost = "127.0.0.1"\n')
    with dashboard("--fleet", file) as (_process, client):
        before = [each["board"] for each in client.get("/api/fleet").json()["tiles"]]
        file.write_text('name = "barn"\n[boards.pi-2]\nhost = "127.0.0.1"\nlabels = { room = "roof" }\n')
        until(lambda: "pi-2" in client.get("/api/fleet").text, "the new board")
        after = client.get("/api/fleet").json()["tiles"]
        file.write_text("name = [")

        assert 200 == client.get("/api/fleet").status_code
    assert ["pi-1"] == before
    assert [("pi-2", {"room": "roof"})] == [(each["board"], each["labels"]) for each in after]


def test_a_damaged_journal_does_not_end_the_page(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('name = "barn"\n')
    (tmp_path / ".tflotilla").mkdir()
    (tmp_path / ".tflotilla" / "rollouts.db").mkdir()
    with dashboard("--fleet", file) as (_process, client):
        answer = client.get("/api/rollouts")

    assert (200, []) == (answer.status_code, answer.json()["rollouts"])
    assert "rollouts.db" in answer.json()["problem"]


def test_ctrl_c_ends_it_even_while_browsers_look(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('name = "barn"\n')
    with (
        dashboard("--fleet", file) as (process, client),
        client.stream("GET", "/api/stream") as answer,
    ):
        next(answer.iter_lines())
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)
        assert process.stderr is not None

        assert (0, "") == (process.returncode, process.stderr.read())


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('name = "barn"\n')
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        assert (
            3,
            f"tflotilla: the page can't be served on 127.0.0.1 port {port}: Address already in use; "
            "choose another with --listen\n",
        ) == failed("--fleet", file, "--listen", f"127.0.0.1:{port}")


@pytest.mark.parametrize("listen", ["", "nonsense", "127.0.0.1:", "127.0.0.1:70000", "a b:1", "::1:80"])
def test_an_address_that_is_none_is_one_line(tmp_path: Path, listen: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('name = "barn"\n')

    assert (
        2,
        f"tflotilla: --listen must be HOST:PORT, like 127.0.0.1:8080, not {listen!r}\n",
    ) == failed("--fleet", file, "--listen", listen)


def test_a_token_that_is_none_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('name = "barn"\n')
    code, line = failed("--fleet", file, "--token-file", tmp_path / "nothing")

    assert (3, f"tflotilla: token file {tmp_path}/nothing can't be read: No such file or directory\n") == (code, line)


def test_a_page_that_others_reach_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('name = "barn"\n')
    command = [sys.executable, "-m", "tflotilla.host", "dashboard", "--fleet", str(file), "--listen", "0.0.0.0:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)

        assert url.startswith("barn: http://0.0.0.0:")
        assert (
            "whoever reaches 0.0.0.0 can look at the fleet; nobody can act, because there is no --token-file\n"
            == process.stderr.read()
        )
