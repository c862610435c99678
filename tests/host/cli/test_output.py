"""Tables as commands print them."""

from __future__ import annotations

import io

import pytest

from tflotilla.host.cli import output

COLUMNS = ("model", "scheme", "runtime", "KiB", "samples", "top-1", "vs float", "p50 ms", "p90 ms", "p99 ms")
ROW = ("digits-int8.tflite", "int8", "ai-edge-litert==2.3.0", "25.6", "1,000", "97.94%", "", "0.024", "0.041", "~0.054")


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> list[str]:
    """Return the lines of one table on a terminal of that width, without colours."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    # Without a height, a dumb terminal is 80 wide whatever it says.
    monkeypatch.setenv("LINES", "40")
    monkeypatch.setenv("TERM", "dumb")
    output.console.cache_clear()
    output.emit_table("held-out", COLUMNS, [ROW], right=COLUMNS[3:])
    output.console.cache_clear()
    return terminal.getvalue().splitlines()


def test_a_table_too_wide_for_the_terminal_becomes_blocks_that_break_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns headings once came out as "sche", "me", and a model's name in six pieces."""
    lines = on_a_terminal(monkeypatch, 80)

    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines if line.strip()] == [
        ["held-out"],
        *([*column.split(), cell] for column, cell in zip(COLUMNS, ROW, strict=True) if cell),
    ]


@pytest.mark.parametrize("width", [132, 200])
def test_a_table_that_fits_stays_a_table_with_whole_headings(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = on_a_terminal(monkeypatch, width)

    assert max(map(len, lines)) <= width
    assert "held-out" in lines[0]
    for word in ("scheme", "runtime", "samples", "0.024", "97.94%"):
        assert [line for line in lines if word in line.split()]


@pytest.mark.parametrize("width", range(62, 100))
def test_a_table_narrowed_at_its_spaces_loses_no_letter(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """The last column once lost its last letter where others had to be narrowed."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    # Without a height, a dumb terminal is 80 wide whatever it says.
    monkeypatch.setenv("LINES", "40")
    monkeypatch.setenv("TERM", "dumb")
    output.console.cache_clear()
    row = ("pi-kitchen-0", "litert ×2", "19.51 ≤19.51", "19.52 ≤19.52", "29.26 ≤29.27", "8/8", "INVALID")

    output.emit_table("", ("board", "with", "p50", "p90", "p99", "right", "verdict"), [row], right=("p50", "p90"))

    output.console.cache_clear()
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = {word for line in lines for word in line.split()}
    assert {word for cell in row for word in cell.split()} <= words
    assert "verdict" in words


def test_a_piped_table_cuts_nothing_short_and_drops_no_column(capsys: pytest.CaptureFixture[str]) -> None:
    """An error of three lines' length once took the boards' names out of the table, and lost its own end."""
    long = "another host key than the one pinned " * 12 + "END"
    output.console.cache_clear()

    output.emit_table("boards", ("board", "reachable", "last problem"), [("pi-1", "yes", "-"), ("pi-2", "no", long)])

    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["board", "reachable", "last", "problem"]
    assert first.split() == ["pi-1", "yes", "-"]
    assert second.split() == ["pi-2", "no", *long.split()]


def test_ten_thousand_rows_look_as_rich_would_write_them(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[f"pi-{number}", "x" * (number % 7), str(number)] for number in range(3)]

    output.emit_table("t", ("board", "what is it", "n"), rows, right=("n",))
    plain = capsys.readouterr().out
    output.emit_table("t", ("board", "what is it", "n"), [*rows, ["日", "", ""]], right=("n",))
    drawn = capsys.readouterr().out

    assert " board  what is it  n \n pi-0               0 \n" == plain[:46]
    assert drawn.splitlines()[:4] == plain.splitlines()


def test_control_characters_in_a_table_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    """A board's words stand in cells, too; our own line breaks break lines."""
    output.console.cache_clear()
    output.emit_table("", ("board", "last problem"), [("pi-1", "\x1b[2Jgone\x9b0m")])
    output.emit_table("", ("board", "last problem"), [("pi-1", "one\ntwo\r")])

    assert [
        " board  last problem      ",
        " pi-1   \\x1b[2Jgone\\x9b0m ",
        " board  last problem ",
        " pi-1   one          ",
        "        two\\r        ",
    ] == capsys.readouterr().out.splitlines()
