"""Refuse an option that is given twice and holds one value; click would take the last and drop the others silently.

`--target-runtime A --target-runtime B` must not look as if both had been heeded.
What this module does NOT do: touch options that may be repeated, or flags, where twice means the same as once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence


def refuse_repeats(command: click.Command) -> None:
    """Make a command, and those below it, raise click.UsageError for an option of one value that is given twice."""
    for child in getattr(command, "commands", {}).values():
        refuse_repeats(child)
    make_parser = command.make_parser

    def make_strict_parser(ctx: click.Context) -> Any:  # noqa: ANN401 - click's parser class has no public name
        parser = make_parser(ctx)
        parse_args = parser.parse_args

        def parse_once(args: list[str]) -> tuple[dict[str, Any], list[str], list[click.Parameter]]:
            found = parse_args(args)
            _check(found[2], ctx)
            return found

        vars(parser)["parse_args"] = parse_once
        return parser

    vars(command)["make_parser"] = make_strict_parser


def _check(order: Sequence[click.Parameter], ctx: click.Context) -> None:
    for option in order:
        if not isinstance(option, click.Option) or option.multiple or option.count or option.is_flag:
            continue
        times = sum(entry is option for entry in order)
        if times > 1:
            name = max(option.opts, key=len)
            raise click.UsageError(f"{name} is given {times} times, and takes one value", ctx)
