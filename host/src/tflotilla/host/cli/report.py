"""`tflotilla report`: everything known about the variants of a model, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract.errors import ModelError


def report(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help=".tflite files, .tflb files, bundle folders.")
    ],
    out: Annotated[
        list[Path] | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="report.html, .md or .json; repeated. Default report.html."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Labelled data as `evaluate` takes them, or unlabelled beside a float model.")
    ] = None,
    preprocess: Annotated[
        str | None, typer.Option(help="How images become inputs: mobilenet, unit, raw, … Bundles know theirs.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Text file, one label a line. Bundles bring theirs.")] = None,
    label_offset: Annotated[
        int, typer.Option(help="Added to labels given as numbers: 1 for models whose class 0 is background.")
    ] = 0,
    reference: Annotated[
        Path | None, typer.Option(help="The float .tflite to compare with. Default: the first float32 one given.")
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="ai-edge-litert or tflite-runtime; repeated. Default: each that is installed here."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Judge on at most so many samples, spread evenly.")] = None,
    pictures: Annotated[int, typer.Option(min=0, help="How many samples to show with their predictions.")] = 6,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Model report",
    as_json: Annotated[bool, typer.Option("--json", help="The report as one JSON document on stdout.")] = False,
) -> int:
    """Write one page about the variants of a model: size, accuracy, agreement with float, latency, where it runs.

    With the errors of every layer and samples with predictions. The HTML page is self-contained: no scripts, nothing
    loaded from elsewhere.

    Example: tflotilla report converted/*.tflite -o report.html --data held-out/ --preprocess unit

    Exit codes: 0 written, 2 usage, 3 a model or the data can't be used (the page about the others is written), 7 no
    runtime is installed here.
    """
    import tempfile

    from tflotilla.host.bundles import subjects
    from tflotilla.host.models import delivery
    from tflotilla.host.models.report import collect, pages

    targets = out or ([] if as_json else [Path("report.html")])
    renderers = [(target, pages.renderer(target)) for target in targets]
    for target in targets:
        delivery.check_writable(target)
    with (
        tempfile.TemporaryDirectory(prefix="tflotilla-report-") as folder,
        output.progress(f"reporting on {len(models)} model{'s' if len(models) > 1 else ''}") as say,
    ):
        found = collect.collect(
            collect.ReportRequest(
                models=tuple(
                    subjects.unpack(path, Path(folder) / str(number)) if subjects.is_bundle(path) else path
                    for number, path in enumerate(models)
                ),
                data=data,
                preprocess=preprocess,
                labels=labels,
                label_offset=label_offset,
                reference=reference,
                runtimes=tuple(runtime or ()),
                limit=limit,
                pictures=pictures,
                title=title,
            ),
            output.spare(say),
        )
    for target, render in renderers:
        delivery.deliver(render(found), target)
    if as_json:
        output.emit_json(found)
    else:
        for fact in pages.facts(found):
            output.note(fact)
        for target in targets:
            output.console().print(str(target), soft_wrap=True, markup=False, highlight=False)
    for broken in found.broken:
        output.complain(broken.reason)
    return ModelError.exit_code if found.broken else 0
