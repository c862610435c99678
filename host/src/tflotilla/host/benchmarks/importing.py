"""What other benchmarks wrote, as a result of ours: `benchmark_model`'s output and `litert-benchmark`'s JSON and log.

Understood are: stdout and logs of `benchmark_model` (TF 1.13 to LiteRT, several runs in one file, the profile as table
or CSV), of `benchmark_model_performance_options`, the JSON that `litert-benchmark --result_json` writes (or a list of
such), and what it prints. What they do not say stays absent, see `foreign`. The same file imported again is the same
result. What it does NOT do: run those programs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from tflotilla.host.benchmarks.foreign import ForeignFigures
from tflotilla.host.benchmarks.results import Run
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.benchmark import OperatorProfile, OperatorTime
from tflotilla.shared.contract.errors import ContractError, InputError
from tflotilla.shared.inference import benchmark_model_output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tflotilla.shared.inference.benchmark_model_output import BenchmarkModelOutput

_MOST_BYTES = 64 << 20
_MOST_NS = 1e18
_NS_PER_US = 1e3
_NS_PER_MS = 1e6
#: litert-benchmark rounds to hundredths of a millisecond, benchmark_model prints six digits of microseconds.
_LITERT_STEP_NS = 1e4
_LITERT_RUN = re.compile(r"^.*\bbenchmark_litert_model: Model: {2,}", re.MULTILINE)
_LITERT_HEAD = re.compile(r"^.*\bbenchmark_litert_model: (Model|Accelerators|Num threads): +(.*?)\s*$", re.MULTILINE)
_LITERT_RESULTS = "BENCHMARK RESULTS"
_LITERT_LINE = re.compile(
    r"^(Model initialization|Warmup \(first\)|Warmup \(avg\)|Inference \(\w+\)): +([0-9.]+) ms"
    r"(?: \((\d{1,18}) runs\))?",
    re.MULTILINE,
)
_LITERT_WORDS = {
    "Model initialization": "init_ms",
    "Warmup (first)": "warmup_first_ms",
    "Warmup (avg)": "warmup_avg_ms",
    "Inference (avg)": "avg_ms",
    "Inference (min)": "min_ms",
    "Inference (max)": "max_ms",
    "Inference (median)": "median_ms",
    "Inference (std)": "std_ms",
    "Inference (p5)": "p5_ms",
    "Inference (p95)": "p95_ms",
}
#: With whatever a logger or a phone puts before it.
_MODEL_RUN = re.compile(r"^.*?\bSTARTING!\s*$", re.MULTILINE)
#: LiteRT's own program `benchmark_model` names its source in each line of its results.
_LITERT_PROGRAM = "benchmark_litert_model.h:"
#: Of a run that was pasted without its beginning.
_SESSION = re.compile(r"^.*\bInitialized session in ", re.MULTILINE)
_OPTIONS_HEAD = "Summary of All Runs w/ Different Performance Options"
_OPTIONS_LINE = re.compile(r"^(?:.*?(?:INFO: |\] |: ))?\s*(\S[^:=]*?): (count=\d+ .*|FAILED.*)$")
_CPU_RUN = re.compile(r"cpu w/ (-?\d{1,9}) threads(.*)")
_ACCELERATORS = ("gpu", "nnapi", "hexagon", "coreml", "edgetpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What a file held; `problems` are the runs in it that have no figures."""

    run: Run
    problems: tuple[str, ...] = ()


def read(path: Path, *, name: str | None = None, model: str | None = None) -> Imported:
    """Read what another benchmark wrote.

    Args:
        path: the file.
        name: what the result is called.
        model: what the model is called; by default what the program says, else the file's own name.

    Raises:
        InputError: it can't be read, or is nothing that is understood.

    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is too large for a benchmark's output ({path.stat().st_size >> 20} MiB)")
        data, created = path.read_bytes(), path.stat().st_mtime
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error
    figures, problems = parse(_decoded(data, path), str(path))
    named = tuple(
        dataclasses.replace(each, model=PurePath(model or each.model.replace("\\", "/")).name or path.stem)
        for each in figures
    )
    mark = hashlib.sha256(b"\0".join([data, (name or "").encode(), (model or "").encode(), repr(created).encode()]))
    return Imported(
        run=Run(
            id=mark.hexdigest()[:16],
            created=created,
            boards=(),
            name=name,
            tool=named[0].tool,
            foreign=named,
        ),
        problems=problems,
    )


def parse(text: str, where: str) -> tuple[tuple[ForeignFigures, ...], tuple[str, ...]]:
    """Return the figures in a text, at least one, and why runs in it have none.

    Raises:
        InputError: it is nothing that is understood, or a figure in it is none.

    """
    if text.lstrip()[:1] in ("{", "["):
        return tuple(_litert_documents(text, where)), ()
    reader: Callable[[str], Iterator[ForeignFigures]]
    if _LITERT_PROGRAM in text:
        beginning = next((mark for mark in (_MODEL_RUN, _SESSION) if mark.search(text)), _MODEL_RUN)
        parts, reader = _split(text, beginning, _LITERT_RESULTS), _model_output
    elif _LITERT_RESULTS in text or _LITERT_RUN.search(text):
        parts, reader = _split(text, _LITERT_RUN, _LITERT_RESULTS), _litert_printed
    else:
        parts, reader = _split(text, _MODEL_RUN, ""), _model_output
    found: list[ForeignFigures] = []
    problems: list[str] = []
    for number, part in enumerate(parts, 1):
        try:
            found += [_checked(each, where) for each in reader(part)]
        except ContractError as error:
            problems.append(f"run {number} of {len(parts)} has no figures: {error}")
    if not found:
        raise InputError(
            f"{where} is nothing that benchmark_model or litert-benchmark writes, or their run failed"
            + (f" ({problems[0]})" if problems else "")
        )
    return tuple(found), tuple(problems)


def _decoded(data: bytes, path: Path) -> str:
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig")):
        # PowerShell's `>` writes UTF-16.
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    if b"\0" in data[:4096]:
        raise InputError(f"{path} is not text; give what the program printed, or its JSON")
    return data.decode(errors="replace")


def _split(text: str, beginning: re.Pattern[str], otherwise: str) -> list[str]:
    """Cut a text where runs begin; without such lines, where `otherwise` stands, or not at all."""
    places = [found.start() for found in beginning.finditer(text)]
    if not places and otherwise:
        places = [found.start() for found in re.finditer(re.escape(otherwise), text)]
    if not places:
        return [text]
    return [text[place:end] for place, end in zip(places, [*places[1:], len(text)], strict=True)]


def _checked(figures: ForeignFigures, where: str) -> ForeignFigures:
    """Return the figures, each of which a clock could have shown. Raises InputError."""
    for field in dataclasses.fields(figures):
        value = getattr(figures, field.name)
        if isinstance(value, (int, float)) and not (math.isfinite(value) and 0 <= value <= _MOST_NS):
            raise InputError(f"{where}: {field.name} {value:g} is no figure of a benchmark")
    for row in figures.profile.operators if figures.profile is not None else ():
        if not all(math.isfinite(value) and abs(value) <= _MOST_NS for value in (row.first_ms, row.avg_ms)):
            raise InputError(f"{where}: the operator {row.name!r} has a time that is none")
    return figures


# litert-benchmark


def _litert_documents(text: str, where: str) -> Iterator[ForeignFigures]:
    try:
        document = codec.parse_json(text, where)
    except ContractError as error:
        raise InputError(str(error)) from error
    documents = document if isinstance(document, list) else [document]
    for each in documents or [None]:
        if not isinstance(each, dict) or not isinstance(each.get("latency"), dict):
            hint = "; a result of ours needs no import" if isinstance(each, dict) and "boards" in each else ""
            raise InputError(f"{where} is JSON, but not litert-benchmark's: it has no 'latency'{hint}")
        yield _checked(_litert(each, where), where)


def _litert(document: dict[str, Any], where: str) -> ForeignFigures:
    latency = document["latency"]

    def number(table: dict[str, Any], key: str) -> float | None:
        value = table.get(key)
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool)):
            raise InputError(f"{where}: {key} is {json.dumps(value)[:40]}, not a number")
        if value is not None and not abs(value) <= _MOST_NS:
            raise InputError(f"{where}: {key} is no figure of a benchmark")
        return value

    def nanoseconds(key: str) -> float | None:
        value = number(latency, key)
        return None if value is None else float(value) * _NS_PER_MS

    def count(table: dict[str, Any], key: str) -> int | None:
        value = number(table, key)
        if value is not None and value != math.floor(value):
            raise InputError(f"{where}: {key} is {value:g}, not a whole number")
        return None if value is None else int(value)

    if nanoseconds("avg_ms") is None and nanoseconds("median_ms") is None:
        raise InputError(f"{where} has neither avg_ms nor median_ms in 'latency'")
    accelerators = document.get("accelerators")
    warmups = count(latency, "num_warmup_runs")
    return ForeignFigures(
        tool="litert-benchmark",
        model=str(document.get("model", "")),
        num_threads=count(document, "num_threads"),
        accelerator=" | ".join(map(str, accelerators)) if isinstance(accelerators, list) and accelerators else None,
        warmup_runs=warmups,
        runs=count(latency, "num_runs"),
        init_ns=nanoseconds("init_ms"),
        # Without a warm-up it writes zeros there.
        first_inference_ns=nanoseconds("warmup_first_ms") if warmups != 0 else None,
        warmup_mean_ns=nanoseconds("warmup_avg_ms") if warmups != 0 else None,
        mean_ns=nanoseconds("avg_ms"),
        # Of one run it writes zero: no deviation at all.
        std_ns=nanoseconds("std_ms") if count(latency, "num_runs") != 1 else None,
        min_ns=nanoseconds("min_ms"),
        max_ns=nanoseconds("max_ms"),
        p5_ns=nanoseconds("p5_ms"),
        median_ns=nanoseconds("median_ms"),
        p95_ns=nanoseconds("p95_ms"),
        resolution_ns=_LITERT_STEP_NS,
    )


def _litert_printed(text: str) -> Iterator[ForeignFigures]:
    """Read what it printed, which says the same as its JSON in other words."""
    head = dict(reversed(_LITERT_HEAD.findall(text)))
    latency: dict[str, Any] = {}
    for words, value, runs in _LITERT_LINE.findall(text):
        if words in _LITERT_WORDS:
            latency[_LITERT_WORDS[words]] = _float(value)
        if runs:
            latency["num_warmup_runs" if words.startswith("Warmup") else "num_runs"] = int(runs)
    if "avg_ms" not in latency:
        raise ContractError("it broke off before its results")
    threads = head.get("Num threads", "")
    accelerators = head.get("Accelerators")
    document = {
        "model": head.get("Model", ""),
        "num_threads": int(threads) if re.fullmatch(r"[0-9]{1,9}", threads) else None,
        "accelerators": accelerators.split(" | ") if accelerators else None,
        "latency": latency,
    }
    yield _litert(document, "what litert-benchmark printed")


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ContractError(f"{text!r} is not a number") from error


# benchmark_model


def _model_output(text: str) -> Iterator[ForeignFigures]:
    output = benchmark_model_output.parse(text)
    if _OPTIONS_HEAD in text:
        yield from _performance_options(text, output)
        return
    if output.inference_avg_us is None and output.runs is None and not output.operators:
        raise ContractError("it broke off before its results")
    yield _one_run(output)


def _one_run(output: BenchmarkModelOutput) -> ForeignFigures:
    runs, warmup = output.runs, output.warmup
    mean = runs.avg_us if runs is not None and runs.avg_us is not None else output.inference_avg_us
    said = output.options.get("Use xnnpack", "")
    growth = output.memory_overall_mb
    return ForeignFigures(
        tool="benchmark_model",
        model=output.graph or "",
        num_threads=output.num_threads,
        xnnpack={"0": False, "false": False, "1": True, "true": True}.get(said.lower(), output.xnnpack or None),
        accelerator=_accelerator(output),
        nodes_delegated=output.nodes_delegated,
        nodes_total=output.nodes_total,
        warmup_runs=None if warmup is None else warmup.count,
        runs=None if runs is None else runs.count,
        init_ns=_ns(output.init_us),
        first_inference_ns=_ns(output.first_inference_us),
        warmup_mean_ns=_ns(output.warmup_avg_us),
        mean_ns=_ns(mean),
        **({} if runs is None else _spread(runs)),
        memory_growth_bytes=None if growth is None or growth < 0 else int(growth * (1 << 20)),
        resolution_ns=output.resolution_us * _NS_PER_US,
        profile=_profile(output, mean),
        options=dict(output.options),
    )


def _spread(runs: benchmark_model_output.RunSummary) -> dict[str, Any]:
    return {
        "std_ns": _ns(runs.std_us),
        "min_ns": _ns(runs.min_us),
        "max_ns": _ns(runs.max_us),
        "p5_ns": _ns(runs.p5_us),
        "median_ns": _ns(runs.median_us),
        "p95_ns": _ns(runs.p95_us),
    }


def _ns(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds * _NS_PER_US


def _accelerator(output: BenchmarkModelOutput) -> str | None:
    library = output.options.get("External delegate path", "")
    if library:
        return PurePath(library).name
    asked = {key.lower().removeprefix("use "): value for key, value in output.options.items()}
    found = [name for name in _ACCELERATORS if asked.get(name, "").lower() in ("1", "true")]
    return ", ".join(found) or None


def _profile(output: BenchmarkModelOutput, mean_us: float | None) -> OperatorProfile | None:
    rows = output.operators_once
    if not rows:
        return None
    note = ""
    whole = None if mean_us is None else mean_us / 1e3
    if whole is None:
        whole = math.fsum(row.run_ms for row in rows)
        note = "The whole model's time was not printed; the operators' sum stands there."
    return OperatorProfile(
        method="benchmark_model",
        xnnpack=output.xnnpack,
        operators=tuple(
            OperatorTime(
                node_type=row.node_type,
                name=row.name,
                first_ms=row.first_ms,
                avg_ms=row.avg_ms,
                times_called=row.times_called,
            )
            for row in rows
        ),
        whole_ms=whole,
        note=note,
    )


def _performance_options(text: str, output: BenchmarkModelOutput) -> Iterator[ForeignFigures]:
    """Read the summary of `benchmark_model_performance_options`: a line for each option that it tried."""
    found: list[ForeignFigures] = []
    failed: list[str] = []
    for line in text[text.index(_OPTIONS_HEAD) :].splitlines()[1:]:
        matched = _OPTIONS_LINE.match(line)
        if matched is None:
            continue
        name, said = matched[1].strip(), matched[2]
        if said.startswith("FAILED"):
            failed.append(name)
            continue
        # Without the second line a summary is taken for that of a warm-up.
        runs = benchmark_model_output.parse(f"{said}\nInference timings in us: Inference: 0").runs
        if runs is None or runs.avg_us is None:
            continue
        cpu = _CPU_RUN.fullmatch(name)
        found.append(
            ForeignFigures(
                tool="benchmark_model",
                model=output.graph or "",
                num_threads=None if cpu is None or int(cpu[1]) < 1 else int(cpu[1]),
                xnnpack=None if cpu is None else "xnnpack" in cpu[2],
                accelerator=name if cpu is None else None,
                runs=runs.count,
                mean_ns=_ns(runs.avg_us),
                **_spread(runs),
                resolution_ns=_NS_PER_US,
                options={"Performance option": name},
            )
        )
    if not found:
        raise ContractError(f"no option in its summary has figures{': ' + ', '.join(failed) if failed else ''}")
    lacking = {"Options that failed": ", ".join(failed)} if failed else {}
    yield from (dataclasses.replace(each, options={**each.options, **lacking}) for each in found)
