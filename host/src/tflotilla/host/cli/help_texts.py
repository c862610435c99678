"""What help texts look like: examples stay on their line, because they are there to be copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click


def keep_examples_whole(command: click.Command) -> None:
    """Mark the `Example:` paragraph of a command's help, and of those below it, as not to be wrapped."""
    paragraphs = (command.help or "").split("\n\n")
    command.help = "\n\n".join(
        "\b\n" + " ".join(paragraph.split()) if paragraph.startswith("Example:") else paragraph
        for paragraph in paragraphs
    )
    for child in getattr(command, "commands", {}).values():
        keep_examples_whole(child)
