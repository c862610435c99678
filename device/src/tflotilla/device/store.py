"""Blobs, bundles and the two links: what lies on the board's disk, and in which order it gets there.

Rules it keeps:
- a blob is visible only under its verified digest, whole and durable;
- a folder in `bundles/` holds exactly the files of its manifest, hard links to blobs, so a model is stored once;
- space is asked for before it is written, and a disk that is full anyway leaves nothing half-done;
- `previous` is switched before `current`, each atomically and durably: `current` alone says what serves;
- references are counted and changed under one lock, so collecting never races with a transfer.

What it does NOT do: decide whether a bundle may come in (`verification`) or may serve (`install`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from typing import TYPE_CHECKING, Any

from tflotilla.device.choice import Choice
from tflotilla.device.disk import UNFINISHED, Disk, RealDisk, point, write
from tflotilla.device.incoming import Base, Incoming
from tflotilla.shared.contract import codec, digest
from tflotilla.shared.contract.board import RuntimeOffer, ServedBundle
from tflotilla.shared.contract.errors import BoardError, BusyError, ContractError, VerificationError
from tflotilla.shared.contract.manifest import MANIFEST, SIGNATURE, Manifest
from tflotilla.shared.contract.session import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from tflotilla.device.home import Home
    from tflotilla.shared.contract.manifest import FileEntry
    from tflotilla.shared.contract.session import Piece

#: Left free whatever comes in: the journal, the links and the outbox need room too.
RESERVE_BYTES = 4 << 20
#: Transfers that nobody went on with for so long are given up.
ABANDONED_AFTER_S = 14 * 24 * 3600.0
_PART = ".part"
_NAME = re.compile(r"[0-9a-f]{64}")
_MIB = 1 << 20
_LOST = "is missing on this board; deploy the bundle again"


class Store:
    """Everything of one home that bundles are made of. Safe to use from several processes at once."""

    def __init__(self, home: Home, disk: Disk | None = None, clock: Callable[[], float] = time.time) -> None:
        self.home = home
        self._disk = disk or RealDisk()
        self._clock = clock
        #: Bundles that are being measured: nothing else may name them.
        self._protected: frozenset[str] = frozenset()

    # Blobs

    def blob(self, sha256: str) -> Path:
        """Return the path of a blob, whether it exists or not. Raises ValueError for what is no digest."""
        return self.home.store / digest.check(sha256)[:2] / sha256

    def has_blob(self, sha256: str, size: int) -> bool:
        """Whether the blob is there: visible means verified."""
        path = self.blob(sha256)
        return path.is_file() and path.stat().st_size == size

    def partial_bytes(self, sha256: str, size: int) -> int:
        """Return how much of a blob has arrived in earlier transfers; more than there can be counts as nothing."""
        path = self._partial(sha256)
        here = path.stat().st_size if path.is_file() else 0
        if here > size:
            self._disk.remove(path)
            return 0
        return here

    def receive(self, sha256: str, size: int, offset: int, *, base: Base | None = None) -> Incoming:
        """Go on with a blob at `offset`, which must be what `partial_bytes` says; with a base it is a difference.

        Raises:
            ContractError: another offset, or a digest or size that can't be.
            BoardError: no space for the rest.

        """
        try:
            partial = self._partial(sha256)
        except ValueError as error:
            raise ContractError(f"blob: {error}") from error
        here = self.partial_bytes(sha256, size)
        if offset != here or not 0 <= offset <= size:
            message = f"blob {digest.short(sha256)}: {here} bytes are here, so it can't go on at {offset} of {size}"
            raise ContractError(message)
        self.require_space(size - offset)
        return Incoming(
            offset,
            size,
            write=lambda data, at: self._append(partial, data, at),
            finish=lambda: self._keep(partial, sha256),
            base=base,
        )

    def base(self, sha256: str, pieces: Sequence[Piece], size: int) -> Base:
        """Return a blob as the base of another of `size` bytes.

        Raises:
            ContractError: it is no digest, or the pieces don't fit.
            BoardError: no bundle of this board has it, or it can't be read.

        """
        try:
            path = self.blob(sha256)
        except ValueError as error:
            raise ContractError(f"session request.base: {error}") from error
        if sha256 not in self._named_blobs(self.home.bundles):
            raise BoardError(f"no bundle of this board has a file {digest.short(sha256)}; send the file whole")
        try:
            stream = path.open("rb", buffering=0)
            base_size = os.fstat(stream.fileno()).st_size
        except OSError as error:
            message = f"file {digest.short(sha256)} can't be read on this board ({error.strerror}); send the file whole"
            raise BoardError(message) from error

        def read(at: int, length: int) -> bytes:
            # The file stays open: a deployment that ends meanwhile may collect it.
            with self._translated("read a file", 0):
                return os.pread(stream.fileno(), length, at)

        return Base(pieces, read, size=size, base_size=base_size)

    def bases(self, manifest: Manifest) -> Mapping[str, tuple[str, ...]]:
        """Return for each blob of a manifest those that the bundle that serves, then the one before it, have instead.

        Instead is under the same name, and other bytes.
        """
        found: dict[str, dict[str, None]] = {entry.sha256: {} for entry in manifest.files.values()}
        for bundle in (self.current(), self.previous()):
            # One that can't be read offers nothing: what has no base comes whole.
            with contextlib.suppress(BoardError, ContractError):
                there = {} if bundle is None else self.manifest(bundle).files
                for name, entry in manifest.files.items():
                    base = there.get(name)
                    if base is not None and base.sha256 != entry.sha256 and self.has_blob(base.sha256, base.size):
                        found[entry.sha256][base.sha256] = None
        return {sha256: tuple(bases) for sha256, bases in found.items()}

    def _partial(self, sha256: str) -> Path:
        return self.home.incoming / (digest.check(sha256) + _PART)

    def _append(self, partial: Path, data: bytes, at: int) -> None:
        try:
            with self._translated("receive a file", len(data)), self._locked():
                if partial.exists() and partial.stat().st_size != at:
                    # The younger session goes on where an older one, cut off and not knowing it yet, had stopped.
                    message = f"blob {digest.short(partial.stem)}: another session is sending it to this board"
                    raise BusyError(message)
                self._disk.append(partial, data)
        except BoardError:
            # A board whose disk is full needs the room more than the next transfer needs a head start.
            self._disk.remove(partial)
            raise

    def _keep(self, partial: Path, sha256: str) -> None:
        target = self.blob(sha256)
        with self._translated("store a file", 0), self._locked():
            if not partial.exists():
                self._disk.append(partial, b"")
            if digest.of_file(partial) != sha256:
                self._disk.remove(partial)
                message = f"blob {digest.short(sha256)} arrived damaged and was thrown away; send it again"
                raise VerificationError(message)
            self._disk.sync_file(partial)
            self._disk.make_folder(target.parent)
            self._disk.sync_folder(target.parent.parent)
            partial.chmod(0o400)
            self._disk.replace(partial, target)
            self._disk.sync_folder(target.parent)

    # Bundles

    def has_bundle(self, bundle: str) -> bool:
        """Whether the bundle is admitted: its folder stands in `bundles/`."""
        return self.home.bundle(bundle).is_dir()

    def offered(self, bundle: str) -> Reply:
        """Answer an offer. Raises ContractError for what is no digest."""
        try:
            return Reply(present=self.has_bundle(bundle), current=self.current() == bundle)
        except ValueError as error:
            message = f"session request.bundle: {error}"
            raise ContractError(message) from error

    def stage(self, manifest: bytes, signature: bytes) -> tuple[str, Manifest]:
        """Keep a manifest in `incoming/` until its blobs are here; from then on its blobs are not collected."""
        bundle, parsed = digest.of_bytes(manifest), Manifest.from_bytes(manifest)
        folder = self.home.incoming / bundle
        with self._translated("keep the manifest", len(manifest) + len(signature)), self._locked():
            self._disk.make_folder(folder)
            write(self._disk, folder / MANIFEST, manifest)
            write(self._disk, folder / SIGNATURE, signature)
        return bundle, parsed

    def missing(self, manifest: Manifest) -> tuple[tuple[str, int], ...]:
        """Return digest and size of every blob that isn't here, sorted by digest, each once."""
        wanted = {(entry.sha256, entry.size) for entry in manifest.files.values()}
        return tuple(sorted(pair for pair in wanted if not self.has_blob(*pair)))

    def signed_manifest(self, bundle: str) -> tuple[bytes, bytes]:
        """Return manifest and signature of an admitted or staged bundle, as bytes.

        Raises:
            BoardError: the bundle is not on this board.

        """
        for folder in (self.home.bundle(bundle), self.home.incoming / bundle):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                return (folder / MANIFEST).read_bytes(), (folder / SIGNATURE).read_bytes()
        message = f"bundle {digest.short(bundle)} is not on this board; deploy it again"
        raise BoardError(message)

    def manifest(self, bundle: str) -> Manifest:
        """Return the manifest of an admitted or staged bundle. Raises BoardError, ContractError."""
        return Manifest.from_bytes(self.signed_manifest(bundle)[0])

    def describe(self, bundle: str) -> ServedBundle | None:
        """Describe a bundle as messages do; None when its manifest can't be read."""
        try:
            manifest = self.manifest(bundle)
        except (BoardError, ContractError):
            return None
        return ServedBundle(digest=bundle, name=manifest.name, version=manifest.version, release=manifest.release)

    def admit(self, bundle: str) -> Path:
        """Make a bundle of a staged manifest and its blobs, verified byte by byte. Admitted already: verify it again.

        Returns:
            The bundle's folder.

        Raises:
            VerificationError: a file is missing or is not what the manifest says.
            BoardError: the bundle is not here, or the disk fails.

        """
        folder = self.home.bundle(bundle)
        if folder.is_dir():
            try:
                self.verify(bundle)
            except VerificationError:
                self._take_back(bundle)
                raise
            return folder
        manifest = self.manifest(bundle)
        staged = self.home.incoming / bundle
        with self._translated("admit the bundle", 0), self._locked():
            for name in {entry.name for entry in staged.iterdir()} - {MANIFEST, SIGNATURE}:
                self._disk.remove(staged / name)  # links of an admission that was cut
            for name, entry in sorted(manifest.files.items()):
                blob = self.blob(entry.sha256)
                if _damage(blob, name, entry) is not None:
                    self._disk.remove(blob)
                    raise VerificationError(f"{name}: {_LOST}")
                self._disk.link(blob, staged / name)
            self._disk.sync_folder(staged)
            self._disk.replace(staged, folder)
            self._disk.sync_folder(folder.parent)
            self._disk.sync_folder(staged.parent)
        return folder

    def _take_back(self, bundle: str) -> None:
        """Turn a damaged bundle into one that is on its way, so that the next deployment sends what was lost."""
        if bundle == self.current():
            return  # What serves stays: its worker has the model in memory, and there is nothing better.
        folder, staged = self.home.bundle(bundle), self.home.incoming / bundle
        with self._translated("take back a damaged bundle", 0), self._locked():
            manifest = _manifest_if_sound(folder, bundle)
            if manifest is None:
                self._disk.remove(folder)
                return
            for name, entry in manifest.files.items():
                if _damage(folder / name, name, entry) is not None:
                    self._disk.remove(self.blob(entry.sha256))  # the same bytes under another name
            self._disk.remove(staged)
            self._disk.replace(folder, staged)
            self._disk.sync_folder(staged.parent)
            self._disk.sync_folder(folder.parent)

    def verify(self, bundle: str) -> Manifest:
        """Read every file of an admitted bundle and compare. Raises VerificationError naming the file, BoardError."""
        folder = self.home.bundle(bundle)
        manifest = _manifest_if_sound(folder, bundle)
        if manifest is None:
            message = f"bundle {digest.short(bundle)}: its manifest is missing or was changed; deploy it again"
            raise VerificationError(message)
        for name, entry in manifest.files.items():
            damage = _damage(folder / name, name, entry)
            if damage is not None:
                raise VerificationError(damage)
        return manifest

    # The two links

    def current(self) -> str | None:
        """Return the digest of the bundle that serves."""
        return self._pointed(self.home.current)

    def previous(self) -> str | None:
        """Return the digest of the bundle that a rollback brings back."""
        return self._pointed(self.home.previous)

    def _pointed(self, link: Path) -> str | None:
        """Return the bundle a link names; one that names nothing that is here is no link."""
        try:
            name = link.readlink().name
        except OSError:
            return None
        return name if _NAME.fullmatch(name) and self.has_bundle(name) else None

    def point(self, current: str | None, previous: str | None) -> None:
        """Switch both links durably, `previous` first; what stands already is not touched.

        Raises:
            BoardError: the bundle that is to serve is not here, or the disk fails.

        """
        if current is not None and not self.has_bundle(current):
            message = f"bundle {digest.short(current)} is not on this board; deploy it again"
            raise BoardError(message)
        if previous is not None and not self.has_bundle(previous):
            previous = None  # Damaged and taken back in the meantime: nothing to go back to, no reason not to go on.
        with self._translated("switch to the bundle", 0):
            for link, wanted, standing in (
                (self.home.previous, previous, self.previous()),
                (self.home.current, current, self.current()),
            ):
                if wanted != standing:
                    point(self._disk, link, None if wanted is None else f"{self.home.bundles.name}/{wanted}")

    def choice(self, bundle: str) -> Choice | None:
        """Return how the bundle is to be served on this board, None when it was never probed."""
        return self._choices().get(bundle)

    def choose(self, bundle: str, choice: Choice | None) -> None:
        """Note durably how a bundle is served, None forgets it; so are bundles that are gone. Raises BoardError."""
        kept = {name: made for name, made in self._choices().items() if self.has_bundle(name) and name != bundle}
        if choice is not None:
            kept[bundle] = choice
        self.write_document(self.home.choice, codec.canonical_json(kept))

    def _choices(self) -> dict[str, Choice]:
        place = str(self.home.choice)
        try:
            document = codec.parse_json(self.home.choice.read_bytes(), place)
            return {name: _choice(value, place) for name, value in document.items()}
        except (OSError, ContractError, AttributeError):
            # Written by nobody but us, atomically: unreadable means absent, and the supervisor picks again.
            return {}

    # Space

    def require_space(self, needed_bytes: int) -> None:
        """Raise BoardError with both figures when `needed_bytes` would not fit beside the reserve."""
        free = self._disk.free_bytes(self.home.path)
        if needed_bytes > free - RESERVE_BYTES:
            raise BoardError(self._no_space(needed_bytes, free))

    def collect(self, keep: Collection[str]) -> None:
        """Remove the bundles not in `keep`, transfers that were abandoned, and the blobs that then nothing names."""
        now = self._clock()
        with self._translated("tidy up", 0), self._locked():
            for folder in self.home.bundles.iterdir():
                if folder.name not in keep and folder.name not in self._protected:
                    self._disk.remove(folder)
            for entry in self.home.incoming.iterdir():
                # A clock that went back makes an entry young again: kept too long beats lost too early.
                if now - entry.stat().st_mtime > ABANDONED_AFTER_S or entry.name.endswith(UNFINISHED):
                    self._disk.remove(entry)
            self._remove_unnamed_blobs()

    def protect(self, bundles: Collection[str]) -> None:
        """Keep these from being collected by this store, in place of those before."""
        self._protected = frozenset(bundles)

    def discard(self, bundle: str) -> None:
        """Remove a bundle that came to be measured, unless it serves, or did before. Raises BoardError."""
        if bundle in (self.current(), self.previous()):
            return
        with self._translated("tidy up", 0), self._locked():
            self._disk.remove(self.home.bundle(bundle))
            self._disk.remove(self.home.incoming / bundle)
            self._remove_unnamed_blobs()

    def _remove_unnamed_blobs(self) -> None:
        named = self._named_blobs(self.home.bundles, self.home.incoming)
        for blob in self.home.store.glob("??/*"):
            if blob.name not in named:
                self._disk.remove(blob)

    def _named_blobs(self, *places: Path) -> set[str]:
        named: set[str] = set()
        for folder in (entry for place in places for entry in place.iterdir()):
            if _NAME.fullmatch(folder.name) and folder.is_dir():
                # A manifest that can't be read names nothing: it will be refused when somebody asks for it.
                with contextlib.suppress(OSError, ContractError):
                    manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes())
                    named.update(entry.sha256 for entry in manifest.files.values())
        return named

    # Small durable documents

    def write_document(self, path: Path, data: bytes) -> None:
        """Replace a file of the home atomically and durably. Raises BoardError."""
        with self._translated(f"write {path.name}", len(data)):
            write(self._disk, path, data)

    def remove_document(self, path: Path) -> None:
        """Remove a file of the home durably. Raises BoardError."""
        with self._translated(f"remove {path.name}", 0):
            self._disk.remove(path)
            self._disk.sync_folder(path.parent)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self.home.store_lock.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _translated(self, doing: str, needed_bytes: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise BoardError(self._no_space(needed_bytes, self._disk.free_bytes(self.home.path))) from error
            message = f"the board's disk failed to {doing} in {self.home.path}: {error.strerror or error}"
            raise BoardError(message) from error

    def _no_space(self, needed_bytes: int, free_bytes: int) -> str:
        return (
            f"not enough space on the board: {needed_bytes / _MIB:.1f} MiB and a reserve of {RESERVE_BYTES / _MIB:.0f}"
            f" MiB are needed, {free_bytes / _MIB:.1f} MiB are free under {self.home.path}; make room and try again"
        )


def _choice(document: Any, place: str) -> Choice:  # noqa: ANN401 - parsed JSON
    # Agents before the one that is tuned noted the runtime alone.
    if isinstance(document, dict) and "name" in document:
        return Choice(runtime=codec.decode(RuntimeOffer, document, place))
    return codec.decode(Choice, document, place)


def _manifest_if_sound(folder: Path, bundle: str) -> Manifest | None:
    try:
        data = (folder / MANIFEST).read_bytes()
        return Manifest.from_bytes(data) if digest.of_bytes(data) == bundle else None
    except (OSError, ContractError):
        return None


def _damage(path: Path, name: str, entry: FileEntry) -> str | None:
    """Return what is wrong with a file, None when it is what the manifest says."""
    try:
        sound = path.stat().st_size == entry.size and digest.of_file(path) == entry.sha256
    except FileNotFoundError:
        return f"{name}: {_LOST}"
    except OSError as error:
        return f"{name}: can't be read on this board ({error.strerror}); deploy the bundle again"
    return None if sound else f"{name}: is not what the manifest says (size or digest differs); deploy the bundle again"
