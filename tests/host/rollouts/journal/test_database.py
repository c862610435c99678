"""What every journal promises, whichever database keeps it; the PostgreSQL is a real one."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests import postgres
from tests.host.rollouts import made
from tflotilla.host.rollouts.events import Finished, Paused, Resumed, WaveBegan
from tflotilla.host.rollouts.journal import database
from tflotilla.shared.contract.errors import BusyError, ConflictError, InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tflotilla.host.rollouts.journal.port import Journal

NAME = "digits-2.0.0-7f3a"
_OTHER_PROCESS = """
import sys, time
from tflotilla.host.rollouts.journal import database
database.open_journal(sys.argv[1]).take(sys.argv[2], holder="ben@desk 7", at=1000.0, for_s=30.0)
print("taken", flush=True)
sys.stdin.read()
"""


_WRITER = """
import sys
from tflotilla.host.rollouts.journal import database
from tflotilla.host.rollouts.events import Paused
journal = database.open_journal(sys.argv[1])
while True:
    print(journal.append(sys.argv[2], [Paused(), Paused(), Paused()], by="anna", at=1.0)[-1].number, flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    with postgres.server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a journal may be made; nothing is there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'a folder? #1' / 'rollouts.db'}"
    running: postgres.Postgres = request.getfixturevalue("server")
    # A database for each test would be a thousand files each.
    running.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return running.url()


@pytest.fixture
def opened(url: str) -> Iterator[Callable[[], Journal]]:
    """Opens the same journal as often as it is called."""
    journals: list[Journal] = []

    def open_one() -> Journal:
        journals.append(database.open_journal(url))
        return journals[-1]

    yield open_one
    for journal in journals:
        journal.close()


@pytest.fixture
def journal(opened: Callable[[], Journal]) -> Journal:
    """A journal with one rollout."""
    found = opened()
    found.create(made.plan(), by="anna@desk", at=1000.0)
    return found


def test_looking_into_one_that_does_not_exist_makes_none(
    url: str, opened: Callable[[], Journal], tmp_path: Path
) -> None:
    looking = opened()

    assert ((), (), None) == (looking.rollouts(), tuple(looking.audit_log()), looking.audit_fault())
    assert not url.startswith("sqlite") or [] == list(tmp_path.iterdir())


def test_a_rollout_nobody_began_is_told_with_those_there_are(opened: Callable[[], Journal]) -> None:
    journal = opened()
    with pytest.raises(UsageError, match="none was ever begun here"):
        journal.plan("mnist-1")
    journal.create(made.plan("a-1"), by="anna", at=1.0)
    journal.create(made.plan("b-1"), by="anna", at=2.0)

    with pytest.raises(UsageError, match="there is no rollout 'mnist-1'; the last are b-1, a-1"):
        journal.plan("mnist-1")
    with pytest.raises(UsageError, match="there is no rollout 'mnist-1'"):
        journal.append("mnist-1", [Paused()], by="anna", at=3.0)
    assert ("a-1", "b-1") == journal.rollouts()


def test_how_long_stories_are_is_told_oldest_first(journal: Journal) -> None:
    journal.create(made.plan("a-1"), by="anna@desk", at=1001.0)
    journal.append(NAME, [Paused(), Resumed()], by="anna@desk", at=1002.0)

    assert [(NAME, 2), ("a-1", 0)] == list(journal.lengths().items())


def test_what_was_written_is_there_for_others_who_open_it(journal: Journal, opened: Callable[[], Journal]) -> None:
    wrote = journal.append(NAME, [WaveBegan(wave=0), made.claimed()], by="anna@desk", at=1001.5)
    wrote += journal.append(NAME, [made.deployed(detail="tuned \x00 \udc80 ü")], by="anna@desk", at=1002.0)

    other = opened()

    assert made.plan() == other.plan(NAME)
    assert wrote == other.events(NAME)
    assert wrote[2:] == other.events(NAME, after=2)
    assert [1, 2, 3] == [each.number for each in wrote]


def test_a_second_rollout_of_the_same_name_is_refused(journal: Journal) -> None:
    with pytest.raises(ConflictError, match=r"there is a rollout digits-2.0.0-7f3a already"):
        journal.create(made.plan(), by="ben", at=1.0)


def test_nothing_is_appended_when_a_part_of_it_can_not_be(journal: Journal) -> None:
    broken = made.deployed()
    object.__setattr__(broken, "duration_s", float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        journal.append(NAME, [WaveBegan(wave=0), broken], by="anna", at=1.0)

    assert () == journal.events(NAME)


def test_of_many_who_append_at_once_every_event_gets_a_number_of_its_own(
    journal: Journal, opened: Callable[[], Journal]
) -> None:
    writers = [opened() for _ in range(4)]

    def write(writer: Journal) -> None:
        for wave in range(10):
            writer.append(NAME, [WaveBegan(wave=wave), Paused()], by="anna", at=1.0)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert list(range(1, 81)) == [each.number for each in journal.events(NAME)]


def test_a_second_conductor_hears_who_the_first_is(journal: Journal, opened: Callable[[], Journal]) -> None:
    journal.take(NAME, holder="anna@desk 12", at=1000.0, for_s=30.0)

    with pytest.raises(BusyError, match=r"digits-2.0.0-7f3a is conducted by anna@desk 12"):
        opened().take(NAME, holder="ben@desk 13", at=1029.0, for_s=30.0)
    assert "anna@desk 12" == opened().conductor(NAME, at=1029.0)


def test_a_lease_that_ran_out_can_be_taken_and_fences_off_who_had_it(
    journal: Journal, opened: Callable[[], Journal]
) -> None:
    lost = journal.take(NAME, holder="anna@desk 12", at=1000.0, for_s=30.0)
    other = opened()
    taken = other.take(NAME, holder="ben@desk 13", at=1030.0, for_s=30.0)

    with pytest.raises(ConflictError, match="is conducted by ben@desk 13 now, not by anna@desk 12 any more"):
        journal.append(NAME, [Finished()], by="anna", at=1031.0, lease=lost)
    with pytest.raises(ConflictError, match="ben@desk 13"):
        journal.renew(lost, at=1031.0, for_s=30.0)
    # Giving back what one hasn't got any more takes it from nobody.
    journal.release(lost)
    assert "ben@desk 13" == journal.conductor(NAME, at=1031.0)
    assert 1 == len(other.append(NAME, [Resumed()], by="ben", at=1031.0, lease=taken))


def test_a_lease_that_is_renewed_stays(journal: Journal, opened: Callable[[], Journal]) -> None:
    lease = journal.take(NAME, holder="anna@desk 12", at=1000.0, for_s=30.0)
    renewed = journal.renew(lease, at=1020.0, for_s=30.0)

    with pytest.raises(BusyError):
        opened().take(NAME, holder="ben@desk 13", at=1049.0, for_s=30.0)
    assert 1 == len(journal.append(NAME, [Paused()], by="anna", at=1049.0, lease=renewed))


def test_a_lease_that_was_given_back_is_free_at_once(journal: Journal, opened: Callable[[], Journal]) -> None:
    first = journal.take(NAME, holder="anna@desk 12", at=1000.0, for_s=30.0)
    journal.release(first)
    second = opened().take(NAME, holder="ben@desk 13", at=1000.5, for_s=30.0)

    assert first.token < second.token
    with pytest.raises(ConflictError):
        journal.append(NAME, [Finished()], by="anna", at=1001.0, lease=first)


def test_the_lease_of_a_process_that_was_killed_here_is_taken_at_once(journal: Journal, url: str) -> None:
    command = [sys.executable, "-c", _OTHER_PROCESS, url, NAME]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"taken\n" == process.stdout.readline()
        with pytest.raises(BusyError, match="ben@desk 7"):
            journal.take(NAME, holder="anna@desk 12", at=1001.0, for_s=30.0)
        process.send_signal(signal.SIGKILL)
        process.wait()

    assert journal.conductor(NAME, at=1001.0) is None
    assert "anna@desk 12" == journal.take(NAME, holder="anna@desk 12", at=1001.0, for_s=30.0).holder


def test_what_a_killed_process_appended_is_there_and_whole(journal: Journal, url: str) -> None:
    with subprocess.Popen([sys.executable, "-c", _WRITER, url, NAME], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout.read().split()]

    count = len(journal.events(NAME))
    assert told[-1] <= count
    assert 0 == count % 3


def test_the_audit_log_is_a_chain_over_everybody_who_writes(journal: Journal, opened: Callable[[], Journal]) -> None:
    writers = [opened() for _ in range(3)]

    def write(writer: Journal, who: int) -> None:
        for number in range(5):
            writer.audit("start", by=f"user-{who}", at=1.5, rollout=NAME, detail={"number": number, "waves": (1, 2)})

    threads = [threading.Thread(target=write, args=each) for each in zip(writers, range(3), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    log = list(journal.audit_log())
    assert list(range(1, 16)) == [entry.number for entry in log]
    assert {"number": 0, "waves": [1, 2]} == log[0].detail
    assert journal.audit_fault() is None


def test_a_newer_tflotillas_journal_is_left_as_it_is(journal: Journal, opened: Callable[[], Journal], url: str) -> None:
    _tamper(url, "UPDATE tflotilla_meta SET value = '2'")

    with pytest.raises(InputError, match=r"was written by a newer tflotilla \(version 2\); upgrade this one"):
        opened().rollouts()
    assert (NAME,) == journal.rollouts()


@pytest.mark.parametrize("table", ["rollouts", "events", "audit"])
@pytest.mark.parametrize("change", ["DELETE FROM tflotilla_{}", "UPDATE tflotilla_{} SET {}"])
def test_the_database_itself_refuses_to_change_what_was_written(
    journal: Journal, url: str, table: str, change: str
) -> None:
    journal.append(NAME, [Paused()], by="anna", at=1.0)
    journal.audit("pause", by="anna", at=1.0, rollout=NAME, detail={})
    column = {"rollouts": "name = 'x'", "events": "number = 9", "audit": "document = '{}'"}[table]

    with pytest.raises(Exception, match="append-only"):
        _tamper(url, change.format(table, column))


def test_a_server_that_is_away_is_one_line_without_the_password(server: postgres.Postgres) -> None:
    server.stop()
    try:
        with pytest.raises(InputError) as caught:
            database.open_journal(server.url()).rollouts()
    finally:
        server.start()

    said = str(caught.value)
    assert said.startswith(f"the journal postgresql://fleet@127.0.0.1:{server.port}/postgres can't be used: ")
    assert ("refused" in said, "\n" in said, "secret" in said) == (True, False, False)


def test_a_wrong_password_is_one_line_without_it(server: postgres.Postgres) -> None:
    with pytest.raises(InputError) as caught:
        database.open_journal(server.url(password="not-the-one")).rollouts()

    assert "password authentication failed" in str(caught.value)
    assert "not-the-one" not in str(caught.value)


def test_a_server_that_was_restarted_is_used_again(server: postgres.Postgres) -> None:
    journal = database.open_journal(server.url())
    journal.create(made.plan("over-a-restart"), by="anna", at=1.0)
    server.stop()
    server.start()

    assert "over-a-restart" in journal.rollouts()
    journal.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://root:secret@db/x", "mysql is not supported; use postgresql:// or a file's path"),
        ("postgresql://u:secret@[::1/x", "is no URL"),
        ("://secret", "is no URL"),
    ],
)
def test_another_database_is_refused_without_repeating_a_password(url: str, said: str) -> None:
    with pytest.raises(InputError, match="journal") as caught:
        database.open_journal(url)

    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def _tamper(url: str, statement: str) -> None:
    if url.startswith("sqlite:///"):
        import sqlite3

        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute(statement)
    else:
        with psycopg.connect(url) as connection_:
            connection_.execute(statement.encode())
