"""The states of one bundle going to one board (Mender's words), and which may follow which.

queued → transferring → verifying → probing → switching → confirming → succeeded
                                                                    ↘ rolled_back
rejected: refused before anything changed (signature, digest, release, probe).
failed:   something broke that is not the bundle's fault (disk full, agent killed too often).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class DeploymentState(str, enum.Enum):
    """Where a deployment is."""

    QUEUED = "queued"
    TRANSFERRING = "transferring"
    VERIFYING = "verifying"
    PROBING = "probing"
    SWITCHING = "switching"
    CONFIRMING = "confirming"
    SUCCEEDED = "succeeded"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    REJECTED = "rejected"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return not FOLLOWERS[self]


_S = DeploymentState
FOLLOWERS: dict[DeploymentState, frozenset[DeploymentState]] = {
    _S.QUEUED: frozenset({_S.TRANSFERRING, _S.VERIFYING, _S.REJECTED, _S.FAILED}),
    _S.TRANSFERRING: frozenset({_S.VERIFYING, _S.REJECTED, _S.FAILED}),
    # Straight to SWITCHING: a rollback, of a bundle that was probed and confirmed when it was deployed.
    _S.VERIFYING: frozenset({_S.PROBING, _S.SWITCHING, _S.REJECTED, _S.FAILED}),
    _S.PROBING: frozenset({_S.SWITCHING, _S.REJECTED, _S.FAILED}),
    # No way to REJECTED from here on: the candidate has served, so undoing it is a rollback.
    # Straight to SUCCEEDED: a rollback again.
    _S.SWITCHING: frozenset({_S.CONFIRMING, _S.SUCCEEDED, _S.ROLLED_BACK, _S.FAILED}),
    _S.CONFIRMING: frozenset({_S.SUCCEEDED, _S.ROLLED_BACK, _S.FAILED}),
    _S.SUCCEEDED: frozenset(),
    _S.ROLLED_BACK: frozenset(),
    _S.FAILED: frozenset(),
    _S.REJECTED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowReport:
    """A candidate beside the bundle that serves, on the same inputs of the board's own source; nothing was published.

    `reason` says why there is nothing to compare (another model, no inputs, the source can't be opened twice); then
    `inputs` is 0. Scores are means of the winners' scores; latencies are of the whole inference, in nanoseconds.
    """

    inputs: int
    #: On so many inputs both gave the same answer: the same winner, or matching detections.
    agreed: int
    champion_score: float | None = None
    challenger_score: float | None = None
    champion_p50_ns: int | None = None
    challenger_p50_ns: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStatus:
    """One report of a deployment's progress."""

    deployment: str
    #: Digest and title (`digits-1.0.0`) of the bundle that is to be installed.
    candidate: str
    title: str
    state: DeploymentState
    detail: str = ""
    #: Set in rolled_back, failed and rejected: the error's type name, see `errors.from_wire`.
    error: str | None = None
    #: From the end of probing on, where the deployment asked for it.
    shadow: ShadowReport | None = None
