"""Somebody with a trained model and a Raspberry Pi: their folder, and what they type to get started.

The model is the demo's CNN on real handwritten digits, trained and made integer once for all architectures.
What this module does NOT do: start boards or brokers.
"""

from __future__ import annotations

import fcntl
import shutil
from typing import TYPE_CHECKING

from tests import sshd
from tests.end_to_end.commands import Person
from tflotilla.host.lab import digits
from tflotilla.host.lab.workshop import Workshop

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.arm.boards import Board

USER, PASSWORD = "fleet", "correct horse"
#: On the board's end of our cable.
MQTT_PORT = 1883
#: Where the board finds its pictures.
CAMERA = "/srv/camera"
PICTURES = 40
#: LiteRT's wheel for aarch64 crashes when it is imported under qemu-user 7.2, and for armv7l there is none.
RUNTIME = "tflite-runtime"
#: How its agent is brought onto a board that takes its time; `IMPATIENT` where it won't come up anyway.
AGENT = ("--runtime", RUNTIME, "--window", "180")
IMPATIENT = ("--runtime", RUNTIME, "--window", "15")
_CALIBRATION_IMAGES = 200
_SEED = 7
#: A model of this size answers in milliseconds on a board, and emulated still in tens of them; starting Python takes
#: seconds there.
_HEALTH = ("confirm_window_s=3", "max_p99_ratio=none")


def trained(folder: Path) -> Path:
    """Return a folder with `digits-1.tflite`, `digits-2.tflite`, `camera`, `calibration`: whoever is first makes it."""
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            making = folder.with_name(f"{folder.name}.new")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            _train(making)
            making.rename(folder)
    return folder


def _train(folder: Path) -> None:
    workshop = Workshop(folder)
    digits.write_stream(
        workshop.data.held_out_images[:PICTURES], workshop.data.held_out_labels[:PICTURES], folder / "camera"
    )
    home = folder / "person"
    home.mkdir()
    someone = Person(folder=folder, home=home)
    for release, width in ((1, 8), (2, 12)):
        workshop.train(f"digits-{release}", epochs=6, width=width)
        someone.types(
            *("convert", f"digits-{release}.keras", "-o", f"digits-{release}.tflite", "--scheme", "int8_io_uint8"),
            *("--calibration", "calibration", "--preprocess", "unit,colour=gray"),
            *("--target-runtime", f"{RUNTIME}==2.14.0"),
        )


def enrol(folder: Path, models: Path, board: Board, users: Mapping[str, str]) -> Person:
    """Be somebody who enrolled the board for some users (board's name → user) and made two bundles.

    `folder` is theirs, and made.
    """
    home = folder / "person"
    home.mkdir(parents=True)
    someone = Person(folder=folder, home=home)
    for name, user in users.items():
        someone.types(
            *("board", "add", name, f"{user}@{board.host}", "--identity", board.client_key),
            *("--fingerprint", board.fingerprint, "--install", "system" if user == "root" else "user"),
            *("--label", f"user={user}"),
        )
    sshd.generate_key(folder / "release_key")
    (folder / "password").write_text(PASSWORD)
    written = (folder / "fleet.toml").read_text()
    settings = f"""
[mqtt]
host = "{board.gateway}"
port = {MQTT_PORT}
username = "{USER}"
password_file = "password"

[signing]
key = "release_key"

[agent.source]
kind = "folder"
path = "{CAMERA}"
interval_ms = 100

[agent.reporting]
window_s = 1.0
"""
    (folder / "fleet.toml").write_text(written + settings)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in digits.LABELS))
    goldens = ("--goldens", str(models / "calibration"), "--golden-count", "50")
    for release in (1, 2):
        model = models / f"digits-{release}.tflite"
        shown = ("--labels", "labels.txt", "--preprocess", "unit,colour=gray")
        create(someone, model, "digits", f"{release}.0.0", *goldens, *shown)
    return someone


def create(person: Person, model: Path, name: str, version: str, *options: str, probe_s: int = 180) -> None:
    """Make NAME-VERSION.tflb, whose goldens a board with that runtime must reproduce without one step of difference."""
    health = [word for limit in (*_HEALTH, f"probe_timeout_s={probe_s}") for word in ("--health", limit)]
    words = ("--name", name, "--version", version, "-o", f"{name}-{version}.tflb", *options, *health)
    person.types("bundle", "create", model, *words, "--reference", RUNTIME, "--tolerance-lsb", "0")
