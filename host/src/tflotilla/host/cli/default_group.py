"""Groups of commands, each imported when it is asked for: a function of a module `tflotilla.host.cli.<module>`.

In a `DefaultGroup` one command needs no name: `tflotilla benchmark all` is `tflotilla benchmark run all`. A first word
that is a command is the command; whoever has a board of that name writes `run` before it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, ClassVar

from tflotilla.host.cli.given_once import refuse_repeats
from tflotilla.host.cli.help_texts import keep_examples_whole
from tflotilla.host.cli.plain_typer import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import click


class LazyGroup(typer.core.TyperGroup):
    """Subclasses name the commands: name → (module, function)."""

    commands_by_name: ClassVar[Mapping[str, tuple[str, str]]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a first use."""
        del ctx
        return list(self.commands_by_name)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and build one command; None for a name that isn't one."""
        del ctx
        if cmd_name not in self.commands_by_name:
            return None
        if cmd_name not in self.commands:
            module, function = self.commands_by_name[cmd_name]
            app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            app.command(cmd_name)(getattr(importlib.import_module(f"tflotilla.host.cli.{module}"), function))
            command = typer.main.get_command(app)
            keep_examples_whole(command)
            refuse_repeats(command)
            self.commands[cmd_name] = command
        return self.commands[cmd_name]


class DefaultGroup(LazyGroup):
    """A group whose command `default` needs no name."""

    default: ClassVar[str] = "run"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default's name before arguments that name no command."""
        if args and args[0] not in ("--help", *self.commands_by_name):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of some arguments, the default among them."""
        if args and args[0] not in self.commands_by_name:
            args = [self.default, *args]
        return super().resolve_command(ctx, args)
