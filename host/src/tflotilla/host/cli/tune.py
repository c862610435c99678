"""`tflotilla tune`: the fastest configuration of a model on each type of board, found by itself."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any, Literal

import click
import typer

from tflotilla.host.cli import measuring_options as options
from tflotilla.host.cli import output, quantities
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tflotilla.host.benchmarks.fleet_tuning import Ask, Kind, KindTuned
    from tflotilla.host.benchmarks.matrix import Axes
    from tflotilla.host.benchmarks.measuring import Measurer, Subject
    from tflotilla.host.benchmarks.tuning import Entry, Wish
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.fleet.tuned import Record
    from tflotilla.shared.contract.benchmark import BenchmarkReport, Method
    from tflotilla.shared.contract.board import BoardFacts
    from tflotilla.shared.contract.errors import TflotillaError

_AUTO = "auto"
_SECONDS = 10.0
_OBJECTIVES = ("p50", "p90", "p99", "mean", "throughput", "cpu")
_Objective = Literal["p50", "p90", "p99", "mean", "throughput", "cpu"]


def tune(
    selector: Annotated[str, typer.Argument(metavar="SELECTOR", help="all, pi-7, pi-*, room=kitchen, !pi-3.")],
    bundle: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="What to tune; need not serve. Default: what serves.")
    ] = None,
    objective: Annotated[
        _Objective,
        typer.Option(
            click_type=click.Choice(_OBJECTIVES),
            help="What is to be best: a latency, samples a second, or processor time.",
        ),
    ] = "p50",
    max_p99: Annotated[str | None, typer.Option(metavar="TIME", help="The p99 must be shown to keep it: 30ms.")] = None,
    max_rss: Annotated[str | None, typer.Option(metavar="SIZE", help="Most memory of the process: 120MiB.")] = None,
    leave_cores: Annotated[int, typer.Option(min=0, help="Processors to leave to others.")] = 0,
    threads: options.Threads = _AUTO,
    runtimes: options.Runtimes = _AUTO,
    xnnpack: options.Xnnpack = "both",
    delegate: Annotated[
        list[str] | None, typer.Option(help="LIBRARY[:KEY=VALUE…] on the board, tried beside none; repeated.")
    ] = None,
    affinity: Annotated[
        list[str] | None,
        typer.Option(help="Processors like 0,1 or 2-3, or none; repeated. auto: free, and one for each thread."),
    ] = None,
    batch: Annotated[str, typer.Option(help="Samples in one invoke, like 1,4; only 1 can be served.")] = "1",
    min_seconds: Annotated[
        float | None,
        typer.Option(
            "--min-seconds",
            "--min-secs",
            help="How long the last round measures each. Default: 10, or 7 times what starting a process takes.",
        ),
    ] = None,
    max_seconds: options.MaxSeconds = 60.0,
    warmup_runs: options.WarmupRuns = 10,
    cool_to: options.CoolTo = None,
    max_other_cpu: Annotated[
        float, typer.Option(help="Invalid when another process takes more per cent of a core; a busy worker counts.")
    ] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the order in which configurations are tried.")] = 0,
    stale: Annotated[
        bool, typer.Option("--stale", help="Only where nothing was found yet, or runtime or kernel have changed.")
    ] = False,
    over: options.Over = "auto",
    timeout: options.Timeout = None,
    fleet: Annotated[Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Find the fastest configuration of a model on each type of board; `deploy` applies it to all of that type.

    Each is tried in a fresh process, all of them briefly and the best for longer; one that answers wrong loses.

    Example: tflotilla tune room=kitchen --objective p99 --max-p99 30ms --leave-cores 1

    Exit codes: 0 found on each type of board, 2 usage, 3 bad fleet file or bundle, 4 a board can't run the bundle,
    5 unreachable, 6 host key or login, 7 nothing keeps to the constraints or a board can't measure, 8 the bundle isn't
    signed for this fleet, 10 a board does not answer or the broker is down, 11 a benchmark runs there, 1 some of this
    and some of that.
    """
    from tflotilla.host.benchmarks import fleet_tuning
    from tflotilla.host.benchmarks.measuring import Measurer, Subject
    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.fleet import pool, tuned
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.shared.contract.manifest import MODEL

    pinned = [text for text in affinity or [_AUTO] if text != _AUTO]
    job = fleet_tuning.Job(
        axes=_axes(threads, runtimes, xnnpack, delegate or [], pinned, batch),
        wish=_wish(objective, max_p99, max_rss, leave_cores, seed),
        method=_method(
            _SECONDS if min_seconds is None else min_seconds, max_seconds, warmup_runs, seed, cool_to, max_other_cpu
        ),
        bind=_AUTO in (affinity or [_AUTO]),
        stretch=min_seconds is None,
    )
    options.check_timeout(timeout)
    loaded = Fleet.load(fleet)
    subject = Subject(bundle=None if bundle is None else Bundle.open(bundle))
    way = options.way(loaded, over)
    failures: dict[str, TflotillaError] = {}
    with output.progress("asking the boards what they are") as tell:
        facts, serving = _look(loaded, loaded.select(selector), failures)
        kinds = fleet_tuning.kinds(facts, serving if subject.bundle is None else None)
        records = tuned.load(loaded.state, tell=output.note) if stale else ()
        sha256 = None if subject.bundle is None else subject.bundle.manifest.files[MODEL].sha256
        fresh = {
            n: fleet_tuning.known(records, kind, model_sha256=sha256, objective=objective)
            for n, kind in enumerate(kinds)
        }
        measurer = Measurer(
            fleet=loaded,
            way=way,
            timeout_s=timeout,
            # Over MQTT it tells who is waited for, which one board at a time is clear anyway.
            tell=tell if way == "ssh" else lambda _text: None,
            on_report=lambda board, report: tell(_progress(board, report)),
        )
        due = [kind for n, kind in enumerate(kinds) if fresh[n] is None]
        try:
            found = pool.run(
                [kind.boards[0] for kind in due],
                lambda board: kept(
                    loaded, fleet_tuning.tune(_of(due, board), job, asking(measurer, subject, tell), tell=tell)
                ),
            )
        except KeyboardInterrupt:
            # Whoever asked does not want it any more, so the boards need not go on.
            measurer.abandon()
            raise
    results = [part.value for part in found if part.value is not None]
    failures.update({part.board: part.error for part in found if part.error is not None})
    failures.update({result.kind.boards[0]: result.error for result in results if result.error is not None})
    known = [(kinds[n], record) for n, record in fresh.items() if record is not None]
    code = pool.exit_code([pool.BoardResult(board=board, error=error) for board, error in failures.items()])
    if as_json:
        output.emit_json(_document(results, known, failures, code))
    else:
        _show(results, known, failures)
    if code:
        raise typer.Exit(code)


def _axes(
    threads: str, runtimes: str, xnnpack: str, delegates: Sequence[str], affinities: Sequence[str], batch: str
) -> Axes:
    given = options.axes(
        threads=threads, runtimes=runtimes, xnnpack=xnnpack, delegates=delegates, affinities=affinities, batch=batch
    )
    # A delegate must show that it is worth it.
    return given if None in given.delegates else dataclasses.replace(given, delegates=(None, *given.delegates))


def _wish(objective: _Objective, max_p99: str | None, max_rss: str | None, leave_cores: int, seed: int) -> Wish:
    from tflotilla.host.benchmarks import tuning

    max_p99_ms, max_rss_mib = quantities.milliseconds("--max-p99", max_p99), quantities.mebibytes("--max-rss", max_rss)
    for option, limit in (("--max-p99", max_p99_ms), ("--max-rss", max_rss_mib)):
        if limit is not None and limit <= 0:
            raise UsageError(f"{option} must be above 0")
    return tuning.Wish(
        objective=objective, max_p99_ms=max_p99_ms, max_rss_mib=max_rss_mib, leave_cores=leave_cores, seed=seed
    )


def _method(
    min_seconds: float, max_seconds: float, warmup_runs: int, seed: int, cool_to: float | None, max_other_cpu: float
) -> Method:
    from tflotilla.shared.contract.benchmark import Method

    try:
        # How many runs are needed is the objective's to say.
        return Method(
            min_runs=1,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            warmup_runs=warmup_runs,
            seed=seed,
            cool_to_c=cool_to,
            max_other_cpu_percent=max_other_cpu,
        )
    except ValueError as error:
        raise options.usage_error(error) from error


def _look(
    fleet: Fleet, boards: Sequence[str], failures: dict[str, TflotillaError]
) -> tuple[dict[str, BoardFacts], dict[str, str | None]]:
    """Ask boards what they are and serve; what is known of one that is off must do, where something is."""
    from tflotilla.host.fleet import pool, push
    from tflotilla.shared.contract.errors import UnreachableError

    facts: dict[str, BoardFacts] = {}
    serving: dict[str, str | None] = {}
    for seen in pool.run(boards, lambda board: push.status(board, fleet)):
        known = fleet.facts(seen.board)
        if known is None or not (seen.ok or isinstance(seen.error, UnreachableError)):
            failures[seen.board] = seen.error or UnreachableError(f"{seen.board}: nothing is known of it yet")
            continue
        facts[seen.board] = known
        status = seen.value
        serving[seen.board] = status.serving.digest if status is not None and status.serving is not None else None
    return facts, serving


def kept(fleet: Fleet, result: KindTuned) -> KindTuned:
    """Keep what was found at once, so that another board's trouble or Ctrl-C does not lose it."""
    from tflotilla.host.fleet import tuned
    from tflotilla.shared.contract.errors import InputError

    try:
        tuned.save(fleet.state, result.records)
    except InputError as error:
        # What took minutes to find is shown all the same.
        return dataclasses.replace(result, records=(), error=InputError(f"what was found is not kept: {error}"))
    return result


def _of(kinds: Sequence[Kind], board: str) -> Kind:
    return next(kind for kind in kinds if kind.boards[0] == board)


def asking(measurer: Measurer, subject: Subject, tell: Callable[[str], None]) -> Ask:
    """Return what asks boards, again and again where the broker goes away after a board's first round."""
    from tflotilla.host.fleet.lines.cuts import WAITS_S
    from tflotilla.shared.contract.errors import BrokerError

    begun: set[str] = set()

    def ask(board: str, configurations: Any, method: Method) -> Any:  # noqa: ANN401 - `Ask` says it
        # Each round connects anew: that the broker is away for a while must not cost the rounds before.
        for wait_s in WAITS_S if board in begun else ():
            try:
                (run,) = measurer.measure((board,), subject, method, lambda _facts: configurations)
            except BrokerError as error:
                away = error
            else:
                if run.cells or not isinstance(run.failure, BrokerError):
                    return run
                away = run.failure
            tell(f"{away}; trying again")
            time.sleep(wait_s)
        (run,) = measurer.measure((board,), subject, method, lambda _facts: configurations)
        begun.add(board)
        return run

    return ask


def _progress(board: str, report: BenchmarkReport) -> str:
    from tflotilla.host.benchmarks.rendering import words

    head = f"{board}: {report.position} of {report.total}"
    return head if report.cell is None else f"{head}: {words.configuration(report.cell)}"


_COLUMNS = ("configuration", "round", "figure", "memory", "goldens", "result")


def _show(
    results: Sequence[KindTuned], kept: Sequence[tuple[Kind, Record]], failures: Mapping[str, TflotillaError]
) -> None:
    from tflotilla.host.fleet import tuned

    for result in results:
        found = result.found
        if found is None:
            continue
        model = "" if result.identity is None else f"{result.identity.title} on "
        title = f"{model}{result.board} ({result.kind.board_type}), by {found.statistic}"
        rows = [_row(result, entry) for entry in found.ranking]
        output.emit_table(title, _COLUMNS, rows, right=("round", "figure", "memory", "goldens"))
        for line in found.explanation:
            # An error's own reason comes with the error.
            if line not in str(result.error):
                output.note(line)
        for record in result.records:
            if record.pick:
                others = len(result.kind.boards) - 1
                also = f", and for {others} more of its kind" if others else ""
                output.note(f"kept for {result.board}{also}: {tuned.describe(record)}; `tflotilla deploy` applies it")
    for kind, record in kept:
        output.note(f"{', '.join(kind.boards)}: tuned already, on {record.board}: {tuned.describe(record)}")
    for error in failures.values():
        output.complain(str(error))


def _row(result: KindTuned, entry: Entry) -> tuple[str, ...]:
    from tflotilla.host.benchmarks import tuning
    from tflotilla.host.benchmarks.rendering import words

    found, cell = result.found, entry.cell
    measured = cell.measurement if cell is not None else None
    if found is None or cell is None or measured is None:
        name = ", ".join((entry.configuration.inference.runtime, *words.choices(entry.configuration)))
        return name, str(entry.rung or ""), "", "", "", words.sentence(entry.out or "")
    figure = tuning.value(measured, found.statistic)
    correct = f"{measured.correctness.goldens}/{measured.correctness.goldens_total}"
    said = words.sentence(entry.out) if entry.out else words.standing(cell)
    return (
        words.configuration(cell, short=True),
        str(entry.rung),
        "" if figure is None else tuning.words(figure, found.statistic),
        words.mebibytes(measured.peak_rss_bytes),
        correct,
        f"the pick, {said}" if entry is found.best else said,
    )


def _document(
    results: Sequence[KindTuned],
    kept: Sequence[tuple[Kind, Record]],
    failures: Mapping[str, TflotillaError],
    code: int,
) -> dict[str, Any]:
    return {
        "types": [_type_document(result) for result in results],
        "fresh": [{"boards": kind.boards, "record": record} for kind, record in kept],
        "errors": {board: {"error": type(error).__name__, "message": str(error)} for board, error in failures.items()},
        "exit_code": code,
    }


def _type_document(result: KindTuned) -> dict[str, Any]:
    found, search = result.found, result.search
    return {
        "boards": result.kind.boards,
        "board_type": result.kind.board_type,
        "kernel": result.kind.kernel,
        "tuned_on": result.board,
        "identity": result.identity,
        "seconds": round(result.seconds, 3),
        "wish": None if search is None else search.wish,
        "rungs": () if search is None else search.rungs,
        "statistic": None if found is None else found.statistic,
        "best": None if found is None or found.best is None else found.best.configuration,
        "served": None if found is None or found.served is None else found.served.configuration,
        "ranking": () if found is None else found.ranking,
        "explanation": () if found is None else found.explanation,
        "records": result.records,
    }
