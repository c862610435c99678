"""`tflotilla benchmark show`: a result file or a saved run in any form; one line for what can't be shown."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.host.benchmarks import rich_runs
from tflotilla.host import cli
from tflotilla.host.benchmarks import results
from tflotilla.host.benchmarks.rendering import forms
from tflotilla.host.benchmarks.sqlite import FILE, History

if TYPE_CHECKING:
    from pathlib import Path


class Shown:
    """What a command did."""

    def __init__(self, code: int, out: str, said: str) -> None:
        self.code, self.out, self.said = code, out, said

    @property
    def refusal(self) -> str:
        """The one line of a command that did nothing."""
        assert self.out == ""
        lines = self.said.splitlines()
        assert len(lines) == 1, self.said
        return lines[0].removeprefix("tflotilla: ")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TFLOTILLA_FLEET", raising=False)
    results.write(rich_runs.server(), tmp_path / "server.json")
    return tmp_path


def show(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Shown:
    monkeypatch.setattr(sys, "argv", ["tflotilla", "benchmark", "show", *arguments])
    code = cli._run()
    told = capsys.readouterr()
    return Shown(code, told.out, told.err)


def test_a_result_file_is_shown_as_a_table_with_its_lines_below(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = show(capsys, monkeypatch, str(place / "server.json"))

    assert shown.code == 0
    assert re.search(r"litert ×1 +200 +1.01 ≤1.011 +1.505 ≤1.518 +8/8 91.2% +VALID", shown.out)
    assert "1 cell on 1 board: 1 valid" in shown.said
    assert "pi-1: the model that serves, at its worst: 100 results" in shown.out
    assert "import " not in shown.out


def test_details_are_everything(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = show(capsys, monkeypatch, str(place / "server.json"), "--details")

    for word in ("first inference", "temperature", "SOFTMAX", "steady p50", "decode", "seed", "ab" * 32):
        assert word in shown.out, word


def test_a_page_is_written(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert show(capsys, monkeypatch, "server.json", "-o", "x.html").code == 0
    assert (place / "x.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("form", sorted(set(forms.FORMS) - {"table", "html"}))
def test_every_form_goes_to_stdout_or_into_files(
    form: forms.Form, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = forms.render(rich_runs.server(), form)
    suffix = next(suffix for suffix, named in forms.SUFFIXES.items() if named == form)

    printed = show(capsys, monkeypatch, "server.json", "--format", form)
    written = show(capsys, monkeypatch, "server.json", "-o", f"x{suffix}", "-o", f"new/y{suffix}")

    assert (printed.code, printed.out) == (0, expected)
    assert written.code == 0
    assert [(place / name).read_text() for name in (f"x{suffix}", f"new/y{suffix}")] == [expected] * 2
    assert f"written: x{suffix}" in written.said


def test_json_is_a_result_file_that_can_be_shown_again(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = show(capsys, monkeypatch, "server.json", "--json")

    assert json.loads(shown.out)["id"] == rich_runs.server().id
    (place / "again.json").write_text(shown.out)
    assert show(capsys, monkeypatch, "again.json", "--json").out == shown.out


def test_a_saved_run_is_found_by_name_and_by_id(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "fleet.toml").write_text('name = "barn"\n')
    run = results.from_json(results.to_json(rich_runs.server()).replace(b'"name":null', b'"name":"before"'), "run")
    History(place / ".tflotilla" / FILE).save(run)

    by_name = show(capsys, monkeypatch, "before", "--json")
    by_id = show(capsys, monkeypatch, run.id, "--json")

    assert by_name.said == by_id.said == ""
    assert by_name.out == by_id.out == forms.render(run, "json")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["nothing.json"], 3, "nothing.json can't be read: No such file or directory"),
        (["cut.json"], 3, "cut.json is not a benchmark's result: "),
        (["newer.json"], 3, "newer.json was written by a newer tflotilla (schema 99); upgrade this one"),
        (["."], 3, ". can't be read: Is a directory"),
        (["before"], 3, "before is neither a result file nor a saved benchmark: there is no fleet file "),
        (["before", "--fleet", "there.toml"], 3, "no fleet file "),
        (["server.json", "--format", "pdf"], 2, "--format must be one of table, json, csv, markdown, junit, html"),
        (["server.json", "--json", "--format", "csv"], 2, "--json and --format csv contradict each other"),
        (["server.json", "-o", "x.pdf"], 2, "x.pdf: a benchmark is written as .txt, .json"),
        (["server.json", "-o", "server.json/x.html"], 3, "server.json/x.html can't be written: "),
    ],
)
def test_what_can_not_be_shown_is_one_line_and_writes_nothing(
    arguments: list[str],
    code: int,
    line: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = (place / "server.json").read_bytes()
    (place / "cut.json").write_bytes(whole[:500])
    (place / "newer.json").write_bytes(whole.replace(b'"schema":1', b'"schema":99'))
    before = sorted(place.iterdir())

    refused = show(capsys, monkeypatch, *arguments)

    assert refused.code == code
    assert refused.refusal.startswith(line)
    assert sorted(place.iterdir()) == before
