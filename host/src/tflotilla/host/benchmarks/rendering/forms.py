"""The door to every form of a run: `render(run, form)`, and which form a file's suffix asks for. Writes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, get_args

from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.benchmarks.results import Run

Form = Literal["table", "json", "csv", "markdown", "junit", "html"]
FORMS: tuple[Form, ...] = get_args(Form)
SUFFIXES: dict[str, Form] = {
    ".txt": "table",
    ".json": "json",
    ".csv": "csv",
    ".md": "markdown",
    ".xml": "junit",
    ".html": "html",
}


def render(run: Run, form: Form) -> str:
    """Return a run in a form; every one ends in a line break.

    Args:
        run: what to show.
        form: one of `FORMS`. `json` is a result file: `results.from_json` reads it.

    """
    from tflotilla.host.benchmarks.rendering import junit, markdown, page, table, tabular

    match form:
        case "table":
            return table.text(run)
        case "json":
            return json.dumps(codec.encode(run), indent=2, sort_keys=True, allow_nan=False) + "\n"
        case "csv":
            return tabular.render(run)
        case "markdown":
            return markdown.render(run)
        case "junit":
            return junit.render(run)
        case "html":
            return page.render(run)


def form_of(path: Path) -> Form:
    """Return the form that a file's suffix asks for. Raises UsageError."""
    form = SUFFIXES.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"{path}: a benchmark is written as {', '.join(SUFFIXES)}; or say --format")
    return form
