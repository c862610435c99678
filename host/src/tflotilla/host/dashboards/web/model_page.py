"""Models over the whole fleet, version beside version. Pure.

Rules it keeps: latencies are sketches added up, never averages of percentiles; drift is measured against what the
bundle answered where it was made, and stands beside what chance alone makes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tflotilla.host.dashboards.web import board_page, figures
from tflotilla.host.telemetry import drift
from tflotilla.host.telemetry.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tflotilla.host.dashboards.web.tiles import Tile
    from tflotilla.shared.contract.manifest import Reference
    from tflotilla.shared.contract.messages import ModelCard

_UNNAMED = "(unknown)"


def document(cards: Mapping[str, ModelCard], totals: Mapping[str, Totals], tiles: Iterable[Tile]) -> dict[str, Any]:
    """Return what `GET /api/models` answers: every bundle that serves, or did since we listen."""
    serving: dict[str, list[Tile]] = {}
    for tile in tiles:
        if tile["digest"] is not None:
            serving.setdefault(tile["digest"], []).append(tile)
    models: dict[str, list[dict[str, Any]]] = {}
    for digest in dict.fromkeys((*serving, *totals)):
        card, boards = cards.get(digest), serving.get(digest, [])
        name = card.name if card is not None else boards[0]["name"] if boards else None
        models.setdefault(name or _UNNAMED, []).append(_version(digest, card, boards, totals.get(digest) or Totals()))
    for versions in models.values():
        versions.sort(key=lambda version: (-(version["release"] or 0), str(version["version"])))
    return {"models": [{"name": name, "versions": models[name]} for name in sorted(models)]}


def _version(digest: str, card: ModelCard | None, boards: list[Tile], totals: Totals) -> dict[str, Any]:
    evaluation = None if card is None else card.evaluation
    reference = None if card is None else card.reference
    return {
        "version": card.version if card is not None else boards[0]["version"] if boards else None,
        "digest": digest,
        "release": None if card is None else card.release,
        "scheme": None if card is None else card.scheme,
        "size_bytes": None if card is None else card.size_bytes,
        "boards": sorted(tile["board"] for tile in boards),
        "count": totals.count,
        "errors": totals.errors,
        "stages": figures.stages(totals),
        "labels": figures.labels(totals),
        "scores": list(totals.scores),
        "low_confidence_share": figures.low_confidence_share(totals),
        "accuracy": None if evaluation is None else figures.finite(evaluation.accuracy),
        "float_accuracy": None if evaluation is None else figures.finite(evaluation.float_accuracy),
        "samples": None if evaluation is None else evaluation.samples,
        "reference": None if reference is None else board_page.reference(reference),
        "drift": _drift(reference, totals),
    }


def _drift(reference: Reference | None, totals: Totals) -> dict[str, Any]:
    if reference is None:
        return {"labels": None, "confidence": None}
    won = {label: count for label, (count, _score) in totals.labels.items()}
    before, after = dict(enumerate(reference.scores)), dict(enumerate(totals.scores))
    return {"labels": _index(reference.labels, won), "confidence": _index(before, after)}


def _index(before: Mapping[Any, int], after: Mapping[Any, int]) -> dict[str, float | None] | None:
    if any(count < 0 for count in after.values()) or not sum(before.values()) or not sum(after.values()):
        return None
    found = drift.psi(before, after)
    return {"psi": figures.finite(found.value), "chance": figures.finite(found.chance)}
