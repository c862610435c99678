"""The whole way by commands alone, on a real OpenSSH sshd and a real mosquitto.

One board, from nothing but sshd and python3 to a rollback; the tests are steps of one story and run in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import brokers, sshd
from tests.end_to_end import real_servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.end_to_end.commands import Person

pytestmark = [pytest.mark.sshd, pytest.mark.mosquitto, pytest.mark.xdist_group("real_servers")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_servers.fill(tmp_path_factory.mktemp("end to end $(id)"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.Mosquitto]:
    folder = tmp_path_factory.mktemp("broker")
    with brokers.mosquitto(folder, username=real_servers.USER, password=real_servers.PASSWORD) as running:
        yield running


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path_factory.mktemp("board")) as running:
        yield running


@pytest.fixture(scope="module")
def person(folder: Path, broker: brokers.Mosquitto, board: sshd.Sshd) -> Person:
    return real_servers.enrol(folder, broker, board)


def test_a_board_that_does_not_serve_yet_says_so(person: Person) -> None:
    (status,) = person.types("status", "--json").document["boards"]

    assert "pi-1" == status["board"]
    assert status.get("serving") is None


def test_a_deployment_succeeds(person: Person) -> None:
    person.types("check", "digits-1.0.0.tflb", "site=lab")
    done = person.types("deploy", "digits-1.0.0.tflb", "site=lab", "--json").document

    (board,) = done["boards"]
    states = [status["state"] for status in board["statuses"]]
    assert ["transferring", "verifying", "probing", "switching", "confirming", "succeeded"] == states


def test_the_same_again_sends_less_than_4_kib(person: Person) -> None:
    done = person.types("deploy", "digits-1.0.0.tflb", "all", "--json").document

    (board,) = done["boards"]
    assert board["changed"] is False
    assert board["bytes_sent"] < 4096


def test_predictions_arrive_with_the_right_labels(person: Person) -> None:
    """A picture's name holds its class, a space, quotes and `$(…)`."""
    messages = person.types("watch", "--for", "4", "--json").lines

    results = [
        result
        for message in messages
        if message.get("channel") == "predictions"
        for result in message["message"]["body"]["results"]
    ]
    right = [result for result in results if result["item"].rpartition("/")[2].split()[0] == result["top"][0]["label"]]
    assert len(results) > 20
    assert len(results) == len(right)


def test_a_picture_that_is_none_is_an_error_and_not_the_end(person: Person) -> None:
    messages = person.types("watch", "--for", "3", "--json").lines

    windows = [m["message"]["body"] for m in messages if m.get("channel") == "metrics"]
    assert sum(window["unreadable"] for window in windows) > 0
    assert sum(window["errors"] for window in windows) == 0


def test_a_benchmark_comes_back_over_mqtt(person: Person) -> None:
    done = person.types("benchmark", "pi-1", "--threads", "1", "--max-seconds", "2", "--json")

    assert "pi-1" in done.out
    assert "p50" in done.out


def test_a_release_goes_out_and_comes_back(person: Person) -> None:
    person.types("deploy", "digits-2.0.0.tflb", "all")
    (second,) = person.types("status", "--json").document["boards"]
    person.types("rollback", "all")
    (first,) = person.types("status", "--json").document["boards"]

    assert ("2.0.0", "1.0.0") == (second["serving"]["version"], first["serving"]["version"])


def test_an_older_release_is_refused(person: Person) -> None:
    """Over `deploy` nobody can bring an old bundle back; that is what `rollback` is for."""
    person.types("deploy", "digits-2.0.0.tflb", "all")

    refused = person.types("deploy", "digits-1.0.0.tflb", "all", code=11)

    assert "release" in refused.err


def test_an_edited_bundle_is_refused_before_anything_is_sent(person: Person) -> None:
    data = bytearray((person.folder / "digits-2.0.0.tflb").read_bytes())
    place = data.index(b'"release":2')
    data[place + 10 : place + 11] = b"9"
    (person.folder / "edited.tflb").write_bytes(data)

    refused = person.types("deploy", "edited.tflb", "all", code=None)

    assert refused.code in (3, 8)
    assert refused.err.count("\n") <= 2


def test_a_changed_host_key_stops_everything(person: Person, board: sshd.Sshd) -> None:
    before = board.host_key.read_bytes(), board.host_key.with_suffix(".pub")
    kept = before[1].read_bytes() if before[1].exists() else None
    board.change_host_key()
    try:
        refused = person.types("status", code=6)
    finally:
        board.host_key.write_bytes(before[0])
        if kept is not None:
            before[1].write_bytes(kept)
        board.restart()

    assert "host key" in refused.err
    person.types("status")


def test_a_board_that_is_off_is_said_to_be_off(person: Person, board: sshd.Sshd) -> None:
    board.relay.stop()
    try:
        refused = person.types("deploy", "digits-2.0.0.tflb", "all", code=5)
    finally:
        board.relay.start()

    assert "pi-1" in refused.err


def test_a_broker_that_is_down_is_said_to_be_down(person: Person, broker: brokers.Mosquitto) -> None:
    broker.stop()
    try:
        refused = person.types("watch", "--for", "1", code=10)
    finally:
        broker.start()

    assert str(broker.port) in refused.err


def test_a_wrong_password_is_said_to_be_wrong(person: Person) -> None:
    (person.folder / "password").write_text("guessed")
    try:
        refused = person.types("watch", "--for", "1", code=10)
    finally:
        (person.folder / "password").write_text(real_servers.PASSWORD)

    assert "password" in refused.err


def test_removing_a_board_leaves_nothing_there(person: Person, board: sshd.Sshd) -> None:
    person.types("board", "remove", "pi-1", "--purge")

    assert not (board.home / ".local/share/tflotilla").exists()
    assert "pi-1" not in (person.folder / "fleet.toml").read_text()
