"""`tflotilla benchmark compare`, `history` and `import` as users run them: what is printed, and the exit codes."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from tests import benchmark_model_made
from tests.host.benchmarks import measured, series
from tflotilla.host import cli
from tflotilla.host.benchmarks import results
from tflotilla.host.benchmarks.sqlite import FILE, History
from tflotilla.host.cli.benchmark_compare import parse_share
from tflotilla.shared.contract.benchmark import CellError
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tflotilla.host.benchmarks.results import Run

    Command = Callable[..., tuple[int, str, str]]


def _run(identifier: str, *, slower: float = 1.0, name: str | None = None, crashed: bool = False) -> Run:
    cells = [
        measured.cell(series.independent(700, 1), threads=1),
        measured.cell(series.independent(700, 2, median_ns=5e6 * slower), threads=2),
    ]
    if crashed:
        cells[0] = measured.cell(error=CellError(kind="crashed", message="SIGSEGV"), threads=1)
    return measured.run(measured.board_run(cells), identifier=identifier, name=name)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a fleet, a saved benchmark and three result files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TFLOTILLA_FLEET", raising=False)
    (tmp_path / "fleet.toml").write_text('name = "lab"\n')
    History(tmp_path / ".tflotilla" / FILE).save(_run("aaaa1111bbbb", name="main"))
    results.write(_run("same0000"), tmp_path / "same.json")
    results.write(_run("slow0000", slower=1.2), tmp_path / "slow.json")
    results.write(_run("dead0000", crashed=True), tmp_path / "dead.json")
    return tmp_path


@pytest.fixture
def benchmark(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    assert place.is_dir()

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tflotilla", "benchmark", *arguments])
        code = cli._run()
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_equal_results_pass_and_a_slower_one_is_a_regression(benchmark: Command) -> None:
    passed, out, said = benchmark("compare", "main", "same.json")
    failed, shown, complaint = benchmark("compare", "main", "slow.json")

    assert (passed, failed) == (0, 13)
    assert "unchanged" in out
    assert "2 unchanged" in said
    assert "REGRESSION" in shown
    assert complaint.splitlines()[-1].startswith("tflotilla: pi-1, birds-1.0.0, litert ×2: p50 5.0")


def test_a_wider_tolerance_lets_it_pass(benchmark: Command) -> None:
    assert benchmark("compare", "main", "slow.json", "--tolerance", "30%")[0] == 0
    assert benchmark("compare", "slow.json", "main")[0] == 0, "faster is no regression"


def test_a_cell_that_crashes_now_fails_the_gate_and_one_that_crashed_before_does_not(benchmark: Command) -> None:
    assert benchmark("compare", "main", "dead.json")[0] == 13
    code, _, said = benchmark("compare", "dead.json", "main")

    assert code == 0
    assert "BASE has no figures: crashed: SIGSEGV" in said
    assert benchmark("compare", "dead.json", "main", "--strict")[0] == 13


def test_json_markdown_and_junit_come_with_the_exit_code(benchmark: Command, place: Path) -> None:
    code, out, _ = benchmark("compare", "main", "slow.json", "--json", "--junit", "out/compare.xml")
    document = json.loads(out)
    root = ET.fromstring((place / "out" / "compare.xml").read_text())  # noqa: S314 - our own file

    assert (code, document["exit_code"]) == (13, 13)
    assert len(root.findall(".//failure")) == 1
    code, out, _ = benchmark("compare", "main", "slow.json", "--markdown")
    assert code == 13
    assert out.startswith("# slow0000 against main")
    assert "| REGRESSION |" in out


def test_nothing_to_compare_is_no_success(benchmark: Command, place: Path) -> None:
    other = measured.run(
        measured.board_run([measured.cell(series.independent(700, 1))], board="pi-9"), identifier="other000"
    )
    results.write(other, place / "other.json")
    code, _, said = benchmark("compare", "main", "other.json")

    assert code == 3
    assert "nothing in other000 can be held against main (aaaa1111)" in said
    assert "only in BASE" in said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("compare", "main", "none.json"), 3, "none.json can't be read"),
        (("compare", "mian", "same.json"), 3, "did you mean main"),
        (("compare", "main", "same.json", "--tolerance", "five"), 2, "--tolerance must be a share"),
        (("compare", "main", "same.json", "--tolerance", "-5%"), 2, "--tolerance must be a share"),
        (("compare", "main", "same.json", "--alpha", "2"), 2, "--alpha must be"),
        (("compare", "main", "same.json", "--metric", "p42"), 2, "--metric must be some of"),
        (("compare", "main", "same.json", "--json", "--markdown"), 2, "contradict"),
        (("compare", "main", "fleet.toml"), 3, "not a benchmark's result"),
        (("compare", "main", "same.json", "--junit", "fleet.toml/x.xml"), 3, "can't be written"),
        (("history", "--limit", "0"), 2, "--limit must be"),
        (("import", "same.json"), 3, "needs no import"),
        (("import", "same.json", "--name", "a/b"), 2, "looks like a file"),
        (("import", "same.json", "--name", "\udcff"), 2, "visible characters"),
        (("import", "fleet.toml"), 3, "nothing that benchmark_model"),
        (("import", "none.log"), 3, "can't be read"),
    ],
)
def test_what_can_not_be_done_is_one_line(benchmark: Command, arguments: tuple[str, ...], code: int, said: str) -> None:
    found, out, complaint = benchmark(*arguments)
    lines = [line for line in complaint.splitlines() if line.startswith("tflotilla: ")]

    assert (code, "") == (found, out)
    assert len(lines) == 1
    assert said in lines[0]


def test_the_history_lists_what_was_saved(benchmark: Command) -> None:
    code, out, _ = benchmark("history")

    assert code == 0
    assert "main" in out
    assert "aaaa1111bbbb" in out
    assert json.loads(benchmark("history", "--board", "pi-1", "--json")[1])["benchmarks"][0]["cells"] == 2
    assert json.loads(benchmark("history", "--model", "cats", "--json")[1]) == {"benchmarks": []}
    assert "nothing of that in" in benchmark("history", "--board", "pi-2")[2]


def test_a_foreign_log_is_imported_saved_shown_and_compared(benchmark: Command, place: Path) -> None:
    log = place / "run.log"
    log.write_text(benchmark_model_made.INFO)
    code, out, said = benchmark("import", "run.log", "--name", "by-hand", "-o", "by-hand.json")
    log.write_text(benchmark_model_made.INFO.replace("median=2501", "median=3501"))
    again = benchmark("import", "run.log", "--name", "by-hand-2")[0]

    assert (code, again) == (0, 0)
    assert "my net.tflite" in out
    assert "saved as 'by-hand'" in said
    assert results.read(place / "by-hand.json").foreign[0].runs == 399
    assert benchmark("compare", "by-hand", "by-hand.json")[0] == 0
    assert benchmark("compare", "by-hand", "by-hand-2")[0] == 13
    assert json.loads(benchmark("import", "run.log", "--json")[1])["tool"] == "benchmark_model"


def test_the_same_file_can_be_imported_twice(benchmark: Command, place: Path) -> None:
    (place / "run.log").write_text(benchmark_model_made.INFO)

    assert [benchmark("import", "run.log", "--save")[0] for _ in range(2)] == [0, 0]


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("5 %", 0.05), ("0.05", 0.05), (".5", 0.5), ("0%", 0.0)])
def test_a_share_is_read_as_people_write_it(text: str, share: float) -> None:
    assert share == parse_share(text)


@pytest.mark.parametrize("text", ["", "%", "5%%", "nan", "1e-3", "5pt", "5", "1.0"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="share"):
        parse_share(text)
