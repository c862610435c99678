"""Tables as commands print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.cli import output

if TYPE_CHECKING:
    import pytest


def test_a_piped_table_cuts_nothing_short_and_drops_no_column(capsys: pytest.CaptureFixture[str]) -> None:
    """An error of three lines' length once took the boards' names out of the table, and lost its own end."""
    long = "another host key than the one pinned " * 12 + "END"
    output.console.cache_clear()

    output.emit_table("boards", ("board", "reachable", "last problem"), [("pi-1", "yes", "-"), ("pi-2", "no", long)])

    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["board", "reachable", "last", "problem"]
    assert first.split() == ["pi-1", "yes", "-"]
    assert second.split() == ["pi-2", "no", *long.split()]
