"""Every command line that a document shows can be typed: its command and its options exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from tflotilla.host.cli import app

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = ("README.md", "docs/model-lab.md")


def lines(document: str) -> list[str]:
    """Return the command lines of a document's code blocks, continued lines joined, comments and outputs dropped."""
    text = (ROOT / document).read_text().replace("\\\n", " ")
    blocks = re.findall(r"```(?:sh)?\n(.*?)```", text, flags=re.DOTALL)
    found = (line.removeprefix("$ ") for block in blocks for line in block.splitlines())
    return [line.split("  #")[0] for line in found if line.startswith("tflotilla ")]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_shows_can_be_typed(document: str) -> None:
    shown = lines(document)
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group)

    assert len(shown) > 5
    for line in shown:
        words = shlex.split(line)[1:]
        command: click.Command = root
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, line
            command = found
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert set() == {word for word in words if word.startswith("-")} - known - {"--help"}, line
