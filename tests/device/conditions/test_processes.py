"""Who else took the processor, from two snapshots."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.device.conditions.boards_copied import BOARDS, copy, set_busy, set_process
from tflotilla.device.conditions import processes
from tflotilla.device.conditions.processes import ENDED, Process, Snapshot
from tflotilla.shared.contract.benchmark import ProcessLoad

if TYPE_CHECKING:
    from pathlib import Path

OWN = 640
SECOND_NS = 1_000_000_000
TICKS = os.sysconf("SC_CLK_TCK")
BUSY_UNTIL_READ = """
import sys, time
while time.process_time() < 0.2:
    pass
print("done", flush=True)
sys.stdin.read()
"""


def _loads(root: Path, at_ns: int) -> Snapshot:
    return processes.snapshot(root, clock=lambda: at_ns)


def _between(root: Path, tmp_path: Path, *, seconds: float = 1.0) -> tuple[list[tuple[str, int, float]], float | None]:
    """Subtract what the board was from what its changed copy is; the cell is process 640."""
    before = _loads(root, 5 * SECOND_NS)
    after = _loads(tmp_path / "pi4", 5 * SECOND_NS + round(seconds * SECOND_NS))
    loads, total = processes.between(before, after, frozenset({OWN}))
    return [(load.name, load.pid, load.cpu_percent) for load in loads], total


def test_names_may_hold_brackets_and_spaces() -> None:
    names = {process.name for process in _loads(BOARDS / "pi4", 0).processes.values()}

    assert {"(sd-pam)", "Web Content (2)", "kworker/0:1H-kblockd", "python3"} <= names


def test_each_other_process_is_named_with_its_share_and_the_cell_is_not(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    set_process(root, OWN, "python3", user=5850 + 2 * TICKS, started=1310)
    set_process(root, 612, "sshd", user=8 + TICKS // 4, started=1204)
    set_process(root, 1107, "Web Content (2)", user=108 + TICKS // 2, started=5003)

    loads, _ = _between(BOARDS / "pi4", tmp_path, seconds=2.0)

    assert [("Web Content (2)", 1107, 25.0), ("sshd", 612, 12.5)] == loads


def test_what_began_and_ended_meanwhile_shows_in_the_sum(tmp_path: Path) -> None:
    """The cell took 100 ticks and all processors 160: 60 are of a compiler nobody can see any more."""
    root = copy("pi4", tmp_path)
    set_process(root, OWN, "python3", user=5850 + TICKS, started=1310)
    set_busy(root, 112281 + TICKS + TICKS * 6 // 10)

    loads, total = _between(BOARDS / "pi4", tmp_path)

    assert [] == loads
    assert total == pytest.approx(60.0)


def test_what_began_and_ended_meanwhile_shows_with_who_waited_for_it(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    set_process(root, 612, "sshd", user=8 + TICKS // 10, started=1204, ended=TICKS // 2)

    loads, _ = _between(BOARDS / "pi4", tmp_path)

    assert [("sshd, children that ended", 612, 50.0), ("sshd", 612, 10.0)] == loads


def test_user_and_system_time_both_count(tmp_path: Path) -> None:
    (tmp_path / "proc/5").mkdir(parents=True)
    (tmp_path / "proc/5/stat").write_text("5 (cc) S 1 1 1 0 -1 0 9 9 9 9 10 200 3000 40000 20 0 1 0 77 1 1 1\n")

    process = _loads(tmp_path, 0).processes[5, 77]

    assert (210, 43_000, 1) == (process.ticks, process.ended_ticks, process.parent)


def test_what_a_child_took_before_is_not_charged_again_when_it_ends(tmp_path: Path) -> None:
    """make had a compiler with an assembler, which ended; 70 of the 90 ticks that make is charged with are old."""
    base, root = copy("pi4", tmp_path / "base"), copy("pi4", tmp_path)
    for place in (base, root):
        set_process(place, 50, "make", ended=1000)
    set_process(base, 51, "cc", parent=50, user=40, ended=10)
    set_process(base, 52, "as", parent=51, user=20)
    set_process(root, 50, "make", ended=1000 + 90)

    loads, _ = _between(base, tmp_path)

    assert [("make, children that ended", 50, 20 * 100 / TICKS)] == loads


def test_a_process_that_ended_and_was_never_waited_for_takes_nothing_from_others(tmp_path: Path) -> None:
    base, root = copy("pi4", tmp_path / "base"), copy("pi4", tmp_path)
    set_process(base, 50, "cc", parent=612, user=4000)
    set_process(root, 612, "sshd", user=8 + TICKS // 4, started=1204)

    loads, _ = _between(base, tmp_path)

    assert [("sshd", 612, 25.0)] == loads


def test_children_of_the_cell_that_ended_are_the_cell_s(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    set_process(root, OWN, "python3", user=5850, started=1310, ended=TICKS)
    set_busy(root, 112281 + TICKS)

    assert ([], 0.0) == _between(BOARDS / "pi4", tmp_path)


def test_idling_waiting_and_guests_are_not_busy(tmp_path: Path) -> None:
    """A guest's time is the user's already."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  1 20 300 4000 50000 600000 7000000 80000000 900000000 90000000\n")

    assert 1 + 20 + 300 + 600000 + 7000000 + 80000000 == _loads(tmp_path, 0).busy_ticks


def test_an_old_kernel_s_short_line_is_understood(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  10 20 30 4000\n")

    assert 60 == _loads(tmp_path, 0).busy_ticks


def test_a_number_that_was_given_again_is_another_process(tmp_path: Path) -> None:
    """The first 612 had taken more than the second ever will."""
    root = copy("pi4", tmp_path)
    set_process(root, 612, "cron", user=3, started=99_999)

    loads, _ = _between(BOARDS / "pi4", tmp_path)

    assert [("cron", 612, 3 * 100 / TICKS)] == loads


def test_children_and_their_children_belong_to_the_cell(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    set_process(root, 2000, "vcgencmd", parent=OWN, user=9)
    set_process(root, 2001, "sh", parent=2000, user=9)
    set_process(root, 2002, "stranger", parent=1, user=9)

    loads, _ = _between(BOARDS / "pi4", tmp_path)

    assert ["stranger"] == [name for name, _, _ in loads]


def test_only_the_busiest_are_told(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    for number in range(30):
        set_process(root, 3000 + number, f"p{number}", user=number + 1)

    loads, _ = _between(BOARDS / "pi4", tmp_path)

    assert [f"p{number}" for number in range(29, 29 - processes.SHOWN, -1)] == [name for name, _, _ in loads]


def test_processes_that_are_their_own_parents_are_survived() -> None:
    loop = {
        (1, 1): Process(name="a", pid=1, parent=2, started=1, ticks=1),
        (2, 1): Process(name="b", pid=2, parent=1, started=1, ticks=1),
    }
    snapshot = Snapshot(at_ns=SECOND_NS, ticks_per_s=100, busy_ticks=None, processes=loop)
    first = Snapshot(at_ns=0, ticks_per_s=100, busy_ticks=None)

    assert ((), None) == processes.between(first, snapshot, frozenset({1}))


def test_no_time_between_is_no_share() -> None:
    now = _loads(BOARDS / "pi4", 7)

    assert ((), None) == processes.between(now, now, frozenset())


def test_without_the_kernel_s_sum_there_is_none(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    (root / "proc/stat").unlink()
    set_process(root, 612, "sshd", user=8 + TICKS, started=1204)

    loads, total = _between(BOARDS / "pi4", tmp_path)

    assert [("sshd", 612, 100.0)] == loads
    assert total is None


def test_names_are_shown_harmlessly(tmp_path: Path) -> None:
    """A process may call itself anything, a terminal's commands too."""
    set_process(tmp_path, 5, "\x1b[31mred\n", user=1)

    assert ["?[31mred?"] == [process.name for process in _loads(tmp_path, 0).processes.values()]


@pytest.mark.parametrize(
    ("name", "cmdline", "expected"),
    [
        ("python3", "python3\0-X\0utf8\0-m\0tflotilla.device.worker\0--secret\0x\0", "python3 tflotilla.device.worker"),
        ("python3", "/usr/bin/python3\0-u\0/opt/app/camera.py\0token\0", "python3 camera.py"),
        ("python3", "python3\0-c\0print(1)\0", "python3"),
        ("python3", "python3\0-m\0", "python3"),
        ("python3", "python3\0\x1b[2J\0", "python3 ?[2J"),
        ("python3", "", "python3"),
        ("python3", None, "python3"),
        ("python3" + ENDED, "python3\0build.py\0", "python3 build.py" + ENDED),
        ("sshd", "sshd: pi@pts/0\0password\0", "sshd"),
    ],
)
def test_an_interpreter_is_named_with_what_it_runs_and_no_more(
    name: str, cmdline: str | None, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "proc/7").mkdir(parents=True)
    if cmdline is not None:
        (tmp_path / "proc/7/cmdline").write_text(cmdline)
    load = ProcessLoad(name=name, pid=7, cpu_percent=60.0)

    assert [ProcessLoad(name=expected, pid=7, cpu_percent=60.0)] == list(processes.named([load], tmp_path))


def test_a_machine_without_proc_has_no_processes(tmp_path: Path) -> None:
    assert (None, {}) == ((empty := _loads(tmp_path, 0)).busy_ticks, empty.processes)


def test_a_busy_process_of_this_machine_is_found() -> None:
    """Against a real kernel: another process works for 0.2 s; it is a stranger, or the cell's own child."""
    before = processes.snapshot()
    with subprocess.Popen(
        [sys.executable, "-c", BUSY_UNTIL_READ], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        assert b"done\n" == worker.stdout.readline()
        after = processes.snapshot()
        worker.communicate(b"")

    everyone = {load.pid: load.cpu_percent for load in processes.between(before, after, frozenset(), shown=9999)[0]}
    strangers = {load.pid for load in processes.between(before, after, frozenset({os.getpid()}), shown=9999)[0]}

    seconds = (after.at_ns - before.at_ns) / SECOND_NS
    assert everyone[worker.pid] / 100 * seconds >= 0.15
    assert worker.pid not in strangers
