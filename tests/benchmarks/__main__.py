"""`make bench`: measures what the README claims, prints it beside what was promised.

`python -m tests.benchmarks [--json] [--seconds S] [--patience S] [PART…]`; parts are overhead, memory, startup,
conversion, evaluation, parity, tuning, scale, push, collector and dashboard, all by default. The exit code is 1 when a
promise is broken: on a busy machine try again before believing it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks import (
    busy,
    collector,
    conversion,
    dashboard,
    evaluation,
    memory,
    models,
    overhead,
    parity,
    push,
    scale,
    sketches,
    startup,
    tuning,
)
from tflotilla.device import facts

PARTS = (
    *("overhead", "memory", "startup", "conversion", "evaluation", "parity", "tuning", "scale", "push"),
    "collector",
    "dashboard",
    "sketches",
)
_VERDICT = {True: "kept", False: "BROKEN"}


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*PARTS, []], help=", ".join(PARTS))
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each model is timed")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds to wait for a quiet moment, per model")
    options = parser.parse_args()
    parts = options.parts or PARTS
    document: dict[str, Any] = {"machine": _machine()}
    kept = []
    with tempfile.TemporaryDirectory(prefix="tflotilla-bench-") as scratch:
        folder = Path(scratch)
        if "overhead" in parts:
            document["overhead"], verdict = _overhead(folder, options)
            kept.append(verdict)
        if "memory" in parts:
            document["memory"], verdict = _memory(folder, quiet=options.json)
            kept.append(verdict)
        if "startup" in parts:
            document["startup"], verdict = _startup(quiet=options.json)
            kept.append(verdict)
        if "conversion" in parts:
            document["conversion"], verdict = _conversion(folder, quiet=options.json)
            kept.append(verdict)
        if "evaluation" in parts:
            document["evaluation"], verdict = _evaluation(folder / "evaluation", options)
            kept.append(verdict)
        if "parity" in parts:
            document["parity"], verdict = _parity(folder / "parity", options)
            kept.append(verdict)
        if "tuning" in parts:
            document["tuning"], verdict = _tuning(folder / "tuning", options)
            kept.append(verdict)
        if "scale" in parts:
            document["scale"], verdict = _scale(quiet=options.json)
            kept.append(verdict)
        if "push" in parts:
            document["push"], verdict = _push(folder / "push", options)
            kept.append(verdict)
        if "collector" in parts:
            document["collector"], verdict = _collector(folder / "collector", options)
            kept.append(verdict)
        if "dashboard" in parts:
            document["dashboard"], verdict = _dashboard(folder / "dashboard", options)
            kept.append(verdict)
        if "sketches" in parts:
            document["sketches"], verdict = _sketches(folder / "sketches", options)
            kept.append(verdict)
    if options.json:
        print(json.dumps(document, indent=2, sort_keys=True))  # noqa: T201 - the result
    return 0 if all(kept) else 1


def _machine() -> dict[str, object]:
    board = facts.read(Path.cwd())
    load = os.getloadavg()[0]
    return {
        "arch": board.arch,
        "cores": board.cores,
        "python": board.python,
        "runtimes": [str(offer) for offer in board.runtimes],
        "load_1min": round(load, 2),
    }


def _overhead(folder: Path, options: argparse.Namespace) -> tuple[list[dict[str, Any]], bool]:
    quiet = options.json
    if overhead.RUNTIME not in {offer.name for offer in facts.runtimes()}:
        _say("agent loop overhead: skipped, LiteRT is not installed here", quiet=quiet)
        return [], True
    _say(
        f"agent loop overhead over a bare native invoke, {overhead.RUNTIME}, 1 thread, reporting on, no pause; µs\n"
        "  outside = the loop's own time, besides its own invoke; copies = one copy in and out, the floor of that\n"
        "  added = median of (loop - bare) within a round [quartiles], and the share in what is done for many at once",
        quiet=quiet,
    )
    titles = (
        "bare p50",
        "bare min",
        "copies p50",
        "outside",
        "alone p50",
        "[quartiles]",
        "shared",
        "its CPU",
        "added",
        "mean",
        "ratio",
    )
    _row("model", *titles, "rounds", "promise", quiet=quiet)
    rows, kept = [], True
    for number, model in enumerate((models.TINY, models.DS_CNN, models.RESNET_8, models.MOBILENET_V2)):
        found = overhead.measure(
            folder / f"overhead-{number}", model, seconds=options.seconds, patience_s=options.patience
        )
        if found is None:
            _say(f"  {model.title}: not on this machine; {model.hint}", quiet=quiet)
            rows.append({"model": model.title, "absent": True})
            continue
        figures: tuple[float | tuple[float, float], ...] = (
            found.bare_ns.median,
            found.bare_ns.least,
            found.copies_ns.median,
            found.outside_ns.median,
            found.alone_ns.median,
            (found.alone_ns.low, found.alone_ns.high),
            found.shared_ns,
            found.shared_cpu_ns,
            found.added_ns,
            found.added_mean_ns,
        )
        limit = "≤ 1 %" if found.relative else "≤ 20 µs"
        verdict = f"not judged, {found.others}" if found.kept is None else f"{_VERDICT[found.kept]} ({limit})"
        _row(found.model, *map(_us, figures), f"{found.ratio:.4f}", str(found.rounds), verdict, quiet=quiet)
        kept = kept and found.kept is not False
        rows.append({**asdict(found), "added_ns": found.added_ns, "ratio": found.ratio, "kept": found.kept})
        if not found.broker:
            _say("  no mosquitto here: reports went to the outbox instead", quiet=quiet)
    return rows, kept


def _us(nanoseconds: float | tuple[float, float]) -> str:
    if isinstance(nanoseconds, tuple):
        return f"[{nanoseconds[0] / 1e3:.1f}, {nanoseconds[1] / 1e3:.1f}]"
    return f"{nanoseconds / 1e3:.1f}"


def _memory(folder: Path, *, quiet: bool) -> tuple[list[dict[str, Any]], bool]:
    _say("memory of supervisor and worker, tiny model, ten inferences a second", quiet=quiet)
    _row("runtime", "supervisor", "worker", "RSS sum", "PSS sum", "promise", quiet=quiet)
    rows, kept = [], True
    for offer in facts.runtimes():
        found = memory.measure(folder / f"memory-{offer.name}", offer.name)
        figures = (found.supervisor_rss, found.worker_rss, found.rss, found.pss)
        sizes = [f"{size / memory.MIB:.1f} MiB" for size in figures]
        _row(str(offer), *sizes, f"{_VERDICT[found.kept]} (RSS sum < 90 MiB)", quiet=quiet)
        kept = kept and found.kept
        rows.append({**asdict(found), "rss": found.rss, "pss": found.pss, "kept": found.kept})
    return rows, kept


def _startup(*, quiet: bool) -> tuple[list[dict[str, Any]], bool]:
    _say("start of the command line", quiet=quiet)
    _row("command", "median", "best", "promise", quiet=quiet)
    found = startup.measure("tflotilla.host", "tflotilla --help")
    verdict = f"{_VERDICT[found.kept]} (< {startup.LIMIT_S} s)"
    _row(found.command, f"{found.median_s:.3f} s", f"{found.best_s:.3f} s", verdict, quiet=quiet)
    return [{**asdict(found), "kept": found.kept}], found.kept


def _conversion(folder: Path, *, quiet: bool) -> tuple[dict[str, Any], bool]:
    _say(
        f"MobileNetV2 1.0 224 to {len(conversion.SCHEMES)} schemes with 100 images; both sides import TensorFlow once\n"
        "  and read the model and the images; ours also checks the files, runs and compares them",
        quiet=quiet,
    )
    _row("side", "wall s", "CPU s", "", quiet=quiet)
    found = conversion.measure(folder / "conversion")
    for number, (bare, ours) in enumerate(zip(found.bare, found.ours, strict=True), 1):
        for name, spent in (("bare converter", bare), ("tflotilla convert", ours)):
            _row(f"{name}, round {number}", f"{spent.wall_s:.1f}", f"{spent.cpu_s:.1f}", "", quiet=quiet)
    verdict = f"{_VERDICT[found.kept]} (≤ {conversion.LIMIT:g})"
    _row("ours / bare, median", f"{found.wall_ratio:.2f}", f"{found.cpu_ratio:.2f}", verdict, quiet=quiet)
    ratios = {"wall_ratio": found.wall_ratio, "cpu_ratio": found.cpu_ratio, "kept": found.kept}
    return asdict(found) | ratios, found.kept


def _evaluation(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    quiet = options.json
    _say(
        "evaluating 10,000 MNIST images beside the published loop over one image at a time; seconds, medians\n"
        "  answers = the same answers in the same process; all = with the single runs that time latency\n"
        "  possible = how many times faster than the loop the kernels alone would be, on every core",
        quiet=quiet,
    )
    _row("model", "loop", "answers", "all", "loop CPU", "our CPU", "ratio", "possible", "promise", quiet=quiet)
    folder.mkdir()
    samples, rows, kept = evaluation.data(folder), [], True
    models_found = evaluation.models(folder)
    for title, file in models_found.items():
        for offer in facts.runtimes():
            busy.wait_for_quiet(options.patience)
            others = busy.now()
            found = evaluation.measure(file, title, offer.name, samples)
            figures = (found.loop_s, found.answers_s, found.evaluation_s, found.loop_cpu_s, found.answers_cpu_s)
            # Where kernels are all the time there is, what is left to promise is that nothing is added.
            reached = found.kept or found.near_the_floor or others.too_busy
            verdict = f"{_VERDICT[reached]} (≥ {evaluation.LIMIT:g}{'' if found.kept else ', or what is possible'})"
            verdict = f"not judged, {others}" if others.too_busy and not found.kept else verdict
            shown = [f"{figure:.3f}" for figure in figures]
            _row(
                f"{title}, {offer.name}"[:48],
                *shown,
                f"{found.ratio:.1f}",
                f"{found.possible:.1f}",
                verdict,
                quiet=quiet,
            )
            if found.loop_accuracy != found.accuracy:
                _say(f"  accuracy differs: {found.accuracy} instead of {found.loop_accuracy}", quiet=quiet)
            kept = kept and reached and found.loop_accuracy == found.accuracy
            rows.append({**asdict(found), "ratio": found.ratio, "possible": found.possible, "kept": found.kept})
    whole = evaluation.commands(next(iter(models_found.values())), samples, folder)
    _row("as commands, TensorFlow's script", f"{whole['script_s']:.2f}", "", quiet=quiet)
    _row("as commands, tflotilla evaluate", f"{whole['command_s']:.2f}", "", quiet=quiet)
    return {"models": rows, "commands": whole}, kept


def _parity(folder: Path, options: argparse.Namespace) -> tuple[list[dict[str, Any]], bool]:
    quiet = options.json
    _say(
        f"a benchmark's p50 of invoke beside a loop in C and litert-benchmark, 1 thread, in turns, "
        f"{parity.ROUNDS} rounds; µs",
        quiet=quiet,
    )
    _row(
        "model, runtime",
        "cell",
        "C loop",
        "litert-b.",
        "ratio",
        "in turns",
        "to l.-b.",
        "harness",
        "promise",
        quiet=quiet,
    )
    rows, kept = [], True
    for number, (model, offer) in enumerate(
        (model, offer) for model in (models.DS_CNN, models.MOBILENET_V2) for offer in facts.runtimes()
    ):
        seconds = min(1.0, options.seconds / 5)
        found = parity.measure(folder / str(number), model, offer.name, seconds=seconds, patience_s=options.patience)
        title = f"{model.title.split(' (')[0]}, {offer.name}"[:48]
        if found is None:
            _say(f"  {title}: not on this machine (or no C compiler); {model.hint}", quiet=quiet)
            rows.append({"model": model.title, "runtime": offer.name, "absent": True})
            continue
        limits = f"± {parity.LIMIT:.0%}" + (f", harness ≤ {parity.HARNESS_LIMIT:.0%}" if found.large else "")
        verdict = f"not judged, {found.others}" if found.kept is None else f"{_VERDICT[found.kept]} ({limits})"
        theirs, to_theirs = "", ""
        if found.litert_benchmark_ns is not None and found.litert_ratio is not None:
            theirs, to_theirs = _us(found.litert_benchmark_ns), f"{found.litert_ratio:.3f}"
        figures = (
            _us(found.cell_ns),
            _us(found.native_ns),
            theirs,
            f"{found.ratio:.3f}",
            f"{found.turns_ratio:.3f}",
            to_theirs,
        )
        _row(title, *figures, f"{found.harness_share:.2%}", verdict, quiet=quiet)
        kept = kept and found.kept is not False
        rows.append({**asdict(found), "kept": found.kept})
    return rows, kept


def _tuning(folder: Path, options: argparse.Namespace) -> tuple[list[dict[str, Any]], bool]:
    quiet = options.json
    seconds = 2 * options.seconds
    _say(
        f"tuning beside trying all {tuning.CELLS} configurations for {seconds:g} s each; seconds, and ms of p50",
        quiet=quiet,
    )
    _row("model", "tuning", "all", "ratio", "pick p50", "best p50", "ratio", "promise", quiet=quiet)
    rows: list[dict[str, Any]] = []
    kept = True
    for model in (models.RESNET_8,):
        busy.wait_for_quiet(options.patience)
        found = tuning.measure(folder / str(len(rows)), model, seconds=seconds)
        if found is None:
            _say(f"  {model.title}: fewer configurations here, or no such model; {model.hint}", quiet=quiet)
            rows.append({"model": model.title, "absent": True})
            continue
        limits = f"time ≤ {tuning.MOST_TIME:.0%}, p50 ≤ {tuning.MOST_LOSS:g} of the best"
        verdict = f"not judged, {found.others}" if found.kept is None else f"{_VERDICT[found.kept]} ({limits})"
        figures = (f"{found.search_s:.1f}", f"{found.sweep_s:.1f}", f"{found.time_ratio:.3f}")
        latencies = (f"{found.pick_ns / 1e6:.3f}", f"{found.best_ns / 1e6:.3f}", f"{found.loss:.3f}")
        _row(found.model, *figures, *latencies, verdict, quiet=quiet)
        _say(f"  pick: {found.pick}; best of all: {found.best}", quiet=quiet)
        kept = kept and found.kept is not False
        ratios = {"time_ratio": found.time_ratio, "loss": found.loss, "kept": found.kept}
        rows.append({**asdict(found), **ratios})
    return rows, kept


def _scale(*, quiet: bool) -> tuple[dict[str, Any], bool]:
    _say(
        f"a rollout to {scale.BOARDS:,} simulated boards, {scale.FAULTS:.0%} of jobs meet a fault; boards, links and\n"
        "  telemetry are simulated in the same process, and in the figures",
        quiet=quiet,
    )
    _row("boards", "serving", "failed", "events", "simulated", "CPU", "rebuild", "peak", "promise", quiet=quiet)
    found = scale.measure()
    verdict = f"{_VERDICT[found.kept]} (< {scale.LIMIT_S:g} s CPU, < {scale.LIMIT_MIB:g} MiB)"
    figures = (str(found.serving), str(found.failed), str(found.events), f"{found.simulated_s:.0f} s")
    costs = (f"{found.cpu_s:.1f} s", f"{found.rebuild_s:.2f} s", f"{found.peak_mib:.0f} MiB")
    _row(str(found.boards), *figures, *costs, verdict, quiet=quiet)
    return {**asdict(found), "kept": found.kept}, found.kept


def _push(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    quiet = options.json
    if os.geteuid() != 0 or shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        _say("pushes: skipped, boards in network namespaces take root and sshd", quiet=quiet)
        return {}, True
    _say(
        f"pushes to {push.BOARDS} boards on this machine, {push.FORKS} at once, {push.BUNDLE_BYTES / 1e6:g} MB each;"
        " ours with signature and all digests",
        quiet=quiet,
    )
    busy.wait_for_quiet(options.patience)
    many, slow, again = push.measure(folder)
    kept = [many.kept is not False, all(each.kept for each in slow), again.kept is not False]
    limits = f"≤ {push.MOST_TIME:g}, ≤ {push.MOST_CPU_S * 1e3:g} ms"
    verdict = f"not judged, {many.others}" if many.kept is None else f"{_VERDICT[many.kept]} ({limits})"
    _row("", "scp", "ours", "ratio", "host CPU", "promise", quiet=quiet)
    figures = (f"{many.scp_s:.2f} s", f"{many.push_s:.2f} s", f"{many.ratio:.2f}", f"{many.cpu_s * 1e3:.1f} ms")
    _row(f"all {many.boards} boards; CPU of each", *figures, verdict, quiet=quiet)
    _row(
        f"MobileNetV2 over {push.SLOW_BIT / 1e6:g} Mbit/s", "whole", "changed", "ratio", "bytes", "promise", quiet=quiet
    )
    for each in slow:
        times = (f"{each.whole_s:.1f} s", f"{each.difference_s:.2f} s", f"{each.ratio:.3f}")
        verdict = f"{_VERDICT[each.kept]} (≤ {push.MOST_DIFFERENCE:g})"
        _row(each.change, *times, f"{each.difference_bytes / 1e3:.0f} kB", verdict, quiet=quiet)
    limits = f"< {push.MOST_AGAIN_S:g} s, < {push.MOST_AGAIN_BYTES >> 10} KiB"
    verdict = f"not judged, {again.others}" if again.kept is None else f"{_VERDICT[again.kept]} ({limits})"
    _row("what serves already", "each", "median", "bytes", "promise", quiet=quiet)
    costs = (f"{again.each_s:.3f} s", f"{again.median_s:.2f} s", str(again.most_bytes))
    _row(f"{again.enrolled} boards", *costs, verdict, quiet=quiet)
    document = {
        "many": {**asdict(many), "ratio": many.ratio, "kept": many.kept},
        "slow": [{**asdict(each), "ratio": each.ratio, "kept": each.kept} for each in slow],
        "again": {**asdict(again), "kept": again.kept},
    }
    return document, all(kept)


def _collector(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    quiet = options.json
    if shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin") is None:
        _say("the collector: skipped, no mosquitto on this machine", quiet=quiet)
        return {}, True
    _say(
        f"{collector.BOARDS:,} boards that report every second for {collector.SECONDS:g} s, at QoS 1 through a real\n"
        "  mosquitto, into SQLite; the collector has one core, sums of minutes included; lag is from a board's clock\n"
        "  to durable, memory the most of the first and of the second half",
        quiet=quiet,
    )
    _row("reports", "bytes", "stored", "lag p50", "p99", "CPU", "memory", "", "promise", quiet=quiet)
    busy.wait_for_quiet(options.patience)
    found = collector.measure(folder)
    limits = f"all, < {collector.LIMIT_S:g} s, flat"
    verdict = f"not judged, {found.others}" if found.kept is None else f"{_VERDICT[found.kept]} ({limits})"
    figures = (f"{found.payload_bytes}", f"{found.stored:,}", f"{found.lag_p50_s:.2f} s", f"{found.lag_p99_s:.2f} s")
    memory_mib = [f"{size:.0f} MiB" for size in found.rss_mib]
    _row(f"{found.sent:,}", *figures, f"{found.cpu_share:.0%}", *memory_mib, verdict, quiet=quiet)
    return {**asdict(found), "kept": found.kept}, found.kept is not False


def _dashboard(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    quiet = options.json
    if shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        _say("the page: skipped, no mosquitto on this machine", quiet=quiet)
        return {}, True
    _say(f"the fleet's page with {dashboard.BOARDS} boards that report every second, in a real Chromium", quiet=quiet)
    _row("boards", "server", "its CPU", "paint", "age p50", "age p99", "idle", "promise", quiet=quiet)
    busy.wait_for_quiet(options.patience)
    found = dashboard.measure(folder)
    limits = f"< {dashboard.LIMIT_MIB:g} MiB, < {dashboard.LIMIT_PAINT_S:g} s, ≤ {dashboard.LIMIT_AGE_S:g} s, > 50 %"
    verdict = f"not judged, {found.others}" if found.kept is None else f"{_VERDICT[found.kept]} ({limits})"
    seconds = (found.paint_s, found.age_p50_s, found.age_p99_s)
    times = ["no browser" if each is None else f"{each:.2f} s" for each in seconds]
    idle = "" if found.idle is None else f"{found.idle:.0%}"
    _row(str(found.boards), f"{found.rss_mib:.0f} MiB", f"{found.cpu_share:.0%}", *times, idle, verdict, quiet=quiet)
    return {**asdict(found), "kept": found.kept}, found.kept is not False


def _sketches(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    quiet = options.json
    busy.wait_for_quiet(options.patience)
    others = busy.now()
    found = sketches.measure(folder)
    _say(
        f"percentiles of {found.samples:,} inferences of {sketches.BOARDS:,} boards in an hour, from the store; ms\n"
        "  averaged = what the mean of the boards' percentiles would say",
        quiet=quiet,
    )
    _row("percentile", "exact", "stored", "error", "averaged", "promise", quiet=quiet)
    for each in found.percentiles:
        figures = (f"{each.exact_ms:.3f}", f"{each.stored_ms:.3f}", f"{each.error:.2%}", f"{each.averaged_ms:.3f}")
        verdict = f"{_VERDICT[each.error <= sketches.LIMIT]} (≤ {sketches.LIMIT:.0%})"
        _row(f"p{each.percent:g}", *figures, verdict, quiet=quiet)
    _say(f"keeping {sketches.RATE:,} messages a second, as shares of a core", quiet=quiet)
    _row("bytes of a message", "appending", "summing up", "slowest", "promise", quiet=quiet)
    limits = f"< {sketches.LIMIT_APPEND:.0%}, together < {sketches.LIMIT_ALL:.0%}"
    is_judged = found.is_cheap or not others.too_busy
    verdict = f"{_VERDICT[found.is_cheap]} ({limits})" if is_judged else f"not judged, {others}"
    shares = (f"{found.append_share:.0%}", f"{found.summing_share:.0%}", f"{found.slowest_batch_s:.2f} s")
    _row(f"{found.message_bytes:.0f}", *shares, verdict, quiet=quiet)
    kept = found.is_right and (found.is_cheap or not is_judged)
    return {**asdict(found), "is_right": found.is_right, "is_cheap": found.is_cheap}, kept


def _say(text: str, *, quiet: bool) -> None:
    if not quiet:
        print(text, flush=True)  # noqa: T201 - the result


def _row(*cells: str, quiet: bool) -> None:
    first, *others = cells
    _say(f"  {first:<32}" + "".join(f" {cell:>10}" for cell in others[:-1]) + f"   {others[-1]}", quiet=quiet)


if __name__ == "__main__":
    sys.exit(main())
