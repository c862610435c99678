"""`tflotilla benchmark SELECTOR`: let boards measure models, and put the figures side by side."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import click
import typer

from tflotilla.host.cli import benchmark_options, output, quantities
from tflotilla.host.cli import measuring_options as options
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tflotilla.host.benchmarks.matrix import Axes
    from tflotilla.host.benchmarks.measuring import Measurer, Subject
    from tflotilla.host.benchmarks.results import BoardRun, Run
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.shared.contract.benchmark import BenchmarkReport, Configuration, Method
    from tflotilla.shared.contract.board import BoardFacts

_SCENARIOS: dict[str, Literal["single_stream", "multi_stream", "offline", "server"]] = {
    "single-stream": "single_stream",
    "multi-stream": "multi_stream",
    "offline": "offline",
    "server": "server",
}
_INPUTS: dict[str, Literal["goldens", "random"]] = {"goldens": "goldens", "random": "random"}


def run(
    selector: Annotated[
        list[str] | None, typer.Argument(metavar="SELECTOR", help="Which boards: all, a name, key=value, …")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BUNDLE...", help="Signed bundles to measure, none of which need serve. Default: what serves."
        ),
    ] = None,
    as_served: Annotated[
        bool, typer.Option("--as-served", help="Just as it serves there, or would: runtime, threads, processors.")
    ] = False,
    threads: options.Threads = "1",
    runtimes: options.Runtimes = "auto",
    xnnpack: options.Xnnpack = "on",
    delegate: Annotated[
        list[str] | None, typer.Option(help="LIBRARY[:KEY=VALUE…] on the board, or none; repeated for several.")
    ] = None,
    affinity: Annotated[
        list[str] | None, typer.Option(help="Processors to run on, like 0,1 or 2-3, or none; repeated.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Samples in one invoke, like 1,4,8.")] = "1",
    scenario: Annotated[
        str,
        typer.Option(click_type=click.Choice(list(_SCENARIOS)), help="MLPerf's: what is timed, and when it begins."),
    ] = "single-stream",
    min_runs: Annotated[
        int, typer.Option("--min-runs", "--num-runs", help="Timed runs at least; a p99 needs 662.")
    ] = 662,
    min_seconds: Annotated[
        float | None,
        typer.Option("--min-seconds", "--min-secs", help="Measure at least that long; default 1, or --max-seconds."),
    ] = None,
    max_seconds: options.MaxSeconds = 30.0,
    warmup_runs: options.WarmupRuns = 10,
    warmup_seconds: Annotated[
        float, typer.Option("--warmup-seconds", "--warmup-min-secs", help="Warm up at least that long.")
    ] = 0.0,
    run_delay: Annotated[float, typer.Option(help="Seconds of pause after each run.")] = 0.0,
    rate: Annotated[
        float | None, typer.Option(help="Begin so many runs a second, instead of one after the other.")
    ] = None,
    inputs: Annotated[
        str, typer.Option(click_type=click.Choice(list(_INPUTS)), help="The bundle's golden inputs, or seeded noise.")
    ] = "goldens",
    input_count: Annotated[int, typer.Option(help="Rotate over so many inputs.")] = 8,
    seed: Annotated[int, typer.Option(help="Of random inputs and arrivals.")] = 0,
    samples_per_query: Annotated[int, typer.Option(help="multi-stream: samples in a query.")] = 8,
    qps: Annotated[float | None, typer.Option(help="server: arrivals a second; default: search the most.")] = None,
    latency_bound: Annotated[
        str | None, typer.Option(metavar="TIME", help="server: what the p99 must keep, like 30ms.")
    ] = None,
    stages: Annotated[bool, typer.Option("--stages", help="Time decode, resize, … publish too.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", "--enable-op-profiling", help="Time the operators too.")
    ] = False,
    sustained: Annotated[
        str | None, typer.Option(metavar="TIME", help="Go on for so long, like 10min: cold and steady latency.")
    ] = None,
    cool_to: options.CoolTo = None,
    max_other_cpu: Annotated[
        float, typer.Option(help="Invalid when another process takes more per cent of a core.")
    ] = 10.0,
    max_rss: Annotated[
        str | None, typer.Option(metavar="SIZE", help="End a configuration beyond, like 120MiB.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled data as `evaluate` takes it: accuracy in the same run. Needs --models."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Of --data, at most so many, spread evenly.")] = 200,
    label_offset: Annotated[int, typer.Option(help="Added to labels of --data given as numbers.")] = 0,
    rerun: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Measure again what a result file holds, option for option.")
    ] = None,
    over: options.Over = "auto",
    at_once: Annotated[
        int, typer.Option(min=1, help="Boards that measure at the same time; 1 for virtual boards of one machine.")
    ] = 100,
    timeout: options.Timeout = None,
    save: Annotated[bool, typer.Option("--save", help="Keep the result in the fleet's history.")] = False,
    name: Annotated[str | None, typer.Option(help="What to call it, for `benchmark compare`; implies --save.")] = None,
    target: Annotated[
        list[Path] | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Also write .json, .csv, .md, .xml (JUnit), .html, .txt; repeated."
        ),
    ] = None,
    details: Annotated[bool, typer.Option("--details", help="Print all that is known of each configuration.")] = False,
    require_valid: Annotated[
        bool, typer.Option("--require-valid", help="Exit 7 unless every figure may be quoted.")
    ] = False,
    fleet: Annotated[Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Let boards measure models: latency with its certainty, load times, memory, and what the figures are worth.

    Each configuration is a fresh process on the board, whose answers are checked; what serves goes on serving.

    Example: tflotilla benchmark room=kitchen --threads 1,2,4 --max-seconds 10 --save

    Exit codes: 0 everything was measured that the boards can try, 2 usage, 3 bad fleet file, bundle or data, 4 a board
    can't run a bundle, 5 unreachable, 6 host key or login, 7 a configuration failed or a board can't measure, 8 a
    bundle isn't signed for this fleet, 10 a board does not answer or the broker is down, 11 another benchmark runs
    there, 1 some of this and some of that.
    """
    from tflotilla.host.benchmarks.measuring import Measurer
    from tflotilla.host.benchmarks.rendering import forms
    from tflotilla.host.benchmarks.results import Run
    from tflotilla.host.benchmarks.sqlite import FILE, History
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.models.delivery import check_writable
    from tflotilla.shared.contract.benchmark import Method

    boards, bundles = _words(selector or [], models or [], rerun)
    benchmark_options.refuse_ignored(click.get_current_context())
    for path in target or []:
        forms.form_of(path)
        check_writable(path)
    axes = options.axes(
        threads=threads,
        runtimes=runtimes,
        xnnpack=xnnpack,
        delegates=delegate or [],
        affinities=affinity or [],
        batch=batch,
    )
    try:
        method = Method(
            scenario=_SCENARIOS[scenario],
            warmup_runs=warmup_runs,
            warmup_seconds=warmup_seconds,
            min_runs=min_runs,
            min_seconds=min(1.0, max_seconds) if min_seconds is None else min_seconds,
            max_seconds=max_seconds,
            run_delay_seconds=run_delay,
            rate_hz=rate,
            inputs=_INPUTS[inputs],
            input_count=input_count,
            seed=seed,
            samples_per_query=samples_per_query,
            qps=qps,
            latency_bound_ms=quantities.milliseconds("--latency-bound", latency_bound),
            stages=stages,
            profile=profile,
            sustained_seconds=quantities.seconds("--sustained", sustained),
            cool_to_c=cool_to,
            max_other_cpu_percent=max_other_cpu,
            max_rss_mib=quantities.mebibytes("--max-rss", max_rss),
        )
    except ValueError as error:
        raise options.usage_error(error) from error
    options.check_timeout(timeout)
    loaded = Fleet.load(fleet)
    if save or name is not None:
        History(loaded.state / FILE).check(name)
    with output.progress("asking the boards") as tell:
        measurer = Measurer(
            fleet=loaded,
            way=options.way(loaded, over),
            at_once=at_once,
            timeout_s=timeout,
            tell=tell,
            on_report=lambda board, report: tell(_progress(board, report)),
        )
        subjects = _subjects(loaded, bundles, data, samples, label_offset)
        if rerun is not None:
            found = _again(measurer, loaded, rerun, subjects)
        else:
            found = _measure(measurer, loaded.select(boards), subjects, method, None if as_served else axes)
    result = Run(id=secrets.token_hex(6), created=time.time(), boards=found, name=name)
    _show(result, details=details, as_json=as_json)
    _keep(result, loaded, target or [], save=save or name is not None)
    if code := _exit_code(result, require_valid=require_valid):
        raise typer.Exit(code)


def _words(words: Sequence[str], models: Sequence[str], rerun: Path | None) -> tuple[str, tuple[Path, ...]]:
    """Tell the selector from bundles: `--models A B` leaves B among the words."""
    bundles = [Path(model) for model in models]
    rest = list(words)
    if models and len(rest) > 1:
        bundles += [Path(word) for word in rest if word.endswith(".tflb") or Path(word).exists()]
        rest = [word for word in rest if not (word.endswith(".tflb") or Path(word).exists())]
    if rerun is not None:
        if rest:
            raise UsageError("--rerun measures on the boards of the file; leave out SELECTOR")
        return "", tuple(bundles)
    if len(rest) != 1:
        given = " ".join(rest) or "none"
        raise UsageError(f"one SELECTOR says which boards (all, a name, key=value), {given} was given")
    return rest[0], tuple(dict.fromkeys(bundles))


def _subjects(fleet: Fleet, bundles: Sequence[Path], data: Path | None, samples: int, offset: int) -> list[Subject]:
    """Open all that is to be measured, and check it: what is wrong with the last one is no reason to lose the first."""
    from tflotilla.host.benchmarks import labelled
    from tflotilla.host.benchmarks.measuring import Subject
    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.fleet import push

    if data is not None and not bundles:
        raise UsageError(
            "--data needs --models: a bundle says how samples become inputs, and which class is which output"
        )
    if not bundles:
        return [Subject()]
    opened = [Bundle.open(path) for path in bundles]
    for bundle in opened:
        push.verify(fleet, bundle)
    return [
        Subject(
            bundle=bundle,
            samples=None if data is None else labelled.load(data, bundle, limit=samples, offset=offset),
        )
        for bundle in opened
    ]


def _measure(
    measurer: Measurer, boards: Sequence[str], subjects: Sequence[Subject], method: Method, axes: Axes | None
) -> tuple[BoardRun, ...]:
    """Ask for all that the axes span; None is the one configuration that each board would serve with."""
    from tflotilla.host.benchmarks import matrix

    def choose(facts: BoardFacts) -> tuple[Configuration, ...]:
        return () if axes is None else matrix.configurations(axes, facts)

    found: list[BoardRun] = []
    for subject in subjects:
        found += _add(measurer, found, boards, subject, method, choose)
    return tuple(found)


def _add(
    measurer: Measurer,
    found: Sequence[BoardRun],
    boards: Sequence[str],
    subject: Subject,
    method: Method,
    choose: Callable[[BoardFacts], tuple[Configuration, ...]],
) -> tuple[BoardRun, ...]:
    """Measure one more; what keeps all boards from it does not cost what was found before."""
    from tflotilla.host.benchmarks.results import BoardRun
    from tflotilla.shared.contract.benchmark import BenchmarkRequest
    from tflotilla.shared.contract.errors import TflotillaError

    try:
        return measurer.measure(boards, subject, method, choose)
    except TflotillaError as error:
        if not any(part.cells for part in found):
            raise
        bundle = subject.bundle
        asked = BenchmarkRequest(request="not asked", method=method, bundle=None if bundle is None else bundle.digest)
        model = "" if bundle is None else bundle.manifest.title
        why = {"error": str(error), "error_kind": type(error).__name__}
        return tuple(
            BoardRun(board=board, model=model, request=asked, identity=None, cells=(), **why) for board in boards
        )


def _again(measurer: Measurer, fleet: Fleet, file: Path, subjects: Sequence[Subject]) -> tuple[BoardRun, ...]:
    """Ask for what a result file holds once more: the same configurations and method, of each board its own."""
    from tflotilla.host.benchmarks import results

    brought = {None if each.bundle is None else each.bundle.digest: each for each in subjects}
    parts = results.read(file).boards
    if not parts:
        raise UsageError(f"{file} holds nothing that a board measured")
    wanted = [_wanted(part, brought, fleet, file) for part in parts]
    found: list[BoardRun] = []
    for part, subject in zip(parts, wanted, strict=True):
        request = part.request
        # What was served then is not what is served now, so it is asked for by its name.
        configurations = request.configurations or tuple(cell.configuration for cell in part.cells)
        found += _add(measurer, found, (part.board,), subject, request.method, _always(configurations))
        _note_another_model(part, found[-1], file)
    return tuple(found)


def _wanted(part: BoardRun, brought: Mapping[str | None, Subject], fleet: Fleet, file: Path) -> Subject:
    """Return what a part of a result is of. Raises UsageError, ConfigError."""
    from tflotilla.host.benchmarks.measuring import Subject
    from tflotilla.shared.contract import digest

    fleet.board(part.board)
    bundle, samples = part.request.bundle, part.request.method.samples
    subject = Subject() if bundle is None else brought.get(bundle)
    what = f"{file} measured {part.model or 'a bundle'} on {part.board}"
    if subject is None:
        raise UsageError(f"{what}; bring that bundle with --models")
    if samples != (None if subject.samples is None else digest.of_bytes(subject.samples)):
        had = "without labelled data" if samples is None else "with other labelled data"
        raise UsageError(f"{what} {had}; give --data, --samples and --label-offset as they were")
    return subject


def _always(
    configurations: tuple[Configuration, ...],
) -> Callable[[BoardFacts], tuple[Configuration, ...]]:
    return lambda _facts: configurations


def _note_another_model(before: BoardRun, after: BoardRun, file: Path) -> None:
    one, other = before.identity, after.identity
    if one is not None and other is not None and one.model_sha256 != other.model_sha256:
        output.note(
            f"{before.board}: serves another model now ({other.title}) than in {file} ({one.title}); "
            "the figures don't belong together"
        )


def _progress(board: str, report: BenchmarkReport) -> str:
    from tflotilla.host.benchmarks.rendering import words

    cell = report.cell
    head = f"{board}: {report.position} of {report.total}"
    if cell is None:
        return head
    p50 = "" if cell.measurement is None else f", p50 {words.duration(cell.measurement.latency.median_ns)}"
    return f"{head}: {words.configuration(cell)}: {words.standing(cell)}{p50}"


def _show(result: Run, *, details: bool, as_json: bool) -> None:
    from tflotilla.host.cli import benchmark_show

    if as_json:
        output.emit_json(result)
    elif any(part.cells for part in result.boards):
        benchmark_show.emit(result, details=details)
    for part in result.boards:
        if part.error is not None:
            output.complain(part.error)


def _keep(result: Run, fleet: Fleet, targets: Sequence[Path], *, save: bool) -> None:
    """Keep a result wherever it was asked for: where one place fails, the others still get what took so long."""
    from tflotilla.host.benchmarks.rendering import forms
    from tflotilla.host.benchmarks.sqlite import FILE, History
    from tflotilla.host.models.delivery import deliver
    from tflotilla.shared.contract.errors import TflotillaError

    failures: list[TflotillaError] = []
    if save:
        try:
            History(fleet.state / FILE).save(result)
        except TflotillaError as error:
            failures.append(error)
        else:
            called = f" as {result.name!r}" if result.name else ""
            output.note(f"saved{called}: {result.id} (tflotilla benchmark show {result.id})")
    for path in targets:
        try:
            deliver(forms.render(result, forms.form_of(path)), path)
        except TflotillaError as error:
            failures.append(error)
        else:
            output.note(f"written: {path}")
    for failure in failures[1:]:
        output.complain(str(failure))
    if failures:
        raise failures[0]


def _exit_code(result: Run, *, require_valid: bool) -> int:
    from tflotilla.host.fleet import pool
    from tflotilla.shared.contract.errors import BoardError, TflotillaError

    found: list[pool.BoardResult[None]] = []
    for part in result.boards:
        error: TflotillaError | None = part.failure
        for cell in part.cells:
            failed = cell.error is not None and cell.error.kind != "refused"
            invalid = cell.measurement is not None and not cell.measurement.verdict.valid
            if failed or (invalid and require_valid):
                error = error or BoardError(f"{part.board}: not every configuration could be measured")
        if part.cells and all(cell.measurement is None for cell in part.cells):
            error = error or BoardError(f"{part.board}: nothing could be measured")
        found.append(pool.BoardResult(board=part.board, error=error))
    return pool.exit_code(found)
