"""`tflotilla collect` over a real mosquitto while brokers, disks, databases and the collector itself fail.

What must hold whatever fails: what a board was acked is in the store, once; nothing is said for ever; nothing crashes.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import brokers
from tests.host.telemetry.conftest import FLEET, PASSWORD
from tests.host.telemetry.fake_board import metrics
from tests.host.telemetry.keen_board import KeenBoard
from tflotilla.shared.contract import messages, topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tflotilla.shared.contract.agent_config import MqttConfig

pytestmark = pytest.mark.mosquitto
_PATIENCE_S = brokers.PATIENCE_S
_COMMAND = (sys.executable, "-m", "tflotilla.host", "collect")


@dataclass(kw_only=True)
class Running:
    """A collector in a process of its own."""

    fleet_file: Path
    folder: Path
    #: A file, or a URL.
    store: Path | str
    more: tuple[str, ...] = ()
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with (self.folder / "said").open("a") as said:
            self.process = subprocess.Popen(
                [*_COMMAND, "--fleet", str(self.fleet_file), "--store", str(self.store), "--json", *self.more],
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
            )
        began = self.said.count("collecting ")
        brokers.until(lambda: self.said.count("collecting ") > began or self._ended, "the collector to listen")
        assert not self._ended, self.said

    @property
    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    def end(self) -> None:
        """End it whatever it does."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def signal(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=_PATIENCE_S)

    def stop(self) -> dict[str, Any]:
        """End it as systemd does; return what it said last."""
        assert self.signal(signal.SIGTERM) == 0, self.said
        last = [line for line in self.said.splitlines() if line.startswith("{")][-1]
        document: dict[str, Any] = json.loads(last)
        return document

    def stored(self) -> list[tuple[str, str, int]]:
        """(board, boot, seq) of every message in the store, in order."""
        with contextlib.closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as connection:
            return sorted(
                connection.execute(
                    "SELECT b.name, o.boot, m.seq FROM telemetry_metrics m JOIN telemetry_boots o ON m.boot = o.id "
                    "JOIN telemetry_boards b ON o.board = b.id"
                ).fetchall()
            )


@pytest.fixture
def collector(fleet_file: Path, tmp_path: Path) -> Iterator[Running]:
    running = Running(fleet_file=fleet_file, folder=tmp_path, store=tmp_path / "telemetry.db")
    running.start()
    yield running
    running.end()


@pytest.fixture
def board(config: MqttConfig) -> Callable[..., KeenBoard]:
    def make(**more: Any) -> KeenBoard:  # noqa: ANN401 - fields of KeenBoard
        return KeenBoard(**{"config": config, "password": PASSWORD, "fleet": FLEET, "board": "pi-1", **more})

    return make


def all_of(board: KeenBoard) -> list[tuple[str, str, int]]:
    return [(board.board, board.boot, number) for number in range(1, board.last + 1)]


def test_what_is_reported_is_stored_once_and_acked(collector: Running, board: Callable[..., KeenBoard]) -> None:
    with board(last=200) as talking:
        brokers.until(lambda: talking.done, "everything to be acked")
    last = collector.stop()

    assert all_of(talking) == collector.stored()
    assert (200, 0, 0, 0) == (last["stored"], last["missing"], last["garbage"], last["dropped"])


def test_a_broker_that_is_killed_loses_nothing_that_matters(
    collector: Running, board: Callable[..., KeenBoard], mosquitto: brokers.Mosquitto
) -> None:
    with board(last=600) as talking:
        brokers.until(lambda: len(talking.acked) > 50, "some acks")
        mosquitto.kill()
        mosquitto.start()
        brokers.until(lambda: talking.done, "everything to be acked")
    collector.stop()

    assert all_of(talking) == collector.stored()
    assert "the connection to the MQTT broker" in collector.said
    assert "the MQTT broker is back" in collector.said


def test_a_collector_that_is_killed_again_and_again_acked_nothing_that_is_lost(
    collector: Running, board: Callable[..., KeenBoard]
) -> None:
    with board(last=800) as talking:
        for share in (0.1, 0.3, 0.5):
            brokers.until(lambda share=share: len(talking.acked) > talking.last * share, "some acks")  # type: ignore[misc]
            collector.signal(signal.SIGKILL)
            stored = {number for _, _, number in collector.stored()}
            assert talking.acked <= stored
            collector.start()
        brokers.until(lambda: talking.done, "everything to be acked")
    collector.stop()

    assert all_of(talking) == collector.stored()


def test_what_comes_while_the_collector_is_away_waits_for_it_at_the_broker(
    collector: Running, board: Callable[..., KeenBoard]
) -> None:
    """Also for boards that hear no acks, once each."""
    with board(last=100, pause_s=0.0) as talking:
        collector.stop()
        before = talking.sent
        brokers.until(lambda: talking.sent >= talking.last, "everything to be said")
    collector.start()
    brokers.until(lambda: len(collector.stored()) == talking.last, "everything to be stored")

    assert before <= talking.sent
    assert all_of(talking) == collector.stored()


def test_duplicates_late_and_reordered_messages_and_a_clock_at_1970_are_stored_once(
    collector: Running, board: Callable[..., KeenBoard]
) -> None:
    with board(last=0, clock_s=3.0) as talking:
        for number in (5, 1, 5, 2, 4, 1, 3, 3):
            talking.say(number)
        brokers.until(lambda: talking.acked == {1, 2, 3, 4, 5}, "everything to be acked")
    last = collector.stop()

    assert [("pi-1", "boot-1", number) for number in range(1, 6)] == collector.stored()
    assert (5, 3, 0) == (last["stored"], last["duplicates"], last["missing"])


def test_garbage_is_counted_and_good_reports_around_it_are_stored(
    collector: Running, board: Callable[..., KeenBoard]
) -> None:
    own = topics.topic(FLEET, "pi-1", "metrics")
    foreign = messages.Message(board="pi-2", boot="b", seq=1, time=1.0, bundle=None, body=metrics()).to_bytes()
    rubbish = (b"", b"\xff\xfe\x00", b"[" * 50_000, b"{}", b"NaN", b'{"schema":1,"seq":' + b"9" * 400 + b"}", foreign)
    with board(last=20) as talking:
        for payload in rubbish:
            talking._client.publish(own, payload, qos=1)
        brokers.until(lambda: talking.done, "everything to be acked")
    last = collector.stop()

    assert all_of(talking) == collector.stored()
    assert len(rubbish) - 1 == last["garbage"]


def test_a_locked_database_is_waited_for(collector: Running, board: Callable[..., KeenBoard]) -> None:
    with board(last=300) as talking:
        brokers.until(lambda: len(talking.acked) > 20, "some acks")
        with contextlib.closing(sqlite3.connect(collector.store, timeout=60)) as other:
            other.execute("BEGIN IMMEDIATE")
            brokers.until(lambda: "nothing is acked meanwhile" in collector.said, "the lock to be said")
            stored = {number for _, _, number in collector.stored()}
            assert talking.acked <= stored
            other.rollback()
        brokers.until(lambda: talking.done, "everything to be acked")
    collector.stop()

    assert all_of(talking) == collector.stored()
    assert "the store takes reports again" in collector.said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_waited_for(
    fleet_file: Path, tmp_path: Path, small_disk: Path, board: Callable[..., KeenBoard]
) -> None:
    collector = Running(fleet_file=fleet_file, folder=tmp_path, store=small_disk / "telemetry.db")
    collector.start()
    try:
        with board(last=400) as talking:
            brokers.until(lambda: len(talking.acked) > 20, "some acks")
            filler = small_disk / "filler"
            with contextlib.suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            brokers.until(lambda: "nothing is acked meanwhile" in collector.said, "the full disk to be said")
            stored = {number for _, _, number in collector.stored()}
            assert talking.acked <= stored
            filler.unlink()
            brokers.until(lambda: talking.done, "everything to be acked")
        collector.stop()

        assert all_of(talking) == collector.stored()
    finally:
        collector.end()


def test_a_second_collector_from_the_same_folder_says_that_there_is_one(collector: Running) -> None:
    """At the broker they would take the session from each other for ever."""
    second = [*_COMMAND, "--fleet", str(collector.fleet_file)]
    done = subprocess.run(second, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)

    assert 11 == done.returncode
    assert "a collector goes by" in done.stderr
    assert 1 == len(done.stderr.splitlines())


def test_collectors_of_one_group_share_the_messages(
    fleet_file: Path, tmp_path: Path, board: Callable[..., KeenBoard]
) -> None:
    both = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        running = Running(
            fleet_file=fleet_file,
            folder=tmp_path / name,
            store=tmp_path / f"{name}.db",
            more=("--share", "night", "--name", name),
        )
        running.start()
        both.append(running)
    with board(last=300) as talking:
        brokers.until(lambda: talking.done, "everything to be acked")
    for running in both:
        running.stop()
    parts = [set(running.stored()) for running in both]

    assert set(all_of(talking)) == parts[0] | parts[1]
    assert all(parts)
