"""Every command line that a document or a help text shows can be typed as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from tflotilla.host.cli import COMMANDS, app
from tflotilla.host.cli.plain_typer import typer

ROOT = Path(__file__).resolve().parents[3]


DOCUMENTS = (
    *("README.md", "docs/fleet.md", "docs/rollouts.md", "docs/alarms.md"),
    *("docs/model-lab.md", "docs/benchmarks.md", "docs/tuning.md", "docs/dashboard.md", "docs/home-assistant.md"),
    "docs/telemetry.md",
)


def _shown() -> list[str]:
    """Return the command lines of all documents, those after a prompt among them."""
    text = "".join((ROOT / document).read_text() for document in DOCUMENTS).replace("\\\n", " ")
    blocks = re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL)
    typed = [block for language, block in blocks if language in ("", "sh")]
    lines = [line.strip().removeprefix("$ ") for block in typed for line in block.splitlines()]
    return [line for line in lines if line.startswith("tflotilla ")]


def _leaves(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        return [
            leaf
            for name in command.list_commands(context)
            if (child := command.get_command(context, name)) is not None
            for leaf in _leaves(child, f"{path} {name}".strip())
        ]
    return [(path, command)]


COMMAND = typer.main.get_command(app)
LEAVES = dict(_leaves(COMMAND, ""))


def _example(command: click.Command) -> str:
    found = re.search(r"Example: (.*)", command.help or "")
    return found.group(1) if found else ""


def _parse(line: str) -> None:
    """Parse without running: unknown options, wrong types and missing arguments raise."""
    words = shlex.split(line, comments=True)
    words = words[1 : words.index("|")] if "|" in words else words[1:]
    command: click.Command = COMMAND
    path: list[str] = []
    while isinstance(command, click.Group):
        name, child, words = command.resolve_command(click.Context(command), words)
        assert name is not None
        assert child is not None
        path.append(name)
        command = child
    command.make_context(" ".join(path), words)


@pytest.mark.parametrize("line", _shown())
def test_a_command_of_a_document_can_be_typed(line: str) -> None:
    _parse(line)


@pytest.mark.parametrize("path", LEAVES)
def test_every_command_shows_an_example_that_can_be_typed(path: str) -> None:
    example = _example(LEAVES[path])

    assert example.startswith(f"tflotilla {path.removesuffix(' run')}")
    _parse(example)


@pytest.mark.parametrize("path", LEAVES)
def test_every_command_says_its_exit_codes_and_speaks_json(path: str) -> None:
    command = LEAVES[path]

    assert "Exit codes: 0" in (command.help or "")
    assert any("--json" in parameter.opts for parameter in command.params)


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text()

    assert [] == [name for name in COMMANDS if f"tflotilla {name}" not in text and f"make {name}" not in text]
