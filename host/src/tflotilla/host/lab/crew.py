"""The demo's three boards: enrolling them, what each is to run, what their answers must be.

What it does NOT do: speak. `story` tells what comes of it.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tflotilla.host.fleet import push
from tflotilla.host.fleet.agents import bootstrap
from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
from tflotilla.host.lab import digits
from tflotilla.host.pages import words
from tflotilla.shared.contract.errors import TflotillaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.fleet.agents.environments import RuntimeChoice
    from tflotilla.host.fleet.pool import BoardResult
    from tflotilla.host.lab.digits import Digits
    from tflotilla.host.lab.lab import Lab
    from tflotilla.host.telemetry.fleet_view import FleetView

BOARDS = 3
_STREAM_IMAGES = 200
_INTERVAL_MS = 20
T = TypeVar("T")


class StoryError(TflotillaError):
    """Something in the story did not go as it must: a bug of ours, or a machine in trouble."""


def runtimes(*, both: bool) -> Sequence[RuntimeChoice]:
    """Return what each board is to run: as different as the wheels for this Python allow."""
    if not both:
        return ("ai-edge-litert", "ai-edge-litert", "ai-edge-litert")
    return ("tflite-runtime", "ai-edge-litert", "both")


def show_digits(here: Lab, data: Digits) -> None:
    """Put held-out digits where each board's camera would: other ones on each board."""
    for number, board in enumerate(here.boards):
        start = number * len(data.held_out_images) // BOARDS
        chosen = slice(start, start + _STREAM_IMAGES)
        digits.write_stream(data.held_out_images[chosen], data.held_out_labels[chosen], board.home / "images")


def enrol(here: Lab, fleet_file: Path, *, signing_key: Path) -> Fleet:
    """Make a fleet of the lab's boards, each by the fingerprint of its host key."""
    fleet = Fleet.create(fleet_file, name=here.name, mqtt=here.broker.config, signing_key=signing_key)
    for board in here.boards:
        entry = BoardEntry(
            host=board.host,
            port=board.port,
            user=board.user,
            identity=str(here.client_key),
            labels={"lab": here.name},
            install="user",
            agent={
                "source": {
                    "kind": "folder",
                    "path": str(board.home / "images"),
                    "interval_ms": _INTERVAL_MS,
                    "loop": True,
                },
                "reporting": {"window_s": 0.5},
            },
        )
        fleet, _ = bootstrap.enrol(
            board.name, entry, fleet, fingerprint=fingerprint(board.host_key), confirm=lambda _key: False
        )
    return fleet


def refusal(board: str, fleet: Fleet, bundle: Bundle, expected: type[TflotillaError]) -> TflotillaError:
    """Try a bad release and return how it was refused. Raises StoryError when it was not."""
    try:
        # Not verified here, as an attacker wouldn't: the board must find out by itself.
        push.deploy(board, fleet, bundle, verify_locally=False)
    except expected as error:
        return error
    raise StoryError(f"{board} took {bundle.manifest.title}, which is bad")


LIVE_COLUMNS = ("board", "runtime", "rate", "p50", "p99", "last picture → answer")
LIVE_FIGURES = ("rate", "p50", "p99")


def live_rows(view: FleetView, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return what the boards do now, a row each."""
    rows: list[tuple[str, ...]] = []
    for name in names:
        board = view.boards.get(name)
        if board is None or board.metrics is None:
            continue
        total = board.metrics.stages.get("total")
        last = board.predictions[0] if board.predictions else None
        rows.append(
            (
                name,
                board.state.runtime.name if board.state and board.state.runtime else "",
                f"{board.inferences_per_second or 0:.0f}/s",
                words.duration(total.p50_ns) if total else "",
                words.duration(total.p99_ns) if total else "",
                f"{Path(last.item).name} → {last.top[0].label} {last.top[0].score:.0%}" if last and last.top else "",
            )
        )
    return rows


def value(result: BoardResult[T]) -> T:
    """Return what came of a board, or raise what went wrong there."""
    if result.error is not None:
        raise result.error
    if result.value is None:
        raise StoryError(f"nothing came of {result.board}")
    return result.value


def truth(item: str) -> str:
    """Return the class in a file name like `0042-seven.png`."""
    return Path(item).stem.partition("-")[2]


def fingerprint(host_key: str) -> str:
    """Return the `SHA256:…` of a public key line, as ssh-keygen -l prints it."""
    blob = base64.b64decode(host_key.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
