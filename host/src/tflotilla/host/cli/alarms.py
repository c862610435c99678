"""`tflotilla alarms`: hold what boards report against rules, once or for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tflotilla.host.cli.default_group import DefaultGroup
from tflotilla.host.cli.plain_typer import typer

if TYPE_CHECKING:
    import click


class _Alarms(DefaultGroup):
    commands_by_name: ClassVar = {
        "run": ("alarms_run", "run"),
        "check": ("alarms_check", "check"),
    }

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let nothing at all be a look."""
        return super().parse_args(ctx, args or [self.default])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the look behind nothing at all."""
        return super().resolve_command(ctx, args or [self.default])


app = typer.Typer(
    cls=_Alarms,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Hold what boards report against rules: alarms.toml beside fleet.toml. "
    "`tflotilla alarms` is `tflotilla alarms run`: one look, and exit code 15 when something fires.",
)


@app.callback()
def alarms() -> None:
    """Nothing of its own."""
