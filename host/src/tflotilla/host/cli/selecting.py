"""The options with which commands pick boards, the same everywhere, and the help that goes with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

#: Whom the command is for.
Selector = Annotated[
    str,
    typer.Argument(
        metavar="SELECTOR", help="all, pi-7, pi-*, @group, room=kitchen, 'arch=aarch64 and not offline', !pi-3."
    ),
]
OptionalSelector = Annotated[
    str, typer.Argument(metavar="[SELECTOR]", help="all, pi-*, @group, room=kitchen and not offline, …; default all.")
]
Limit = Annotated[
    str | None,
    typer.Option("--limit", metavar="PATTERN|COUNT", help="Of those boards, only these, or only the first so many."),
]
FleetFile = Annotated[Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET, ./fleet.toml.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Forks = Annotated[int, typer.Option("--forks", min=1, help="How many boards at once.")]
