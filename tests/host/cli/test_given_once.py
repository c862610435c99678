"""Options that are given twice, as a user types them; what the commands do is not tested here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tflotilla.host import cli

if TYPE_CHECKING:
    from pathlib import Path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Return the exit code of one command line."""
    monkeypatch.setattr("sys.argv", ["tflotilla", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_first_of_two_targets_is_not_dropped_silently(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    targets = ("--target-runtime", "tflite-runtime==2.14.0", "--target-runtime", "ai-edge-litert==2.3.0")

    assert run(monkeypatch, "convert", "digits.keras", "-o", str(tmp_path / "out"), *targets) == 2

    assert capsys.readouterr().err == (
        "tflotilla: --target-runtime is given 2 times, and takes one value; see `tflotilla convert --help`\n"
    )
    assert not (tmp_path / "out").exists()


def test_an_option_of_a_command_within_a_command_is_held_to_it_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "lab", "up", "--boards", "1", "--boards", "2") == 2

    assert "--boards is given 2 times" in capsys.readouterr().err


def test_what_may_be_repeated_and_flags_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The command gets as far as the model that is not there."""
    runtimes = ("--runtime", "ai-edge-litert", "--runtime", "tflite-runtime", "--json", "--json")

    assert run(monkeypatch, "evaluate", str(tmp_path / "none.tflite"), "--data", str(tmp_path), *runtimes) == 3

    assert "given" not in capsys.readouterr().err
