"""The rules of a fleet: where they stand, and which boards each of them is for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.telemetry.alarms import rules
from tflotilla.host.telemetry.alarms.watching import Watched
from tflotilla.shared.contract.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from tflotilla.host.fleet.inventory.fleet import Fleet

FILE = "alarms.toml"
RulesFile = Annotated[Path | None, typer.Option("--rules", help="Rules; default alarms.toml beside fleet.toml.")]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Rules with their boards, and where they came from."""

    #: None: there is no file, so these are the rules that hold by themselves.
    path: Path | None
    #: Where relative paths of the file start.
    folder: Path
    rules: rules.Rules
    watched: Watched


def load(fleet: Fleet, given: Path | None) -> Loaded:
    """Read the rules, and pick the boards of each.

    Raises:
        ConfigError: the file can't be read, or a rule is wrong; the place is named.

    """
    path = given if given is not None else fleet.folder / FILE
    if given is None and not path.exists():
        return Loaded(path=None, folder=fleet.folder, rules=rules.DEFAULTS, watched=_watched(fleet, rules.DEFAULTS, ""))
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        message = f"{path} is not text in UTF-8 (byte {error.start})"
        raise ConfigError(message) from error
    except OSError as error:
        message = f"{path} can't be read: {error.strerror or error}"
        raise ConfigError(message) from error
    found = rules.parse(text, str(path))
    return Loaded(path=path, folder=path.parent, rules=found, watched=_watched(fleet, found, f"{path}: "))


def _watched(fleet: Fleet, found: rules.Rules, where: str) -> Watched:
    if not fleet.boards:
        message = f"{fleet.path} has no boards yet; `tflotilla board add` adds one"
        raise ConfigError(message)
    boards = {}
    for rule in found.rules:
        try:
            boards[rule.name] = fleet.select(rule.boards)
        except UsageError as error:
            message = f"{where}alarms.{rule.name}.boards: {error}"
            raise ConfigError(message) from error
    return Watched(rules=found.rules, boards=boards)


def with_webhook(loaded: Loaded, webhook: rules.WebhookConfig | None) -> Loaded:
    """Return the same rules with another webhook."""
    return dataclasses.replace(loaded, rules=dataclasses.replace(loaded.rules, webhook=webhook))
