"""Tools in environments of their own: found by their lock, complete or not there at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tflotilla.host.packages import locks, tools
from tflotilla.shared.contract.errors import InputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(tools.VARIABLE, str(tmp_path / "tools"))
    return tmp_path / "tools"


def test_an_environment_counts_only_when_it_is_complete() -> None:
    tool = tools.TOOLS["onnx"]
    half = tools.place(tool)
    (half / "bin").mkdir(parents=True)

    assert tools.python(tool) is None
    (half / ".ready").touch()
    assert tools.python(tool) == half / "bin" / "python"
    assert tools.install(tool) == half / "bin" / "python", "what is there is left alone"
    assert tools.remove(tool)
    assert tools.python(tool) is None
    assert not tools.remove(tool)


def test_a_tool_that_does_not_exist_is_refused_with_the_names_of_those_that_do() -> None:
    with pytest.raises(UsageError, match="no tool 'onxx'; there are onnx"):
        tools.find("onxx")


def test_a_place_that_can_not_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(tools.VARIABLE, str(tmp_path / "file"))

    with pytest.raises(InputError, match=r"can't be written: Not a directory \(set \$TFLOTILLA_TOOLS\)"):
        tools.install(tools.TOOLS["onnx"])


def test_every_tool_has_its_lock_with_hashes() -> None:
    for tool in tools.TOOLS.values():
        lock = locks.find(tool.lock).read_text()
        assert "--hash=sha256:" in lock
        assert "://" not in lock
