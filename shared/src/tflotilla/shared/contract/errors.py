"""Every error tflotilla raises on purpose, and the exit code scripts see for it.

    TflotillaError
    ├── UsageError            2   the command line asks for something that makes no sense
    ├── InputError            3   a file, folder or value the user gave can't be used
    │   ├── ModelError            a model file is corrupt, of the wrong type, or not loadable
    │   ├── DatasetError          images, arrays or labels can't be used as they are
    │   ├── ConfigError           fleet.toml or agent.toml
    │   └── ContractError         a manifest or message breaks docs/contract.md
    ├── IncompatibleError     4   the board can't run the bundle; nothing was sent
    ├── UnreachableError      5   the board is off, or the connection was lost
    ├── IdentityError         6   wrong or unknown host key, or the board refused our key
    ├── BoardError            7   the board lacks something: python3, space, a running agent
    │   └── DelegateError         a delegate library is missing, isn't one, or refuses the model
    ├── VerificationError     8   a bundle is unsigned, edited after signing, or signed by a stranger
    ├── ProbeError            9   the candidate misbehaved on the board; the old bundle serves
    ├── BrokerError          10   the MQTT broker is down, refuses us, or nobody answered over it
    ├── ConflictError        11   the release is not newer, nothing to roll back to, a rollout is conducted elsewhere
    │   └── BusyError             something else is going on there; it will be over
    ├── ConversionError      12   the model can't be expressed in the requested scheme or runtime
    ├── RegressionError      13   a benchmark is worse than the one it was held against
    ├── HaltedError          14   a rollout was stopped: its gates failed, or too many boards did
    └── AlarmError           15   alarms are firing

Exit code 1 is kept for "some boards failed, with different errors", 70 for a bug of ours and 130 for Ctrl-C.
Foreign exceptions are translated where they enter, and chained.
"""

from __future__ import annotations

from typing import ClassVar


class TflotillaError(Exception):
    """The root: its message is one line that says what is wrong, where, and what to do."""

    exit_code: ClassVar[int] = 70


class UsageError(TflotillaError):
    """The command line asks for something that makes no sense."""

    exit_code: ClassVar[int] = 2


class InputError(TflotillaError):
    """A file, folder or value the user gave can't be used."""

    exit_code: ClassVar[int] = 3


class ModelError(InputError):
    """A model file is corrupt, of the wrong type, or can't be loaded."""


class DatasetError(InputError):
    """Images, arrays or labels can't be used as they are."""


class ConfigError(InputError):
    """A configuration file has an unknown key, a wrong value, or can't be read."""


class ContractError(InputError):
    """A manifest or message breaks the contract."""


class IncompatibleError(TflotillaError):
    """The board can't run the bundle; nothing was sent."""

    exit_code: ClassVar[int] = 4


class UnreachableError(TflotillaError):
    """The board is off, or the connection to it was lost."""

    exit_code: ClassVar[int] = 5


class IdentityError(TflotillaError):
    """The board showed a wrong or unknown host key, or refused our key."""

    exit_code: ClassVar[int] = 6


class BoardError(TflotillaError):
    """The board lacks something it needs: python3, space, a running agent."""

    exit_code: ClassVar[int] = 7


class DelegateError(BoardError):
    """A delegate library is missing, isn't one, or refuses the model."""


class VerificationError(TflotillaError):
    """A bundle is unsigned, was edited after signing, or was signed by a stranger."""

    exit_code: ClassVar[int] = 8


class ProbeError(TflotillaError):
    """The candidate misbehaved on the board; the old bundle serves."""

    exit_code: ClassVar[int] = 9


class BrokerError(TflotillaError):
    """The MQTT broker is down, refuses us, or nobody answered over it."""

    exit_code: ClassVar[int] = 10


class ConflictError(TflotillaError):
    """The request contradicts the state of the board: busy, not newer, nothing to go back to."""

    exit_code: ClassVar[int] = 11


class BusyError(ConflictError):
    """Something else is going on there, and will be over: the same request may succeed later."""


class ConversionError(TflotillaError):
    """The model can't be expressed in the requested quantization scheme or for the requested runtime."""

    exit_code: ClassVar[int] = 12


class RegressionError(TflotillaError):
    """A benchmark is worse than the one it was held against."""

    exit_code: ClassVar[int] = 13


class HaltedError(TflotillaError):
    """A rollout was stopped by its gates or its error threshold."""

    exit_code: ClassVar[int] = 14


class AlarmError(TflotillaError):
    """Alarms are firing."""

    exit_code: ClassVar[int] = 15


def _tree(root: type[TflotillaError]) -> dict[str, type[TflotillaError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


_BY_NAME = _tree(TflotillaError)


def to_wire(error: TflotillaError) -> dict[str, str]:
    """Put an error on the wire; `from_wire(to_wire(e))` has the type and message of `e`."""
    name = type(error).__name__
    return {"error": name if name in _BY_NAME else "TflotillaError", "message": str(error)}


def from_wire(kind: str, message: str) -> TflotillaError:
    """Rebuild an error that the other end sent; an unknown kind (a newer peer) becomes the root."""
    return _BY_NAME.get(kind, TflotillaError)(message)
