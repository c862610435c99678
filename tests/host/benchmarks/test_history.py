"""What was saved is found again, by id, by its beginning, by name; a damaged file is named and left alone."""

from __future__ import annotations

import dataclasses
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.host.benchmarks import measured
from tests.shared.random_values import value_of
from tflotilla.host.benchmarks.foreign import ForeignFigures
from tflotilla.host.benchmarks.results import Run, from_json, to_json
from tflotilla.host.benchmarks.sqlite import History
from tflotilla.shared.contract.errors import ConflictError, InputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / ".tflotilla" / "benchmarks.db")


def _run(
    identifier: str = "0123456789abcdef", name: str | None = None, created: float = 1.8e9, board: str = "pi-1"
) -> Run:
    cells = [measured.cell([1_000_000 + n for n in range(700)], threads=threads) for threads in (1, 2)]
    return measured.run(measured.board_run(cells, board=board), identifier=identifier, name=name, created=created)


def test_what_was_saved_is_found_by_id_by_its_beginning_and_by_name(history: History) -> None:
    saved = _run(name="main")
    history.save(saved)

    assert [saved] * 3 == [history.find(reference) for reference in (saved.id, "01234", "main")]


def test_a_run_survives_its_file(history: History) -> None:
    for seed in range(40):
        rng = random.Random(seed)  # noqa: S311 - a test wants the same values each time
        figures = tuple(value_of(ForeignFigures, rng) for _ in range(3))
        run = dataclasses.replace(_run(f"run{seed}"), foreign=figures)
        history.save(run)

        assert run == history.find(f"run{seed}") == from_json(to_json(run), "here")


def test_a_name_given_again_is_the_newest_run(history: History) -> None:
    history.save(_run("aaaa1111", "main", created=2.0))
    history.save(_run("bbbb2222", "main", created=9.0))
    history.save(_run("cccc3333", "main", created=5.0))

    assert history.find("main").id == "bbbb2222"


def test_of_two_runs_of_one_moment_the_later_saved_is_newer(history: History) -> None:
    history.save(_run("zzzz1111", "main", created=2.0))
    history.save(_run("aaaa2222", "main", created=2.0))

    assert history.find("main").id == "aaaa2222"


def test_a_beginning_of_several_ids_names_two_of_them(history: History) -> None:
    history.save(_run("aaaa1111"))
    history.save(_run("aaaa2222"))

    with pytest.raises(InputError, match="aaaa2222 and aaaa1111"):
        history.find("aaaa")


def test_an_unknown_name_proposes_those_that_are_near(history: History) -> None:
    history.save(_run(name="release-1"))

    with pytest.raises(InputError, match="did you mean release-1"):
        history.find("relaese-1")
    with pytest.raises(InputError, match="benchmark history"):
        history.find("x%")


def test_looking_into_a_history_that_is_not_there_makes_none(history: History) -> None:
    with pytest.raises(InputError, match="nothing was saved"):
        history.find("main")

    assert history.entries() == ()
    assert not history.path.parent.exists()


def test_the_same_run_can_be_saved_twice_but_no_other_under_its_id(history: History) -> None:
    history.save(_run())
    history.save(_run())

    assert len(history.entries()) == 1
    with pytest.raises(ConflictError, match="another benchmark"):
        history.save(_run(name="other"))
    assert history.find("0123456789abcdef").name is None


def test_entries_come_newest_first_and_can_be_picked_by_board_and_model(history: History) -> None:
    history.save(_run("aaaa1111", created=1.0, board="pi-1"))
    history.save(_run("bbbb2222", created=3.0, board="pi-2"))
    history.save(_run("cccc3333", created=2.0, board="pi-1"))

    def ids(**picked: str | int) -> list[str]:
        return [entry.id for entry in history.entries(**picked)]  # type: ignore[arg-type]

    assert ids() == ["bbbb2222", "cccc3333", "aaaa1111"]
    assert ids(limit=1) == ["bbbb2222"]
    assert ids(board="pi-1") == ["cccc3333", "aaaa1111"]
    assert ids(board="pi-1", limit=1) == ["cccc3333"]
    assert ids(model="birds") == ids(model="birds-1.0.0") == ids(model="ab" * 6) == ids()
    assert ids(model="bird") == ids(model="ab") == ids(board="pi_1") == []
    (entry,) = history.entries(board="pi-2")
    assert (entry.boards, entry.models, entry.cells) == (("pi-2",), ("birds-1.0.0",), 2)


def test_figures_of_another_program_are_saved_too(history: History) -> None:
    figures = ForeignFigures(tool="benchmark_model", model="birds.tflite", mean_ns=1e6)
    run = Run(id="ffff", created=1.0, boards=(), tool="benchmark_model", foreign=(figures,))
    history.save(run)

    assert history.find("ffff") == run
    (entry,) = history.entries(model="birds.tflite")
    assert (entry.tool, entry.boards, entry.cells) == ("benchmark_model", (), 1)


@pytest.mark.parametrize("content", [b"no database at all, only words" * 100, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_named_and_left_as_it_is(history: History, content: bytes) -> None:
    history.path.parent.mkdir()
    history.path.write_bytes(content)

    for look in (lambda: history.find("main"), history.entries, lambda: history.save(_run())):
        with pytest.raises(InputError, match=r"benchmarks\.db"):
            look()
    assert content == history.path.read_bytes()


def test_a_page_that_was_destroyed_is_an_error_of_one_line(history: History) -> None:
    history.save(_run(name="main"))
    data = bytearray(history.path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    history.path.write_bytes(bytes(data))

    with pytest.raises(InputError, match=r"damaged"):
        history.find("main")


def test_a_run_whose_bytes_changed_is_damaged_and_the_others_are_not(history: History) -> None:
    history.save(_run("aaaa1111"))
    history.save(_run("bbbb2222"))
    with sqlite3.connect(history.path) as database:
        database.execute("UPDATE runs SET document = x'00ff' WHERE id = 'aaaa1111'")
    database.close()

    with pytest.raises(InputError, match="aaaa1111 is damaged"):
        history.find("aaaa1111")
    assert history.find("bbbb2222").id == "bbbb2222"


def test_a_database_of_a_newer_tflotilla_or_of_something_else_is_not_touched(history: History) -> None:
    history.path.parent.mkdir()
    for statements, said in (("PRAGMA user_version = 7", "newer"), ("CREATE TABLE birds (x)", "not a history")):
        history.path.unlink(missing_ok=True)
        with sqlite3.connect(history.path) as database:
            database.execute(statements)
        database.close()
        before = history.path.read_bytes()

        with pytest.raises(InputError, match=said):
            history.save(_run())
        assert before == history.path.read_bytes()


@pytest.mark.parametrize(
    "name", ["", " ", " x", "a/b", "x.json", "X.JSON", "-x", "a\nb", "\x1b[31m", "\udc80", "n" * 81]
)
def test_names_that_can_not_be_typed_or_look_like_files_are_refused(history: History, name: str) -> None:
    with pytest.raises(UsageError, match="can't be called"):
        history.check(name)
    with pytest.raises(UsageError, match="can't be called"):
        history.save(_run(name=name))
    assert not history.path.exists()


def test_what_can_not_be_saved_is_known_before_it_is_measured(history: History) -> None:
    history.check("main")
    assert not history.path.parent.exists()

    history.path.parent.mkdir()
    history.path.write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="damaged"):
        history.check("main")
    history.path.unlink()
    history.save(_run(name="main"))
    history.check("main")


def test_a_folder_in_the_place_of_the_file_is_said(history: History) -> None:
    history.path.mkdir(parents=True)

    with pytest.raises(InputError, match="can't be used"):
        history.save(_run())


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match="can't be written"):
        History(tmp_path / "file" / "benchmarks.db").save(_run())


def test_a_full_disk_leaves_what_was_there(history: History) -> None:
    """A limit on the size of files stands for the disk: SQLite sees the same short write."""
    history.save(_run("aaaa1111"))
    size = history.path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(InputError, match=r"benchmarks\.db can't be used"):
            history.save(_big_run())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)

    assert [entry.id for entry in history.entries()] == ["aaaa1111"]
    assert history.find("aaaa1111") == _run("aaaa1111")


def _big_run() -> Run:
    rng = random.Random(1)  # noqa: S311 - a test wants the same numbers each time
    return measured.run(
        measured.board_run([measured.cell([rng.getrandbits(40) for _ in range(20_000)])]), identifier="big1"
    )


_SAVER = """
import sys
from pathlib import Path
from tests.host.benchmarks.test_history import _run
from tflotilla.host.benchmarks.sqlite import History
for number in range(5):
    History(Path(sys.argv[1])).save(_run(f"{sys.argv[2]}-{number}"))
"""


def test_commands_that_save_at_the_same_time_wait_for_each_other(history: History) -> None:
    savers = [subprocess.Popen([sys.executable, "-c", _SAVER, str(history.path), f"run{n}"]) for n in range(3)]

    assert [saver.wait(timeout=120) for saver in savers] == [0, 0, 0]
    assert len(history.entries(limit=100)) == 15
