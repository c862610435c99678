"""`tflotilla benchmark show RUN`: a result again, in any form."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from tflotilla.host.benchmarks.rendering.forms import Form
    from tflotilla.host.benchmarks.results import Run


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A result file, or the name or id of a saved benchmark.")],
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="table, json, csv, markdown, junit or html. Default: by -o's suffix, else table."
        ),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option("-o", "--output", metavar="FILE", help=".html, .md, .csv, .json, .xml (JUnit) or .txt; repeated."),
    ] = None,
    details: Annotated[bool, typer.Option("--details", help="Everything that is known of each cell.")] = False,
    fleet: Annotated[Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout: a result file.")] = False,
) -> None:
    """Show a benchmark's result: percentiles with their bounds, what the answers were worth, VALID or why not.

    A percentile that too few runs support is *, and a line below says how many are lacking. The HTML page is
    self-contained: plots, operators, the board's state, how it was measured; no scripts, nothing loaded from elsewhere.

    Example: tflotilla benchmark show before.json -o before.html -o before.csv

    Exit codes: 0 shown, 2 usage, 3 no such result, or one that can't be read.
    """
    from tflotilla.host.benchmarks.rendering import forms
    from tflotilla.host.cli.saved_benchmarks import load
    from tflotilla.host.models import delivery

    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} contradict each other; give one")
    wanted = check_form("json" if as_json else form)
    targets = [(target, wanted if wanted and form else forms.form_of(target)) for target in out or ()]
    for target, _ in targets:
        delivery.check_writable(target)
    found = load(run, fleet)
    for target, target_form in targets:
        delivery.deliver(forms.render(found, target_form), target)
    if wanted in (None, "table") and not (wanted and targets):
        emit(found, details=details)
    elif wanted is not None and (as_json or not targets):
        sys.stdout.write(forms.render(found, wanted))
    for target, _ in targets:
        output.note(f"written: {target}")


def check_form(form: str | None) -> Form | None:
    """Return the form that was asked for; None for none. Raises UsageError."""
    from tflotilla.host.benchmarks.rendering import forms

    if form is not None and form not in forms.FORMS:
        raise UsageError(f"--format must be one of {', '.join(forms.FORMS)}, not {form!r}")
    return cast("Form | None", form)


def emit(run: Run, *, details: bool = False) -> None:
    """Print a run's tables on stdout, each with its lines below: why a cell is INVALID is a result too."""
    from tflotilla.host.benchmarks.rendering import table

    output.note(table.heading(run))
    titled = not output.console().is_terminal
    # Whoever asked for the stages or the operators wants to see them.
    for each in (*table.tables(run, details=details), *(() if details else table.asked_for(run))):
        if titled:
            # Piped, a table has no title of its own, and here are several.
            output.console().print(each.title, markup=False, highlight=False, soft_wrap=True)
        if each.rows:
            output.emit_table(each.title, each.columns, each.rows, right=each.right)
        for line in each.notes:
            output.console().print(line, markup=False, highlight=False, soft_wrap=True)
