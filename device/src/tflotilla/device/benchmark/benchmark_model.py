"""TFLite's own `benchmark_model`, where a board has it: its profiler sees what a pip runtime does not show.

It is looked for on PATH and beside the agent (`bin/` in its home). It brings a runtime of its own: its figures are
labelled as its, and held against the whole model as it timed that itself. It may be of any age, built for another
machine, or not what its name says: whatever goes wrong is one sentence, and `operators` finds another way.

Where XNNPACK's operators are listed one by one, the program also lists the node that runs them all; counting both would
count everything twice, so that node is left out. What it does NOT do: read its words (`benchmark_model_output` does).
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.shared.contract.benchmark import OperatorProfile, OperatorTime
from tflotilla.shared.contract.errors import BoardError, ContractError
from tflotilla.shared.inference import benchmark_model_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.shared.contract.agent_config import InferenceConfig
    from tflotilla.shared.inference.benchmark_model_output import BenchmarkModelOutput, ProfileRow

PROGRAM = "benchmark_model"
#: More than the largest model's tables; a program gone mad must not fill the board's memory.
_MOST_BYTES = 4 << 20
#: Starting, loading, and its profiled runs beside those that are asked for.
_GRACE_S = 30.0
_KEPT_TEXT = 8000
#: Without these it would profile something else than what was asked for.
_NEEDED = ("--num_threads", "--external_delegate_path", "--external_delegate_options")
_US_PER_MS = 1000


class NotUnderstoodError(BoardError):
    """The program ran, and its words are none that are known; `text` holds them."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text[-_KEPT_TEXT:]


def find(home_bin: Path | None) -> Path | None:
    """Return the board's own program: the one beside the agent first, then the one on PATH."""
    beside = shutil.which(PROGRAM, path=str(home_bin)) if home_bin is not None else None
    found = beside or shutil.which(PROGRAM)
    return None if found is None else Path(found)


def command(program: Path, model: Path, inference: InferenceConfig, *, seconds: float) -> list[str]:
    """Return the command: the same threads, XNNPACK and delegate, for about so long."""
    timed_s = max(0.1, seconds / 4)
    words = [
        str(program),
        f"--graph={model}",
        f"--num_threads={inference.num_threads}",
        f"--use_xnnpack={'true' if inference.xnnpack else 'false'}",
        "--enable_op_profiling=true",
        # What LiteRT's program of the same name calls it; each warns of the other's word, and goes on.
        "--use_profiler=true",
        "--warmup_runs=1",
        f"--warmup_min_secs={min(0.5, timed_s):g}",
        "--num_runs=20",
        f"--min_secs={timed_s:g}",
        f"--max_secs={seconds:g}",
    ]
    if inference.delegate is not None:
        options = ";".join(f"{key}:{value}" for key, value in sorted(inference.delegate.options.items()))
        words.append(f"--external_delegate_path={inference.delegate.library}")
        words += [f"--external_delegate_options={options}"] if options else []
    return words


def profile(program: Path, model: Path, inference: InferenceConfig, *, seconds: float) -> OperatorProfile:
    """Run the program and read its profile.

    Raises:
        NotUnderstoodError: it ran, and printed no table of operators that is known.
        BoardError: it can't be started, fails, crashes, hangs, or prints without end.

    """
    text, code = _run(command(program, model, inference, seconds=seconds), timeout_s=seconds + _GRACE_S)
    if code < 0:
        message = f"{program} was ended by signal {-code}"
        raise BoardError(message)
    if code != 0:
        message = f"{program} ended with code {code} ({_last_words(text)})"
        raise BoardError(message)
    try:
        output = benchmark_model_output.parse(text)
    except ContractError as error:
        raise NotUnderstoodError(str(error), text) from error
    if not output.operators or output.inference_avg_us is None:
        message = f"{program} printed no profile of the operators"
        raise NotUnderstoodError(message, text)
    strange = [word for word in _NEEDED if word in output.unknown_options]
    if strange:
        message = f"{program} does not know {', '.join(strange)}"
        raise BoardError(message)
    if output.xnnpack and not inference.xnnpack:
        message = f"{program} used XNNPACK, which is off here"
        raise BoardError(message)
    return as_profile(output, program=program, inference=inference)


def as_profile(output: BenchmarkModelOutput, *, program: Path, inference: InferenceConfig) -> OperatorProfile:
    """Turn its table into a profile that says whose it is and how well it adds up."""
    rows = output.operators_once
    whole_ms = (output.inference_avg_us or 0) / _US_PER_MS
    share = sum(row.run_ms for row in rows) / whole_ms if whole_ms else 0
    note = (
        f"Printed by the board's own {program}, which holds a runtime of its own and not the one that serves; its "
        f"profiler slows it down. The operators' sum is {share:.0%} of the whole model's average without the profiler."
    )
    if len(rows) < len(output.operators):
        note += " The node that runs XNNPACK's or a delegate's operators is left out: they are listed one by one."
    return OperatorProfile(
        method="benchmark_model",
        xnnpack=inference.xnnpack,
        operators=tuple(_operator(row) for row in rows),
        whole_ms=whole_ms,
        note=note,
    )


def _operator(row: ProfileRow) -> OperatorTime:
    name, _, number = row.name.rpartition(":")
    name = name if name and number.isdigit() else row.name
    return OperatorTime(
        node_type=row.node_type,
        name=name.removeprefix("[").removesuffix("]"),
        first_ms=row.first_ms,
        avg_ms=row.avg_ms,
        times_called=row.times_called,
        delegated=benchmark_model_output.is_delegate(row)
        or row.name.startswith(benchmark_model_output.WITHIN_DELEGATE),
    )


def _run(words: Sequence[str], *, timeout_s: float) -> tuple[str, int]:
    """Run a program and return what it printed, and its code. Raises BoardError."""
    try:
        # A group of its own: nothing that it starts survives.
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError as error:
        message = f"{words[0]} can't be started: {error.strerror}"
        raise BoardError(message) from error
    try:
        text = _read(process, words[0], time.monotonic() + timeout_s, timeout_s)
        return text, process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        message = f"{words[0]} did not end within {timeout_s:g} s"
        raise BoardError(message) from error
    finally:
        _end(process)


def _read(process: subprocess.Popen[bytes], program: str, deadline_s: float, timeout_s: float) -> str:
    if process.stdout is None:
        return ""
    channel = process.stdout.fileno()
    data = bytearray()
    while True:
        ready, _, _ = select.select([channel], [], [], max(0.0, deadline_s - time.monotonic()))
        if not ready:
            message = f"{program} did not end within {timeout_s:g} s"
            raise BoardError(message)
        chunk = os.read(channel, 1 << 16)
        if not chunk:
            return data.decode(errors="replace")
        data += chunk
        if len(data) > _MOST_BYTES:
            message = f"{program} printed more than {_MOST_BYTES >> 20} MiB"
            raise BoardError(message)


def _end(process: subprocess.Popen[bytes]) -> None:
    # It may have ended by itself in this moment; its group is gone with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _last_words(text: str) -> str:
    words = [line.strip() for line in text.splitlines() if line.strip()]
    return words[-1][-200:] if words else "it printed nothing"
