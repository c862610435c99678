"""A new release as a difference to the one that serves, over real sessions."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING

import pytest

from tests.device.agents import Session, chunks
from tests.device.bundles_made import MadeBundle, Signer, install, make_bundle
from tflotilla.device.store import Store
from tflotilla.shared.contract.manifest import MODEL
from tflotilla.shared.contract.session import MissingBlob, Piece, Reply, Request, to_line

if TYPE_CHECKING:
    from tflotilla.device.home import Home

RANDOM = random.Random(11)  # noqa: S311 - reproducible bytes
OLDER = RANDOM.randbytes(300_000)
OLD = RANDOM.randbytes(300_000)
NEW = bytes((b + (i % 1009 == 0)) % 256 for i, b in enumerate(OLD))
DIFFERENCE = bytes((a - b) % 256 for a, b in zip(NEW, OLD, strict=True))
WHOLE = (Piece(at=0, base_at=0, size=len(NEW)),)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> tuple[MadeBundle, MadeBundle, MadeBundle]:
    def made(release: int, model: bytes) -> MadeBundle:
        folder = tmp_path_factory.mktemp(f"release{release}")
        return make_bundle(folder, signer, version=f"{release}", release=release, model=model)

    return made(1, OLDER), made(2, OLD), made(3, NEW)


@pytest.fixture
def home(home: Home, releases: tuple[MadeBundle, MadeBundle, MadeBundle]) -> Home:
    before = install(home, releases[0])
    install(home, releases[1])
    home.previous.symlink_to(before.relative_to(home.path))
    return home


def _difference(
    board: Session, made: MadeBundle, base: str, *, offset: int = 0, pieces: tuple[Piece, ...] = WHOLE
) -> Reply:
    request = Request(verb="blob", sha256=made.blob(MODEL), size=len(NEW), offset=offset, base=base, pieces=pieces)
    board.send(to_line(request))
    for chunk in chunks(zlib.compress(DIFFERENCE[offset:])):
        board.send(chunk)
    return board.reply()


def _missing(board: Session, made: MadeBundle) -> MissingBlob:
    (missing,) = board.offer_manifest(made).missing or ()
    return missing


def test_what_serves_and_what_did_before_are_offered_as_bases(
    home: Home, releases: tuple[MadeBundle, MadeBundle, MadeBundle]
) -> None:
    older, old, new = releases
    with Session(home) as board:
        board.hello()
        missing = _missing(board, new)

    # Labels and goldens are the same file in all of them, and so not missing.
    assert missing.sha256 == new.blob(MODEL)
    assert missing.bases == (old.blob(MODEL), older.blob(MODEL))


def test_a_difference_becomes_the_blob(home: Home, releases: tuple[MadeBundle, MadeBundle, MadeBundle]) -> None:
    _older, old, new = releases
    with Session(home) as board:
        board.hello()
        _missing(board, new)
        sent_before = board.sent_bytes
        reply = _difference(board, new, old.blob(MODEL))
        sent = board.sent_bytes - sent_before

    assert reply.stored == new.blob(MODEL), reply.message
    assert Store(home).blob(new.blob(MODEL)).read_bytes() == NEW
    assert sent < len(NEW) // 20


@pytest.mark.parametrize("then", ["difference", "whole"])
def test_one_that_breaks_goes_on_as_either(
    home: Home, releases: tuple[MadeBundle, MadeBundle, MadeBundle], then: str
) -> None:
    _older, old, new = releases
    with Session(home) as board:
        board.hello()
        _missing(board, new)
        request = Request(
            verb="blob", sha256=new.blob(MODEL), size=len(NEW), offset=0, base=old.blob(MODEL), pieces=WHOLE
        )
        board.send(to_line(request))
        # Not one byte more than what was flushed by then.
        packer = zlib.compressobj()
        flushed = packer.compress(DIFFERENCE[:100_000]) + packer.flush(zlib.Z_SYNC_FLUSH)
        board.send(b"%d\n" % len(flushed) + flushed)

    with Session(home) as board:
        board.hello()
        missing = _missing(board, new)
        if then == "difference":
            reply = _difference(board, new, old.blob(MODEL), offset=missing.offset)
        else:
            reply = board.send_blob(new.blob(MODEL), NEW, offset=missing.offset)

    assert missing.offset == 100_000
    assert reply.stored == new.blob(MODEL), reply.message


def test_only_what_a_bundle_of_this_board_names_is_a_base(
    home: Home, releases: tuple[MadeBundle, MadeBundle, MadeBundle]
) -> None:
    _older, _old, new = releases
    stray = "ab" * 32
    (home.store / stray[:2]).mkdir()
    (home.store / stray[:2] / stray).write_bytes(OLD)
    with Session(home) as board:
        board.hello()
        _missing(board, new)
        strange = _difference(board, new, stray)
        absent = _difference(board, new, "cd" * 32)
        nonsense = _difference(board, new, "../../agent.toml")
        whole = board.send_blob(new.blob(MODEL), NEW)

    assert [reply.error for reply in (strange, absent, nonsense)] == ["BoardError", "BoardError", "ContractError"]
    assert "send the file whole" in (strange.message or "")
    assert whole.stored == new.blob(MODEL)


def test_a_base_that_rotted_is_found_out_by_the_digest(
    home: Home, releases: tuple[MadeBundle, MadeBundle, MadeBundle]
) -> None:
    _older, old, new = releases
    rotten = Store(home).blob(old.blob(MODEL))
    rotten.write_bytes(b"x" + OLD[1:])
    with Session(home) as board:
        board.hello()
        _missing(board, new)
        refused = _difference(board, new, old.blob(MODEL))
        again = board.send_blob(new.blob(MODEL), NEW)

    assert refused.error == "VerificationError"
    assert again.stored == new.blob(MODEL)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": None}, "go together"),
        ({"pieces": None}, "go together"),
        ({"pieces": (Piece(at=0, base_at=0, size=len(NEW) + 1),)}, "pieces[0]"),
    ],
)
def test_a_difference_without_sense_is_refused_and_the_session_goes_on(
    home: Home, releases: tuple[MadeBundle, MadeBundle, MadeBundle], changes: dict[str, object], words: str
) -> None:
    import dataclasses

    _older, old, new = releases
    request = Request(verb="blob", sha256=new.blob(MODEL), size=len(NEW), offset=0, base=old.blob(MODEL), pieces=WHOLE)
    with Session(home) as board:
        board.hello()
        _missing(board, new)
        board.send(to_line(dataclasses.replace(request, **changes)))  # type: ignore[arg-type]  # wrong on purpose
        for chunk in chunks(zlib.compress(b"whatever")):
            board.send(chunk)
        refused = board.reply()
        whole = board.send_blob(new.blob(MODEL), NEW)

    assert refused.error == "ContractError"
    assert words in (refused.message or "")
    assert whole.stored == new.blob(MODEL)
