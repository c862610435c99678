"""External delegates: a shared library and its options, tried out in a child before this process dares to load it.

Libraries of vendors are missing, are no delegates, refuse, crash, hang and compute nonsense. Each of that ends here in
one sentence, and the model runs on the CPU. What this module does NOT do: load the library itself (`trial` does).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.messages import DelegateReport

if TYPE_CHECKING:
    from tflotilla.device.bundle_folder import BundleFolder

#: A trial loads two interpreters and runs the goldens twice; Edge TPU libraries take up to 3 s for their first one.
TIMEOUT_S = 20.0
_LOG_TAIL = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """What the child tries: this bundle, with this runtime and its delegate."""

    bundle: str
    inference: InferenceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialReport:
    """What the child found; `reason` says why not."""

    ok: bool
    reason: str | None


def settle(bundle: BundleFolder, inference: InferenceConfig, *, timeout_s: float = TIMEOUT_S) -> DelegateReport:
    """Find out whether the configured delegate can be used: `active` is None when not, and `reason` says why."""
    if inference.delegate is None:
        return DelegateReport(requested=None, active=None)
    requested = inference.delegate.library
    trial = _try_out(TrialSpec(bundle=str(bundle.path), inference=inference), timeout_s)
    if trial.ok:
        return DelegateReport(requested=requested, active=requested)
    return DelegateReport(requested=requested, active=None, reason=trial.reason)


def _try_out(spec: TrialSpec, timeout_s: float) -> TrialReport:
    # A group of its own: a delegate's helpers must not survive its timeout.
    process = subprocess.Popen(
        [sys.executable, "-m", "tflotilla.device.delegates.trial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        answer, log = process.communicate(codec.canonical_json(spec), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _end(process)
        return TrialReport(ok=False, reason=f"the delegate hung: no answer within {timeout_s:g} s")
    except BaseException:
        _end(process)
        raise
    if process.returncode < 0:
        return TrialReport(ok=False, reason=f"the delegate crashed ({_signal_name(-process.returncode)})")
    try:
        document = json.loads(answer)
    except ValueError:
        tail = log.decode(errors="replace").strip().rpartition("\n")[2][-_LOG_TAIL:]
        return TrialReport(ok=False, reason=f"the delegate ended its process with code {process.returncode} ({tail})")
    return codec.decode(TrialReport, document, "the delegate's trial")


def _end(process: subprocess.Popen[bytes]) -> None:
    # It may have ended by itself in this moment; its group is gone with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
