"""From what boards are to a plan: who gets the bundle, in which wave, who doesn't and why. Decisions only.

Rules it keeps: a board that can't run the bundle is in no wave; a board that was never asked is judged when it is
reached.
What it does NOT do: ask boards (`survey`), split waves (`waves`), keep anything (`journal`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tflotilla.host.rollouts.plan import Disposition, PlannedBoard
from tflotilla.shared.contract.errors import BusyError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.models.compatibility import Verdict
    from tflotilla.host.rollouts.survey import Survey
    from tflotilla.shared.contract.board import BoardFacts
    from tflotilla.shared.contract.manifest import Manifest
    from tflotilla.shared.contract.messages import ServedBundle

#: A connection, a probe and a switch, without the confirm window, where nothing better is known.
_USUAL_S = 6.0
#: A home's uplink is slower, a laboratory's faster: where no push was seen, the plan says so with `~`.
_USUAL_BYTES_PER_S = 1e6


def judge(
    survey: Survey,
    manifest: Manifest,
    digest: str,
    *,
    check: Callable[[BoardFacts], Verdict],
    send_bytes: Callable[[ServedBundle | None, ServedBundle | None], int],
    seen_s: float | None = None,
) -> PlannedBoard:
    """Say what would happen to one board.

    Args:
        survey: what it answered, or why it didn't.
        manifest: of the bundle.
        digest: of the bundle.
        check: compatibility with a board's facts.
        send_bytes: what would be sent to a board that serves the first bundle and has the second.
        seen_s: how long the last push to it took.

    """
    serving = survey.serving
    disposition, reason = _disposition(survey, manifest, digest, check)
    planned = PlannedBoard(
        board=survey.board,
        disposition=disposition,
        reason=reason,
        serving=None if serving is None else serving.digest,
        serving_title=None if serving is None else _title(serving),
        serving_model=None if serving is None else serving.name,
    )
    if disposition == "incompatible":
        return planned
    if disposition == "current":
        return replace(planned, send_bytes=0, expected_s=0.0)
    sent = send_bytes(serving, survey.previous)
    usual_s = manifest.health.confirm_window_s + _USUAL_S + sent / _USUAL_BYTES_PER_S
    return replace(planned, send_bytes=sent, expected_s=usual_s if seen_s is None else seen_s)


def _disposition(
    survey: Survey, manifest: Manifest, digest: str, check: Callable[[BoardFacts], Verdict]
) -> tuple[Disposition, str]:
    serving, error = survey.serving, survey.error
    # One that is off may have gone back by itself since: asked when it comes, it costs next to nothing.
    if serving is not None and serving.digest == digest and error is None:
        return "current", "serves it already"
    objection = _objection(survey, manifest, digest, check)
    if objection is not None:
        return "incompatible", objection
    if error is not None:
        return "offline", _brief(survey)
    if survey.facts is None:
        return "unknown", "never asked: judged when it is reached"
    return "ready", ""


def _objection(survey: Survey, manifest: Manifest, digest: str, check: Callable[[BoardFacts], Verdict]) -> str | None:
    serving = survey.serving
    if survey.error is not None and not isinstance(survey.error, (UnreachableError, BusyError)):
        # A wrong host key, no agent: a push would end the same way.
        return _brief(survey)
    verdict = None if survey.facts is None else check(survey.facts)
    if verdict is not None and not verdict.ok:
        return str(verdict)
    if serving is None or serving.digest == digest or serving.name != manifest.name:
        return None
    if manifest.release <= serving.release:
        return (
            f"release {manifest.release} is not newer than {_title(serving)} with release {serving.release}"
            " (`tflotilla rollback` goes back)"
        )
    return None


def _title(serving: ServedBundle) -> str:
    return f"{serving.name}-{serving.version}"


def _brief(survey: Survey) -> str:
    return " ".join(str(survey.error).split()).removeprefix(f"{survey.board}: ").removeprefix(f"{survey.board} ")
