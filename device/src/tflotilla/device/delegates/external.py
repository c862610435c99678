"""External delegates: a shared library and its options, tried out in a child before this process dares to load it.

Libraries of vendors are missing, are no delegates, refuse, crash, hang and compute nonsense. Each of that ends here in
one sentence, and the model runs on the CPU. What this module does NOT do: load the library itself (`trial` does).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.device import one_shot
from tflotilla.device.endings import signal_name
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.messages import DelegateReport

if TYPE_CHECKING:
    from tflotilla.device.bundle_folder import BundleFolder

#: A trial loads two interpreters and runs the goldens twice; Edge TPU libraries take up to 3 s for their first one.
TIMEOUT_S = 20.0


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
    try:
        ended = one_shot.ask("delegates.trial", spec, timeout_s=timeout_s)
    except TimeoutError as error:
        return TrialReport(ok=False, reason=f"the delegate hung: {error}")
    if ended.code < 0:
        return TrialReport(ok=False, reason=f"the delegate crashed ({signal_name(-ended.code)})")
    try:
        document = json.loads(ended.answer)
    except ValueError:
        reason = f"the delegate ended its process with code {ended.code} ({ended.last_words})"
        return TrialReport(ok=False, reason=reason)
    return codec.decode(TrialReport, document, "the delegate's trial")
