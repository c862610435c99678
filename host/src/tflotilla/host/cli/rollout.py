"""`tflotilla rollout`: a bundle to many boards in waves, with gates on what it does there."""

from __future__ import annotations

from typing import ClassVar

from tflotilla.host.cli.default_group import LazyGroup
from tflotilla.host.cli.plain_typer import typer


class _Rollout(LazyGroup):
    commands_by_name: ClassVar = {
        "plan": ("rollout_plan", "plan"),
        "start": ("rollout_plan", "start"),
        "status": ("rollout_status", "status"),
        "list": ("rollout_status", "list_rollouts"),
        "pause": ("rollout_say", "pause"),
        "resume": ("rollout_conduct", "resume"),
        "approve": ("rollout_say", "approve"),
        "retry": ("rollout_conduct", "retry"),
        "abort": ("rollout_say", "abort"),
        "rollback": ("rollout_conduct", "rollback"),
        "audit": ("rollout_status", "audit"),
        "worker": ("rollout_worker", "worker"),
    }


app = typer.Typer(
    cls=_Rollout,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Bring a bundle to many boards in waves; gates on what it does there let the next wave begin, or stop it all.",
    epilog="Example: tflotilla rollout start birds-2.0.0.tflb 'site=lab and not offline' --waves 1,10%,100%",
)


@app.callback()
def rollout() -> None:
    """Nothing of its own."""
