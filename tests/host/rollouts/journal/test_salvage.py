"""Damaged journals: what can be read is saved, what is lost is said, and nobody goes on as if nothing were lost."""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.host.rollouts import made
from tflotilla.host.rollouts.events import Event, Finished, Paused, WaveBegan
from tflotilla.host.rollouts.journal import database, salvage
from tflotilla.host.rollouts.journal import files as journal_files
from tflotilla.host.rollouts.journal.audit import Head
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

NAME = "digits-2.0.0-7f3a"
OVER = "over-1.0.0-0000"
_PAGE = 4096
_AT = 1_700_000_000.0


def _story(count: int) -> list[Event]:
    story: list[Event] = [WaveBegan(wave=0)]
    for number in range(count):
        story += [made.claimed(f"pi-{number}"), made.deployed(f"pi-{number}")]
    return story


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A journal with a rollout under way, one that is over, and five audit entries; closed."""
    path = tmp_path / "rollouts.db"
    journal = database.open_journal(f"sqlite:///{path}")
    journal.create(made.plan(OVER, boards=40), by="anna", at=1.0)
    journal.append(OVER, [WaveBegan(wave=0), Finished()], by="anna", at=2.0)
    journal.create(made.plan(NAME, boards=40), by="anna", at=3.0)
    story = _story(100)
    for start in range(0, len(story), 25):
        journal.append(NAME, story[start : start + 25], by="anna@desk", at=4.0 + start)
    for number in range(5):
        journal.audit("start", by="anna", at=1.0, rollout=NAME, detail={"number": number})
    journal.close()
    return path


def _open(path: Path) -> tuple[database.DatabaseJournal, list[str]]:
    told: list[str] = []
    return database.open_journal(f"sqlite:///{path}", tell=told.append, clock=lambda: _AT), told


def _tree(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.parent.iterdir() if not each.name.endswith((".lock", "-shm"))}


def test_every_row_of_a_file_that_is_whole_is_found(file: Path) -> None:
    """The reader of damaged files against SQLite itself."""
    journal, _told = _open(file)
    saved = salvage.journal(*journal_files.contents(file))

    assert [OVER, NAME] == [row.name for row in saved.rollouts]
    assert [2, 201] == [len(row.events) for row in saved.rollouts]
    assert [each.at for each in journal.events(NAME)] == [event.at for event in saved.rollouts[1].events]
    assert (5, 0, 0) == (len(saved.audit), saved.lost_events, saved.lost_audit)


def test_what_only_the_write_ahead_log_holds_is_found(file: Path) -> None:
    journal, _told = _open(file)
    journal.append(NAME, [Paused()], by="anna", at=500.0)
    main, log = journal_files.contents(file)

    assert log
    assert 202 == len(salvage.journal(main, log).rollouts[1].events)
    # The last transaction is torn: it never happened. What is before it did.
    assert 201 == len(salvage.journal(main, log[:-1]).rollouts[1].events)


def test_a_truncated_file_is_saved_and_told(file: Path) -> None:
    os.truncate(file, file.stat().st_size * 2 // 3)

    journal, told = _open(file)

    (line,) = told
    assert line.startswith((f"the journal {file} can't be used: ", f"{file} is damaged: "))
    assert "the damaged file is rollouts.db.damaged-20231114T221320Z; paused until you look at them: " in line
    assert (file.parent / "rollouts.db.damaged-20231114T221320Z").exists()
    story = journal.events(NAME)
    assert 0 < len(story) <= 202
    assert _story(100)[: len(story) - 1] == [each.event for each in story[:-1]]
    assert Paused() == story[-1].event
    assert made.plan(NAME, boards=40) == journal.plan(NAME)
    assert ([], None) == (_open(file)[1], journal.audit_fault())
    last = list(journal.audit_log())[-1]
    assert ("salvage", "rollouts.db.damaged-20231114T221320Z") == (last.action, last.detail["damaged_file"])


@pytest.mark.parametrize("missing", [1, 700, _PAGE - 1])
def test_a_file_that_ends_within_a_page_is_not_taken_for_one_that_ends_in_zeros(file: Path, missing: int) -> None:
    os.truncate(file, file.stat().st_size - missing)

    journal, told = _open(file)

    assert 1 == len(told)
    assert told[0].startswith(f"{file} is cut off, and its audit log had 5 entries; saved were 2 rollouts")
    assert [OVER, NAME] == list(journal.rollouts())
    assert len(journal.events(NAME)) > 0


@pytest.mark.parametrize("left", [1, 99, 511])
def test_a_file_of_which_hardly_anything_is_left_is_not_taken_for_an_empty_one(file: Path, left: int) -> None:
    os.truncate(file, left)

    with pytest.raises(InputError, match="is cut off, and its audit log had 5 entries; nothing of it can be read"):
        _open(file)


def test_a_rollout_that_was_over_stays_over(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)

    journal, _told = _open(file)

    assert [WaveBegan(wave=0), Finished()] == [each.event for each in journal.events(OVER)]


@pytest.mark.parametrize("seed", range(25))
def test_a_file_damaged_anywhere_never_opens_as_if_nothing_were_lost(file: Path, seed: int) -> None:
    """Cut, zeroed or scribbled over at random: what opens is a beginning of every story, or one line says why not."""
    dice = random.Random(seed)  # noqa: S311 - a seeded test
    data = bytearray(file.read_bytes())
    pages = len(data) // _PAGE
    harm = dice.choice(["cut", "zero", "scribble", "header"])
    start = dice.randrange(pages) * _PAGE
    if harm == "cut":
        del data[start + dice.randrange(_PAGE) :]
    elif harm == "zero":
        data[start : start + _PAGE] = bytes(_PAGE)
    elif harm == "scribble":
        data[start : start + 64] = dice.randbytes(64)
    else:
        data[:100] = dice.randbytes(100)
    file.write_bytes(data)

    try:
        journal, told = _open(file)
        stories = {name: [each.event for each in journal.events(name)] for name in journal.rollouts()}
    except InputError:
        return

    full: dict[str, list[Event]] = {OVER: [WaveBegan(wave=0), Finished()], NAME: _story(100)}
    for name, story in stories.items():
        kept = story[:-1] if story[-1:] == [Paused()] else story
        assert full[name][: len(kept)] == kept
    # Every loss was told; a byte that nobody uses may change unnoticed.
    assert told or stories == full


def test_a_file_of_which_nothing_reads_is_left_where_it_is(file: Path) -> None:
    file.write_bytes(os.urandom(50_000))
    before = _tree(file)

    with pytest.raises(InputError, match="nothing of it can be read: bring it back from a copy"):
        _open(file)

    assert before == _tree(file)


@pytest.mark.parametrize("harm", ["gone", "empty"])
def test_a_file_that_is_gone_is_not_begun_anew_in_silence(file: Path, harm: str) -> None:
    file.unlink()
    if harm == "empty":
        file.touch()

    with pytest.raises(InputError, match=f"is {harm}, and its audit log had 5 entries; nothing of it can be read"):
        _open(file)


def test_some_other_database_is_left_as_it_is(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "rollouts.db") as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")

    with pytest.raises(InputError, match="is not a journal of rollouts; move it away to begin one"):
        _open(tmp_path / "rollouts.db")


def test_a_journal_that_was_replaced_meanwhile_is_not_written_to(file: Path) -> None:
    journal, _told = _open(file)
    journal.append(NAME, [Paused()], by="anna", at=1.0)
    copy = file.with_name("copy")
    shutil.copyfile(file, copy)
    copy.replace(file)

    with pytest.raises(InputError, match="was moved or replaced while it was in use; nothing was written"):
        journal.append(NAME, [Paused()], by="anna", at=2.0)


@pytest.mark.parametrize("step", ["saving", "saved", "log away", "head there"])
def test_an_exchange_that_a_power_cut_ended_is_finished(file: Path, tmp_path: Path, step: str) -> None:
    """The steps of `files.exchange`, cut after each of them."""
    other = tmp_path / "other"
    other.mkdir()
    new = database.open_journal(f"sqlite:///{other / 'new.db'}")
    new.create(made.plan("saved-1"), by="anna", at=1.0)
    new.close()
    log = file.with_name("rollouts.db-wal")
    log.write_bytes(b"of the damaged one")
    os.truncate(file, 3 * _PAGE)
    if step == "saving":
        shutil.copyfile(other / "new.db", file.with_name("rollouts.db.saving"))
    else:
        shutil.copyfile(other / "new.db", file.with_name("rollouts.db.saved"))
    if step in ("log away", "head there"):
        log.unlink()
    if step == "head there":
        journal_files.keep_head(file.with_name("rollouts.db.saved-head"), Head(number=9, digest="ab"))

    journal_files.finish(file)

    left = sorted(each.name for each in tmp_path.iterdir() if each.is_file())
    if step == "saving":
        # Not complete: whoever opens the journal saves it once more.
        assert log.read_bytes() == b"of the damaged one"
    else:
        assert ["rollouts.db", "rollouts.db.head"] == [name for name in left if not name.endswith(".lock")]
        assert ("saved-1",) == _open(file)[0].rollouts()
