"""What a benchmark asks of the supervisor (`benchmarking.Board`), answered from what the supervisor has.

What it does NOT do: change anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
from typing import TYPE_CHECKING, Literal

from tflotilla.device import __version__, choice, facts
from tflotilla.device.conditions import identity
from tflotilla.shared.contract.benchmark import Identity
from tflotilla.shared.contract.manifest import MODEL

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tflotilla.device.bystander import Overheard
    from tflotilla.device.home import Home
    from tflotilla.device.installer import Installer
    from tflotilla.device.serving import Keeper
    from tflotilla.device.store import Store
    from tflotilla.shared.contract.agent_config import AgentConfig, InferenceConfig
    from tflotilla.shared.contract.board import RuntimeOffer
    from tflotilla.shared.contract.manifest import Manifest


class BenchmarkBoard:
    """One agent's board."""

    def __init__(self, home: Home, settings: AgentConfig, store: Store, keeper: Keeper, installer: Installer) -> None:
        self._home = home
        self._settings = settings
        self._store = store
        self._keeper = keeper
        self._installer = installer

    @property
    def bundle(self) -> str | None:
        """The bundle that serves."""
        return self._keeper.bundle or self._store.current()

    @property
    def offers(self) -> tuple[RuntimeOffer, ...]:
        """The runtimes that are installed."""
        return facts.runtimes()

    @property
    def processors(self) -> frozenset[int]:
        """The processors that may be used."""
        return frozenset(facts.processors())

    def inference(self, bundle: str) -> InferenceConfig:
        """Return how a bundle runs, or would run, here; its runtime is `auto` only where none is installed."""
        if bundle == self._keeper.bundle and self._keeper.inference is not None:
            return self._keeper.inference
        configured, offers = self._settings.inference, facts.runtimes()
        chosen = self._store.choice(bundle)
        if chosen is not None and chosen.inference is not None:
            stale = choice.stale(chosen, offers=offers, kernel=facts.kernel(), processors=facts.processors())
            if stale is None:
                return chosen.inference
        if configured.runtime != "auto" or not offers:
            return configured
        best = chosen.runtime if chosen is not None and chosen.runtime in offers else offers[0]
        return dataclasses.replace(configured, runtime=_literal(best.name))

    def identity(self, bundle: str, manifest: Manifest) -> Identity:
        """Describe board and bundle."""
        found = identity.read()
        numpy = "not installed"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            numpy = importlib.metadata.version("numpy")
        return Identity(
            board=self._settings.board,
            facts=facts.read(self._home.path),
            agent_version=__version__,
            numpy=numpy,
            bundle=bundle,
            title=manifest.title,
            model_sha256=manifest.files[MODEL].sha256,
            clock_source=found.clock_source,
            revision=found.revision,
        )

    def overhear(self) -> AbstractContextManager[Overheard]:
        """Listen to the worker."""
        return self._keeper.overhear()

    def windows(self) -> tuple[bytes, ...]:
        """Return the worker's last windows."""
        return self._keeper.windows()

    def candidate(self) -> str | None:
        """Return the bundle that is being deployed."""
        return self._installer.candidate

    async def settle(self) -> None:
        """Wait until no deployment is going on."""
        await self._installer.settle()


def _literal(name: str) -> Literal["tflite-runtime", "ai-edge-litert"]:
    return "tflite-runtime" if name == "tflite-runtime" else "ai-edge-litert"
