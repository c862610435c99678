"""`tflotilla benchmark`: measure on the boards, look at results again, hold them against each other."""

from __future__ import annotations

from typing import ClassVar

from tflotilla.host.cli.default_group import DefaultGroup
from tflotilla.host.cli.plain_typer import typer


class _Benchmark(DefaultGroup):
    commands_by_name: ClassVar = {
        "run": ("benchmark_run", "run"),
        "show": ("benchmark_show", "show"),
        "compare": ("benchmark_compare", "compare"),
        "history": ("benchmark_history", "history"),
        "import": ("benchmark_import", "import_"),
    }


app = typer.Typer(
    cls=_Benchmark,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Let boards measure models, with the runtime, process and threads that serve; show and compare results. "
    "`tflotilla benchmark SELECTOR` is `tflotilla benchmark run SELECTOR`.",
)


@app.callback()
def benchmark() -> None:
    """Nothing of its own."""
