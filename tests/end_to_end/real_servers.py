"""One board on a real OpenSSH sshd, a real mosquitto, and somebody who enrolled and bootstrapped it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tests import models_made, sshd
from tests.end_to_end.commands import Person

if TYPE_CHECKING:
    from pathlib import Path

    from tests import brokers

USER, PASSWORD = "fleet", "correct horse"


def fill(folder: Path) -> Path:
    """Put models, labelled pictures (one of them empty), goldens and a key into a folder."""
    (folder / "camera").mkdir()
    for label, name in enumerate(models_made.LABELS):
        Image.fromarray(models_made.noisy(label, seed=label)).save(folder / "camera" / f"{name} '$(touch x)'.png")
    (folder / "camera" / "empty.png").touch()
    (folder / "labels.txt").write_bytes(models_made.LABELS_TXT)
    for name in ("tiny_classifier", "tiny_classifier_shifted", "op_version_too_high"):
        (folder / f"{name}.tflite").write_bytes(models_made.read(name))
    np.save(folder / "goldens.npy", np.stack([models_made.noisy(k, seed=k) for k in range(10)])[..., None])
    sshd.generate_key(folder / "release key")
    return folder


def enrol(folder: Path, broker: brokers.Mosquitto, board: sshd.Sshd) -> Person:
    """Be somebody who enrolled the board, wrote their fleet.toml, bootstrapped it, and made two bundles."""
    home = folder / "person"
    home.mkdir()
    someone = Person(folder=folder, home=home)
    someone.types(
        *("board", "add", "pi-1", f"{board.user}@{board.host}:{board.port}", "--identity", board.client_key),
        *("--fingerprint", board.fingerprint, "--install", "user", "--label", "site=lab"),
    )
    (folder / "password").write_text(PASSWORD)
    written = (folder / "fleet.toml").read_text()
    settings = f"""
[mqtt]
host = "127.0.0.1"
port = {broker.port}
username = "{USER}"
password_file = "password"

[signing]
key = "release key"

[agent.source]
kind = "folder"
path = {str(folder / "camera")!r}
interval_ms = 20

[agent.reporting]
window_s = 0.2
"""
    (folder / "fleet.toml").write_text(written + settings)
    someone.types("board", "bootstrap", "all")
    for version, model in (("1.0.0", "tiny_classifier"), ("2.0.0", "tiny_classifier_shifted")):
        someone.types(
            *(
                "bundle",
                "create",
                f"{model}.tflite",
                "--name",
                "digits",
                "--version",
                version,
                "--labels",
                "labels.txt",
            ),
            *("--preprocess", "unit,colour=gray", "--health", "confirm_window_s=2", "-o", f"digits-{version}.tflb"),
        )
    return someone
