"""Bytes to a board that lacks them: the files of a bundle, from where the last attempt broke off.

What it does NOT do: decide whether they may be sent (`push.preflight`), connect, or try again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.fleet.sessions import Session
    from tflotilla.shared.contract.session import MissingBlob


def send(
    session: Session,
    board: str,
    bundle: Bundle,
    missing: Sequence[MissingBlob],
    *,
    on_bytes: Callable[[int, int], None],
) -> None:
    """Send what is missing; `on_bytes` hears how much of it is there and how much there is, in bytes.

    Raises:
        ContractError: the board asks for what is not in the bundle.
        VerificationError, BoardError, UnreachableError: as `Session.blob`.

    """
    files = {entry.sha256: name for name, entry in bundle.manifest.files.items()}
    total = sum(blob.size for blob in missing)
    gone = 0
    for blob in missing:
        file = files.get(blob.sha256)
        if file is None:
            message = f"{board} asks for a file that the bundle doesn't hold"
            raise ContractError(message)
        before = gone
        with bundle.open_file(file) as stream:
            session.blob(blob, stream, on_bytes=lambda sent, before=before: on_bytes(before + sent, total))  # type: ignore[misc]
        gone += blob.size
