"""The outbox: what was committed is there after a kill, the oldest go first, and no disk can hurt whoever uses it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tflotilla.device.outbox import MEMORY_LIMIT_BYTES, ROW_OVERHEAD_BYTES, Outbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20


def fill(outbox: Outbox, seqs: range, *, boot: str = "boot", size: int = 100) -> list[int]:
    return [outbox.add(boot=boot, seq=seq, channel="metrics", payload=b"x" * size) for seq in seqs]


def seqs(outbox: Outbox, *, after: int = 0, limit: int = 10_000) -> list[int]:
    return [row.seq for row in outbox.after(after, limit=limit)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    found = Outbox(path, max_bytes=16 * MIB)
    yield found
    found.close()


def test_rows_come_out_in_the_order_they_went_in(outbox: Outbox) -> None:
    fill(outbox, range(1, 4))
    outbox.commit()
    fill(outbox, range(4, 7))

    assert seqs(outbox) == [1, 2, 3, 4, 5, 6]


def test_a_page_begins_behind_a_row_and_spans_disk_and_memory(outbox: Outbox) -> None:
    ids = fill(outbox, range(1, 4))
    outbox.commit()
    fill(outbox, range(4, 7))

    assert seqs(outbox, after=ids[1], limit=3) == [3, 4, 5]


def test_the_payload_comes_back_as_it_was(outbox: Outbox) -> None:
    outbox.add(boot="b1", seq=7, channel="event", payload=b'{"\x00\xff')
    outbox.commit()

    (row,) = outbox.after(0, limit=1)

    assert (row.boot, row.seq, row.channel, row.payload) == ("b1", 7, "event", b'{"\x00\xff')


def test_another_run_finds_what_was_committed_and_goes_on_behind_it(path: Path) -> None:
    first = Outbox(path, max_bytes=MIB)
    fill(first, range(1, 4), boot="one")
    first.close()

    second = Outbox(path, max_bytes=MIB)
    fill(second, range(1, 3), boot="two")

    assert [(row.boot, row.seq) for row in second.after(0, limit=9)] == [
        ("one", 1),
        ("one", 2),
        ("one", 3),
        ("two", 1),
        ("two", 2),
    ]
    second.close()


def test_settled_rows_are_gone_before_and_after_the_commit(outbox: Outbox) -> None:
    ids = fill(outbox, range(1, 6))
    outbox.commit()

    outbox.settle([ids[0], ids[2]])

    assert seqs(outbox) == [2, 4, 5]
    assert outbox.rows == 3
    outbox.commit()
    assert seqs(outbox) == [2, 4, 5]
    assert outbox.rows == 3


def test_what_was_settled_in_time_never_touches_the_disk(outbox: Outbox, path: Path) -> None:
    ids = fill(outbox, range(1, 100))

    outbox.settle(ids)

    assert outbox.plan().empty
    assert not outbox.uncommitted
    assert path.with_name("outbox.db-wal").stat().st_size < 64 << 10


def test_a_row_settled_while_it_is_written_goes_with_the_next_commit(outbox: Outbox) -> None:
    ids = fill(outbox, range(1, 3))
    plan = outbox.plan()
    written = outbox.write(plan)

    outbox.settle([ids[0]])
    outbox.finish(plan, written)

    assert seqs(outbox) == [2]
    assert outbox.rows == 1
    outbox.commit()
    assert outbox.rows == 1


def test_an_acknowledgement_forgets_one_boot_up_to_a_number(outbox: Outbox) -> None:
    fill(outbox, range(1, 4), boot="one")
    outbox.commit()
    fill(outbox, range(1, 4), boot="two")
    fill(outbox, range(4, 6), boot="one")

    outbox.acknowledge("one", [(1, 4)])

    assert [(row.boot, row.seq) for row in outbox.after(0, limit=9)] == [("two", 1), ("two", 2), ("two", 3), ("one", 5)]
    outbox.commit()
    assert outbox.rows == 4


def test_an_acknowledgement_that_comes_twice_or_of_another_boot_changes_nothing(outbox: Outbox) -> None:
    fill(outbox, range(1, 4))
    outbox.commit()

    for _ in range(2):
        outbox.acknowledge("boot", [(1, 1)])
        outbox.acknowledge("stranger", [(1, 99)])
        outbox.commit()

    assert seqs(outbox) == [2, 3]
    assert outbox.size_bytes == 2 * (100 + ROW_OVERHEAD_BYTES)


def test_ranges_are_forgotten_wherever_their_rows_are(path: Path) -> None:
    """On disk, in memory, settled meanwhile, of an earlier boot; and for good."""
    outbox = Outbox(path, max_bytes=MIB)
    fill(outbox, range(1, 8), boot="one")
    outbox.commit()
    fill(outbox, range(1, 8), boot="two")

    outbox.acknowledge("one", [(1, 2), (6, 6), (9, 99)])
    outbox.acknowledge("two", [(5, 7), (2, 2), (5, 6)])
    left = [("one", 3), ("one", 4), ("one", 5), ("one", 7), ("two", 1), ("two", 3), ("two", 4)]

    assert left == [(row.boot, row.seq) for row in outbox.after(0, limit=99)]
    outbox.close()
    assert left == [(row.boot, row.seq) for row in Outbox(path, max_bytes=MIB).after(0, limit=99)]


def test_what_is_acknowledged_while_it_is_written_is_forgotten_all_the_same(outbox: Outbox) -> None:
    fill(outbox, range(1, 6))
    plan = outbox.plan()
    written = outbox.write(plan)
    outbox.acknowledge("boot", [(2, 3)])
    outbox.finish(plan, written)

    assert seqs(outbox) == [1, 4, 5]
    outbox.commit()
    assert outbox.rows == 3
    assert not outbox.forgetting


def test_beyond_the_limit_the_oldest_go_and_are_counted(path: Path) -> None:
    outbox = Outbox(path, max_bytes=MIB)
    for start in range(1, 2001, 100):
        fill(outbox, range(start, start + 100), size=1000)
        outbox.commit()

    kept = seqs(outbox)

    assert outbox.size_bytes <= MIB
    assert kept == list(range(2001 - len(kept), 2001))
    assert outbox.dropped == 2000 - len(kept)
    assert len(kept) == MIB // (1000 + ROW_OVERHEAD_BYTES)
    outbox.close()


def test_the_count_of_dropped_rows_outlives_the_run(path: Path) -> None:
    outbox = Outbox(path, max_bytes=MIB)
    fill(outbox, range(1, 2001), size=1000)
    outbox.close()
    dropped = outbox.dropped

    again = Outbox(path, max_bytes=MIB)

    assert dropped > 0
    assert again.dropped == dropped
    again.close()


def test_the_file_stays_near_the_limit_however_much_goes_through(path: Path) -> None:
    outbox = Outbox(path, max_bytes=MIB)
    for start in range(1, 6001, 50):
        fill(outbox, range(start, start + 50), size=900)
        outbox.commit()
    outbox.close()

    assert path.stat().st_size <= 2 * MIB + 256 * 4096


def test_a_smaller_limit_trims_what_is_there(path: Path) -> None:
    outbox = Outbox(path, max_bytes=4 * MIB)
    fill(outbox, range(1, 1001), size=1000)
    outbox.close()

    again = Outbox(path, max_bytes=MIB)
    fill(again, range(1001, 1002))
    again.commit()

    assert again.size_bytes <= MIB
    assert seqs(again)[-1] == 1001
    again.close()


def test_a_row_given_up_is_counted(outbox: Outbox) -> None:
    ids = fill(outbox, range(1, 4))
    outbox.commit()

    outbox.drop([ids[1]])

    assert seqs(outbox) == [1, 3]
    assert outbox.dropped == 1
    outbox.commit()
    assert outbox.dropped == 1


def test_only_its_owner_may_read_it(outbox: Outbox, path: Path) -> None:
    del outbox

    assert path.stat().st_mode & 0o077 == 0


def test_a_damaged_file_is_put_aside_and_said(path: Path) -> None:
    path.write_bytes(b"this is no database, and long enough to be looked at as one" * 100)

    outbox = Outbox(path, max_bytes=MIB)
    fill(outbox, range(1, 3))
    outbox.commit()

    assert outbox.problem is None
    assert outbox.lost_queue is not None
    assert "outbox.db.damaged" in outbox.lost_queue
    assert path.with_name("outbox.db.damaged").exists()
    assert seqs(outbox) == [1, 2]
    outbox.close()


def test_a_file_that_somebody_else_holds_is_a_problem_and_no_end(path: Path) -> None:
    """Reports wait in memory, and find their way to the disk once it is free; nothing that was there is lost."""
    before = Outbox(path, max_bytes=MIB)
    fill(before, range(1, 3), boot="before")
    before.commit()

    outbox = Outbox(path, max_bytes=MIB)
    fill(outbox, range(1, 3), boot="now")
    outbox.commit()

    assert outbox.problem is not None
    assert "locked" in outbox.problem
    assert [row.boot for row in outbox.after(0, limit=9)] == ["now", "now"]
    before.close()
    outbox.commit()
    assert outbox.problem is None
    assert [row.boot for row in outbox.after(0, limit=9)] == ["before", "before", "now", "now"]
    outbox.close()


def test_memory_is_bounded_while_the_disk_refuses(path: Path) -> None:
    before = Outbox(path, max_bytes=64 * MIB)
    outbox = Outbox(path, max_bytes=64 * MIB)

    fill(outbox, range(1, 5001), size=1000)

    kept = len(outbox.after(0, limit=10_000))
    assert kept * 1000 < MEMORY_LIMIT_BYTES
    assert outbox.dropped == 5000 - kept
    before.close()
    outbox.close()


WRITER = """
    import sys
    from pathlib import Path
    from tflotilla.device.outbox import Outbox
    outbox = Outbox(Path(sys.argv[1]), max_bytes=64 << 20)
    seq = 0
    while True:
        for _ in range(7):
            seq += 1
            outbox.add(boot="boot", seq=seq, channel="metrics", payload=b"%d" % seq + b"x" * (seq % 3000))
        outbox.commit()
        assert outbox.problem is None, outbox.problem
        print(seq, flush=True)
"""


def test_a_kill_in_the_middle_of_writing_loses_nothing_that_was_committed(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        committed = 0
        while committed < 700:
            committed = int(writer.stdout.readline())
        writer.kill()
        committed = max(committed, *(int(line) for line in writer.stdout.read().split()), 0)

    outbox = Outbox(path, max_bytes=64 << 20)
    found = outbox.after(0, limit=10**6)

    assert [row.seq for row in found] == list(range(1, len(found) + 1))
    assert committed <= len(found) <= committed + 7
    assert all(row.payload == b"%d" % row.seq + b"x" * (row.seq % 3000) for row in found)
    outbox.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk to fill")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(path: Path) -> None:
    """Take every block that is left."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(handle, b"x" * 4096)
    os.close(handle)
    assert os.statvfs(path.parent).f_bavail == 0


def test_a_full_disk_is_reported_and_the_newest_reports_win(tiny_disk: Path) -> None:
    outbox = Outbox(tiny_disk / "outbox.db", max_bytes=64 * MIB)
    fill(outbox, range(1, 501), size=1000)
    outbox.commit()
    assert outbox.problem is None
    fill_up(tiny_disk / "log of somebody else")

    for start in range(501, 3001, 50):
        fill(outbox, range(start, start + 50), size=1000)
        outbox.commit()

    kept = seqs(outbox)
    assert kept[-50:] == list(range(2951, 3001))
    assert kept == sorted(kept)
    assert outbox.rows + outbox.dropped == 3000
    assert outbox.problem == "the disk is full: the oldest reports make room for the newest"
    (tiny_disk / "log of somebody else").unlink()
    fill(outbox, range(3001, 3002))
    outbox.commit()
    assert outbox.problem is None
    assert seqs(outbox)[-1] == 3001
    outbox.close()


def test_delivered_rows_can_be_forgotten_on_a_full_disk_thanks_to_the_reserve(tiny_disk: Path) -> None:
    outbox = Outbox(tiny_disk / "outbox.db", max_bytes=64 * MIB)
    ids = fill(outbox, range(1, 501), size=1000)
    outbox.commit()
    fill_up(tiny_disk / "log of somebody else")

    outbox.settle(ids)
    outbox.commit()

    assert outbox.rows == 0
    assert outbox.dropped == 0
    outbox.close()


def test_a_database_of_a_wrong_shape_does_not_end_anything(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE rows (something TEXT)")
    database.close()

    outbox = Outbox(path, max_bytes=MIB)
    fill(outbox, range(1, 3))
    outbox.commit()

    assert seqs(outbox) == [1, 2]
    outbox.close()
