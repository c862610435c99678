"""`tflotilla demo`: the whole story on this machine, with real boards in miniature."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

import click
import typer

from tflotilla.host.cli import output

_BROKERS = ("auto", "mosquitto", "embedded")


def demo(
    name: Annotated[str, typer.Option(help="Name of the lab; its boards are NAME-1, NAME-2, NAME-3.")] = "demo",
    broker: Annotated[
        Literal["auto", "mosquitto", "embedded"],
        typer.Option(click_type=click.Choice(_BROKERS), help="auto is an installed mosquitto, else the embedded one."),
    ] = "auto",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab running and print what to try next.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the facts of the story.")
    ] = None,
) -> None:
    """Tell the whole story on this machine, in under two minutes: train, convert, sign, deploy, watch, undo.

    Three virtual boards with real SSH servers and a broker come up on loopback; no root, no container, no download.

    Example: tflotilla demo --keep --json facts.json

    Exit codes: 0 everything went as it must, 11 a lab of that name is up, else the class of what went wrong.
    """
    from tflotilla.host.lab.stage import Stage

    if json_file is not None:
        # Found out now, not after two minutes.
        output.check_writable(json_file)
    stage = Stage(output.console())
    # Before the imports, which take a second or more on a busy machine.
    stage.say("From a trained model to boards that report, on this machine.", style="bold")
    from tflotilla.host.lab.story import Story

    with Story(stage, name=name, broker=broker, keep=keep) as story:
        story.tell()
        story.facts["seconds"] = stage.elapsed_s
    stage.summary(story.summary())
    if json_file is not None:
        output.write_json(json_file, story.facts)
    if keep:
        stage.commands(
            "The lab is still up. Try:",
            (
                *_activation(),
                f"export TFLOTILLA_FLEET={shlex.quote(str(story.fleet_file))}",
                "tflotilla status all",
                "tflotilla watch",
                f"tflotilla benchmark {name}-1 --threads 1,2",
                f"tflotilla inspect {shlex.quote(str(story.first_bundle))}",
                f"tflotilla deploy {shlex.quote(str(story.second_bundle))} all",
                "tflotilla rollback all",
                f"tflotilla lab down {name}",
            ),
        )


def _activation() -> tuple[str, ...]:
    """Return what makes `tflotilla` a command of the user's shell, when it is none: `make demo` needs no activation."""
    if shutil.which("tflotilla") is not None:
        return ()
    return (f"export PATH={shlex.quote(str(Path(sys.prefix) / 'bin'))}:$PATH",)
