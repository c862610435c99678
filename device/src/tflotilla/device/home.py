"""The agent's home: one property per name of `shared.contract.layout`, and which folder is the home.

Rules it keeps: every folder it makes is readable by its owner only. What it does NOT do: read or write a file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.shared.contract import digest, layout
from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "TFLOTILLA_HOME"
_OWNER_ONLY = 0o700
#: Which runtime `auto` chose for each installed bundle; only this board can know, so it is not in the contract.
_CHOICE = "choice.json"
#: Held while the store's references are counted or changed.
_STORE_LOCK = "store/lock"


@dataclass(frozen=True, slots=True)
class Home:
    """Where everything of one agent lies."""

    path: Path

    @property
    def store(self) -> Path:
        """Immutable blobs by digest."""
        return self.path / layout.STORE

    @property
    def store_lock(self) -> Path:
        """Lock file of the store."""
        return self.path / _STORE_LOCK

    @property
    def incoming(self) -> Path:
        """Partial transfers and manifests of bundles that are on their way."""
        return self.path / layout.INCOMING

    @property
    def bundles(self) -> Path:
        """Verified bundles, one folder each."""
        return self.path / layout.BUNDLES

    def bundle(self, bundle_digest: str) -> Path:
        """Return the folder of a bundle, whether it exists or not. Raises ValueError for what is no digest."""
        return self.bundles / digest.check(bundle_digest)

    @property
    def current(self) -> Path:
        """Symbolic link to the bundle that serves."""
        return self.path / layout.CURRENT

    @property
    def previous(self) -> Path:
        """Symbolic link to the bundle that a rollback brings back."""
        return self.path / layout.PREVIOUS

    @property
    def environments(self) -> Path:
        """Python packages, one folder per environment."""
        return self.path / layout.ENVIRONMENTS

    @property
    def environment(self) -> Path:
        """Symbolic link to the environment in use."""
        return self.path / layout.ENVIRONMENT

    @property
    def journal(self) -> Path:
        """The deployment that is going on."""
        return self.path / layout.JOURNAL

    @property
    def benchmark(self) -> Path:
        """The benchmark that is going on, or the last one."""
        return self.path / layout.BENCHMARK

    @property
    def samples(self) -> Path:
        """Samples of a benchmark, by their digest."""
        return self.path / layout.SAMPLES

    @property
    def choice(self) -> Path:
        """The runtime chosen for each installed bundle."""
        return self.path / _CHOICE

    @property
    def outbox(self) -> Path:
        """The queue of undelivered reports."""
        return self.path / layout.OUTBOX

    @property
    def config(self) -> Path:
        """The agent's configuration."""
        return self.path / layout.CONFIG

    @property
    def allowed_signers(self) -> Path:
        """Whose bundles this board takes."""
        return self.path / layout.ALLOWED_SIGNERS

    @property
    def mqtt_password(self) -> Path:
        """The broker's password."""
        return self.path / layout.MQTT_PASSWORD

    @property
    def socket(self) -> Path:
        """The supervisor's control socket; `control.address` makes it reachable however long the path is."""
        return self.path / layout.SOCKET

    @property
    def pid(self) -> Path:
        """Lock and process id of the supervisor."""
        return self.path / layout.PID

    @property
    def guard_pid(self) -> Path:
        """Lock and process id of the guard."""
        return self.path / layout.GUARD_PID

    @property
    def log(self) -> Path:
        """What the agent says where no systemd keeps it."""
        return self.path / layout.LOG

    @property
    def launcher(self) -> Path:
        """The script that runs the agent of the environment in use."""
        return self.path / layout.LAUNCHER

    def make(self) -> None:
        """Make every folder, for the owner only; what exists is kept.

        Raises:
            BoardError: the home can't be made, with the reason.

        """
        try:
            for folder in (self.path, self.store.parent, self.store, self.incoming, self.bundles, self.environments):
                folder.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
        except OSError as error:
            message = f"the agent's home {self.path} can't be used: {error.strerror or error}"
            raise BoardError(message) from error


def find(given: str | None, environ: Mapping[str, str], *, system: Path = Path(layout.SYSTEM_HOME)) -> Home:
    """Return the home: `--home`, then $TFLOTILLA_HOME, then the system's if we may write there, else the user's."""
    chosen = given or environ.get(VARIABLE)
    if chosen:
        return Home(Path(chosen).absolute())
    if system.is_dir() and os.access(system, os.W_OK):
        return Home(system)
    return Home(Path.home() / layout.USER_HOME)
