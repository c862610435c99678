"""`tflotilla tools`: what is read or made by programs that live in environments of their own."""

from __future__ import annotations

from typing import Annotated

import typer

from tflotilla.host.cli import output

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Tools in environments of their own, installed only when asked for: onnx, to convert .onnx files.",
)
_Name = Annotated[str, typer.Argument(metavar="TOOL", help="Name of the tool: onnx.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command("install")
def install(name: _Name, as_json: _Json = False) -> None:
    """Install a tool from its lock, every hash checked; what is there already is left alone.

    Example: tflotilla tools install onnx

    Exit codes: 0 it is there, 2 usage, 3 it can't be built or written.
    """
    from tflotilla.host.packages import tools

    tool = tools.find(name)
    with output.progress(f"installing {name} (about {tool.size_gib:g} GiB)"):
        python = tools.install(tool)
    if as_json:
        output.emit_json({"tool": name, "python": str(python)})
    else:
        output.console().print(f"{name}: {python.parent.parent}", soft_wrap=True, markup=False, highlight=False)


@app.command("remove")
def remove(name: _Name, as_json: _Json = False) -> None:
    """Remove a tool's environment.

    Example: tflotilla tools remove onnx

    Exit codes: 0 it is gone, 2 usage.
    """
    from tflotilla.host.packages import tools

    there = tools.remove(tools.find(name))
    if as_json:
        output.emit_json({"tool": name, "removed": there})
    else:
        output.note(f"{name}: {'removed' if there else 'was not installed'}")


@app.command("list")
def list_tools(as_json: _Json = False) -> None:
    """Show the tools and whether they are installed.

    Example: tflotilla tools list

    Exit codes: 0.
    """
    from tflotilla.host.packages import tools

    found = {tool.name: tools.python(tool) for tool in tools.TOOLS.values()}
    if as_json:
        output.emit_json({name: None if python is None else str(python) for name, python in found.items()})
        return
    output.emit_table(
        "Tools",
        ("tool", "for", "GiB", "installed"),
        [
            (tool.name, tool.purpose, f"{tool.size_gib:g}", "yes" if found[tool.name] else "no")
            for tool in tools.TOOLS.values()
        ],
        right=("GiB",),
    )
