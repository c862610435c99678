"""The command line: one module per command, found here by name, its heavy imports inside the command.

What this module does NOT do: anything but parsing, dispatch and the one place where errors become exit codes.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from pathlib import Path

import click

from tflotilla.host.cli import interrupts
from tflotilla.host.cli.given_once import refuse_repeats
from tflotilla.host.cli.help_texts import keep_examples_whole
from tflotilla.host.cli.output import complain
from tflotilla.host.cli.plain_typer import typer
from tflotilla.shared.contract.errors import InputError, TflotillaError

EXIT_BUG = 70
EXIT_INTERRUPTED = 130
#: Errors of the system that are no bug of ours wherever they come up.
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)

#: Command → module below `tflotilla.host.cli`; the module has either a function of the command's name or an `app`.
COMMANDS = {
    "convert": "convert",
    "calibrate": "calibrate",
    "quantize": "quantize",
    "prune": "prune",
    "cluster": "cluster",
    "qat": "qat",
    "inspect": "inspect",
    "evaluate": "evaluate",
    "layers": "layers",
    "report": "report",
    "bundle": "bundle",
    "board": "board",
    "fleet": "fleet",
    "check": "check",
    "deploy": "deploy",
    "rollout": "rollout",
    "controller": "controller",
    "status": "status",
    "watch": "watch",
    "collect": "collect",
    "alarms": "alarms",
    "dashboard": "dashboard",
    "bridge": "bridge",
    "query": "query",
    "export": "export",
    "benchmark": "benchmark",
    "tune": "tune",
    "rollback": "rollback",
    "reproduce": "reproduce",
    "tools": "tools",
    "lab": "lab",
    "demo": "demo",
}

_EPILOG = """Exit codes: 0 done, 1 some boards failed in different ways, 2 usage, 3 bad input, 4 incompatible,
5 unreachable, 6 host key or login refused, 7 board lacks something, 8 signature or digest, 9 probe failed, 10 MQTT,
11 conflict, 12 not convertible, 13 slower than before, 14 rollout halted, 15 alarms fire, 70 a bug of ours,
130 interrupted."""


class _Commands(typer.core.TyperGroup):
    """Commands by name, each module imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a first use, not of the alphabet."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and build one command; None for a name that isn't one."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"tflotilla.host.cli.{COMMANDS[cmd_name]}")
        app = getattr(module, "app", None)
        if app is None:
            app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            app.command(cmd_name)(getattr(module, cmd_name))
        command = typer.main.get_command(app)
        command.name = cmd_name
        keep_examples_whole(command)
        refuse_repeats(command)
        return command


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=_EPILOG,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from tflotilla.host import __version__

        typer.echo(f"tflotilla {__version__}")
        raise typer.Exit


@app.callback()
def tflotilla(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """From a trained model to a verified, measured, watched model on every board you own, over SSH and MQTT."""
    del version


def main() -> None:
    """Run the command line; every failure is one line on stderr and an exit code of its own class."""
    _ready_streams()
    interrupts.take_echoes_for_one()
    code = _run()
    if code == EXIT_INTERRUPTED:
        interrupts.ignore()
    sys.exit(code)


def _ready_streams() -> None:
    """Let output go nowhere where somebody closed it, and no character be too much for a terminal."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as the process lives
        else:
            stream.reconfigure(errors="backslashreplace")


def _check_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise InputError("the folder you are in is gone; change to another") from error


def _untranslated(error: Exception) -> int:
    """Say what nobody translated: what the machine lacks (space, mostly on stdout), else a bug of ours."""
    if not isinstance(error, OSError) or error.errno not in _OF_THE_MACHINE:
        complain(f"a bug of tflotilla: {type(error).__name__}: {error} (run again with TFLOTILLA_DEBUG=1 to see where)")
        return EXIT_BUG
    if error.filename is None:
        # What is left in the buffer would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    complain(f"{error.filename or 'the output'} can't be written: {error.strerror}")
    return InputError.exit_code


def _usage(error: click.ClickException) -> str:
    """Say a mistake of the command line in one line, and where the help is."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    said = error.format_message().rstrip(".")
    return said if context is None else f"{said}; see `{context.command_path} --help`"


def _run() -> int:
    try:
        _check_folder()
        result = app(standalone_mode=False, prog_name="tflotilla")
        # Here, and not when Python ends: what can't be written is an error of the command.
        sys.stdout.flush()
    except TflotillaError as error:
        complain(str(error))
        return error.exit_code
    except click.ClickException as error:
        complain(_usage(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        complain("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`| head`): not an error, and nothing may be written any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("TFLOTILLA_DEBUG"):
            raise
        return _untranslated(error)
    if result == EXIT_INTERRUPTED:
        # Typer answers Ctrl-C itself, without a word.
        complain("interrupted")
    return result if isinstance(result, int) else 0
