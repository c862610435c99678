"""The bundle that is on its way to a board, as Home Assistant's `update` entity takes it.

Pure: `document(standing)` is the JSON of `tflotilla-host/<fleet>/<board>/update`.

Rules it keeps: what serves is what the board says; what should serve is what the rollouts' journal says, or a
deployment that is under way; a rollout that is older than what serves is no update; nothing here installs anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.messages import ServedBundle

#: What is shown as installed while nothing serves: an empty word would leave the old one standing.
NOTHING = "none"
_SHORT = 8
_LONGEST = 255
_S = DeploymentState
#: How far a deployment is, in percent: the states are told, not the bytes.
PROGRESS = {
    _S.QUEUED: 0,
    _S.TRANSFERRING: 10,
    _S.VERIFYING: 40,
    _S.PROBING: 55,
    _S.SWITCHING: 75,
    _S.CONFIRMING: 85,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The bundle that the newest rollout wants on a board; `release` is None where it was brought back by an undo."""

    digest: str
    title: str
    rollout: str
    release: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of a board's bundles."""

    #: Whether the board ever said what serves.
    heard: bool
    serving: ServedBundle | None = None
    deployment: DeploymentStatus | None = None
    wanted: Wanted | None = None


def document(standing: Standing) -> dict[str, Any] | None:
    """Return what the `update` entity shows; None as long as nothing is known of the board."""
    if not standing.heard:
        return None
    serving, deployment = standing.serving, standing.deployment
    installed = NOTHING if serving is None else title(serving)
    under_way = deployment is not None and not deployment.state.final
    latest, summary = installed, ""
    if deployment is not None and under_way:
        latest = _apart(deployment.title, deployment.candidate, installed, serving)
        summary = deployment.state.value + (f": {deployment.detail}" if deployment.detail else "")
    elif standing.wanted is not None and _is_due(standing.wanted, serving):
        latest = _apart(standing.wanted.title, standing.wanted.digest, installed, serving)
        summary = f"wanted by rollout {standing.wanted.rollout}{_how_it_went(standing.wanted, deployment)}"
    return {
        "installed_version": installed[:_LONGEST],
        "latest_version": latest[:_LONGEST],
        "title": "Model" if serving is None else serving.name[:_LONGEST],
        "in_progress": under_way,
        "update_percentage": PROGRESS[deployment.state] if deployment is not None and under_way else None,
        "release_summary": summary[:_LONGEST],
    }


def title(serving: ServedBundle) -> str:
    """Return how a bundle is named everywhere."""
    return f"{serving.name}-{serving.version}"


def _is_due(wanted: Wanted, serving: ServedBundle | None) -> bool:
    if serving is None:
        return True
    if serving.digest == wanted.digest:
        return False
    # Somebody deployed something newer since; a release without a number is one that an undo goes back to.
    return wanted.release is None or wanted.release >= serving.release


def _apart(name: str, digest: str, installed: str, serving: ServedBundle | None) -> str:
    """Tell two bundles of one title apart: Home Assistant goes by the text."""
    is_other = serving is None or serving.digest != digest
    return f"{name} ({digest[:_SHORT]})" if is_other and name == installed else name


def _how_it_went(wanted: Wanted, deployment: DeploymentStatus | None) -> str:
    """Say why it doesn't serve, if it was tried."""
    if deployment is None or deployment.candidate != wanted.digest or deployment.state is _S.SUCCEEDED:
        return ""
    why = deployment.detail or deployment.error or ""
    return f"; {deployment.state.value.replace('_', ' ')}" + (f": {why}" if why else "")
