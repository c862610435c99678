# ruff: noqa: PTH102, PTH103, PTH104, PTH105, PTH108, PTH110, PTH112, PTH115, PTH118, PTH119, PTH120, PTH123
# ruff: noqa: PTH113, PTH114, PTH202, PTH208, PTH211 - it travels with every bootstrap: os and no pathlib
"""Take an environment and the agent's files from the host, on a board that has nothing but Python 3.10.

Spoken on stdin and stdout, JSON lines both ways, bytes where said:

    host    plan: home, layers, files                      what the board shall have
    board   layers: have, offset; files: the ones that differ
    host    per layer that the board hasn't: its archive's bytes from the offset on
    board   per such layer: stored
    host    per file that differs: its bytes
    board   changed; stale: the agent was not restarted since a change; upgrade: staged under this id; ends

A board without an agent has its files put in place at once. Where there is one, they are staged, and `upgrade` changes
the one for the other; while that goes on nothing is received, and the board's first answer is its `upgrade` instead.

Rules it keeps: an environment is visible only whole, verified against its digest and synced; an archive that broke off
goes on where it broke; nothing is written outside of the home but the systemd units, at their places; a member of an
archive is a regular file with a plain relative name, or the archive is refused. It never runs what it received.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tarfile
from typing import Any, NoReturn

#: Name in the plan → path below the home. `unit` alone lies elsewhere.
FILES = {
    "launcher": "bin/tflotilla-agent",
    "agent.toml": "agent.toml",
    "allowed_signers": "allowed_signers",
    "mqtt-password": "mqtt-password",
    "mqtt-ca.pem": "mqtt-ca.pem",
    "upgrade": "bin/tflotilla-upgrade",
    "upgrade.py": "bin/tflotilla-upgrade.py",
}
UNITS = {
    "unit": "/etc/systemd/system/tflotilla-agent.service",
    "upgrade-unit": "/etc/systemd/system/tflotilla-upgrade.service",
}
#: They carry an upgrade out and are no part of it: put in place at once, and nothing is restarted for them.
TOOLS = ("upgrade", "upgrade.py", "upgrade-unit")
#: Kept aside once before it is overwritten, because people edit it.
EDITED = "agent.toml"
#: Taken away when the plan has them no more.
OPTIONAL = ("mqtt-password", "mqtt-ca.pem")
PACKAGES = "packages"
SPARE_BYTES = 16 << 20
PIECE = 1 << 18
PART = re.compile(r"[A-Za-z0-9_+,@=~.-]{1,200}")
DIGEST = re.compile(r"[0-9a-f]{64}")


class Refusal(Exception):  # noqa: N818 - what the host is told, by the name of its own error
    """An error for the host: the name of its class and one line."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _say(**frame: Any) -> None:  # noqa: ANN401 - JSON
    sys.stdout.buffer.write(json.dumps(frame).encode() + b"\n")
    sys.stdout.buffer.flush()


def _take(size: int) -> bytes:
    data = sys.stdin.buffer.read(size)
    if len(data) != size:
        # The line broke. What was written stays, for the next time.
        sys.exit(3)
    return data


def _sync_folder(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _free_bytes(path: str) -> int:
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def _no_space(home: str, needed: int) -> NoReturn:
    free = _free_bytes(home)
    message = f"no space in {home}: {needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free"
    raise Refusal("BoardError", message)


def _refuse_damaged(what: str) -> NoReturn:
    message = f"{what} arrived damaged; try again"
    raise Refusal("VerificationError", message)


def _file_digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _write_whole(path: str, data: bytes, mode: int) -> None:
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            os.fchmod(stream.fileno(), mode)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(os.path.dirname(path))


def _checked(name: str) -> str:
    parts = name.split("/")
    if len(name) > 400 or not all(PART.fullmatch(part) and part not in (".", "..") for part in parts):  # noqa: PLR2004
        message = f"the environment holds {name[:80]!r}, which is no plain file name"
        raise Refusal("VerificationError", message)
    return name


def _unpack(archive: str, folder: str, packages: str | None) -> str:
    """Write the archive's files below `folder`; return the digest of what was written."""
    listing = []
    folders = {folder}
    with tarfile.open(archive, "r|gz") as members:
        for member in members:
            name = _checked(member.name)
            source = members.extractfile(member) if member.isreg() else None
            if source is None:
                message = f"the environment holds {name!r}, which is no regular file"
                raise Refusal("VerificationError", message)
            path = os.path.join(folder, name)
            parent = os.path.dirname(path)
            if parent not in folders:
                os.makedirs(parent, mode=0o755, exist_ok=True)
                folders.add(parent)
            mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
            digest = hashlib.sha256()
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
            with os.fdopen(handle, "wb") as target:
                while piece := source.read(PIECE):
                    digest.update(piece)
                    target.write(piece)
                os.fchmod(target.fileno(), mode)
            listing.append(f"{mode:o} {digest.hexdigest()} {name}\n")
    if packages is not None:
        os.symlink(f"../{packages}", os.path.join(folder, PACKAGES))
        listing.append(f"link {packages} {PACKAGES}\n")
    # One for all: a thousand fsyncs take minutes on an SD card.
    os.sync()
    return hashlib.sha256("".join(sorted(listing)).encode()).hexdigest()


def _receive_layer(home: str, layer: dict[str, Any], part: str, offset: int) -> None:
    digest = layer["digest"]
    needed = layer["size"] - offset + layer["unpacked"] + SPARE_BYTES
    if _free_bytes(home) < needed:
        _no_space(home, needed)
    temporary = os.path.join(home, "environments", f".new-{digest}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        remaining = layer["size"] - offset
        with open(part, "ab") as target:
            target.truncate(offset)
            while remaining:
                piece = _take(min(PIECE, remaining))
                target.write(piece)
                target.flush()
                remaining -= len(piece)
        damaged = _file_digest(part) != layer["sha256"]
        if not damaged:
            os.mkdir(temporary, 0o755)
            damaged = _unpack(part, temporary, layer["packages"]) != digest
        if damaged:
            os.unlink(part)
            _refuse_damaged("the environment")
        os.rename(temporary, os.path.join(home, "environments", digest))
        _sync_folder(os.path.join(home, "environments"))
        os.unlink(part)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(part)
        _no_space(home, needed)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _target_of(home: str, name: str) -> str:
    return UNITS[name] if name in UNITS else os.path.join(home, FILES[name])


def _differs(path: str, file: dict[str, Any]) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return True
    if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != file["mode"]:
        return True
    return bool(status.st_size != file["size"] or _file_digest(path) != file["sha256"])


def _link_environment(home: str, digest: str) -> None:
    link = os.path.join(home, "environment")
    wanted = f"environments/{digest}"
    temporary = f"{link}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(wanted, temporary)
    os.replace(temporary, link)
    _sync_folder(home)


def _forget_others(home: str, kept: set[str]) -> None:
    """Remove environments that nothing uses; the one before this stays, a running agent may be in it."""
    folder = os.path.join(home, "environments")
    for name in os.listdir(folder):
        if name not in kept and (DIGEST.fullmatch(name) or name.startswith(".new-")):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def _in_use(home: str) -> set[str]:
    used = set()
    with contextlib.suppress(OSError):
        name = os.path.basename(os.readlink(os.path.join(home, "environment")))
        used.add(name)
        link = os.path.join(home, "environments", name, PACKAGES)
        used.add(os.path.basename(os.readlink(link)))
    return used


def _before(home: str) -> str | None:
    """Return what the link to the environment in use reads, None where no agent could start from it."""
    try:
        linked = os.readlink(os.path.join(home, "environment"))
    except OSError:
        return None
    folder = os.path.join(home, "environments", os.path.basename(linked))
    whole = os.path.isdir(os.path.join(folder, PACKAGES)) and os.path.isfile(_target_of(home, "launcher"))
    return linked if whole else None


def _upgrade(home: str, wanted: str) -> dict[str, Any] | None:
    """Return the upgrade that is going on, or the end of the one that is asked for."""
    try:
        with open(os.path.join(home, "upgrade", "plan.json"), "rb") as stream:
            plan = json.loads(stream.read())
        state, name = plan["state"], plan["id"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    begun = os.path.exists(os.path.join(home, "upgrade", "pending"))
    if begun or state in ("switching", "watching", "undoing") or (state == "undone" and name == wanted):
        return {key: plan.get(key) for key in ("id", "state", "reason", "old_runs", "window_s")}
    return None


def _stage(
    home: str, plan: dict[str, Any], before: str, contents: list[tuple[dict[str, Any], bytes]], removed: list[str]
) -> None:
    """Lay beside the agent what it is to be changed for, and what it is now."""
    folder = os.path.join(home, "upgrade")
    for name in ("new", "before"):
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
        os.makedirs(os.path.join(folder, name), mode=0o700)
    files = []
    for file, data in contents:
        _write_whole(os.path.join(folder, "new", file["name"]), data, 0o600)
        files.append({"name": file["name"], "mode": file["mode"], "keep": file["name"] == EDITED})
    gone = [{"name": name} for name in removed]
    for each in [*files, *gone]:
        path = _target_of(home, each["name"])
        each.update(path=path, before=None)
        if os.path.isfile(path) and not os.path.islink(path):
            with open(path, "rb") as stream:
                _write_whole(os.path.join(folder, "before", each["name"]), stream.read(), 0o600)
            each["before"] = stat.S_IMODE(os.lstat(path).st_mode)
    document = {
        "id": plan["upgrade"],
        "state": "staged",
        "window_s": plan["window_s"],
        "systemd": plan["systemd"],
        "environment": {"before": before, "after": f"environments/{plan['layers'][-1]['digest']}"},
        "files": files,
        "removed": gone,
    }
    _write_whole(os.path.join(folder, "plan.json"), json.dumps(document).encode(), 0o600)


def _put_in_place(
    home: str, plan: dict[str, Any], contents: list[tuple[dict[str, Any], bytes]], removed: list[str]
) -> None:
    for file, data in contents:
        path = _target_of(home, file["name"])
        if file["name"] == EDITED and os.path.exists(path):
            os.replace(path, f"{path}.before")
        _write_whole(path, data, file["mode"])
    for name in removed:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_target_of(home, name))
    _link_environment(home, plan["layers"][-1]["digest"])


def _serve(home: str, plan: dict[str, Any]) -> None:
    os.umask(0o022)
    for folder in (home, f"{home}/incoming", f"{home}/environments", f"{home}/bin", f"{home}/upgrade"):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    lock = os.open(os.path.join(home, "incoming", "bootstrap.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    locked = True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        locked = False
    upgrade = _upgrade(home, plan["upgrade"])
    if upgrade is not None:
        _say(upgrade=upgrade)
        return
    if not locked:
        message = "another bootstrap of this board is going on"
        raise Refusal("ConflictError", message)
    before = _before(home)
    layers = []
    for layer in plan["layers"]:
        if not DIGEST.fullmatch(layer["digest"]) or not DIGEST.fullmatch(layer["sha256"]):
            message = "the plan names an environment by no digest"
            raise Refusal("ContractError", message)
        part = os.path.join(home, "incoming", f"environment-{layer['sha256']}.part")
        have = os.path.isdir(os.path.join(home, "environments", layer["digest"]))
        offset = min(os.path.getsize(part), layer["size"]) if os.path.exists(part) else 0
        layers.append((layer, part, have, offset))
    wanted = [file for file in plan["files"] if _differs(_target_of(home, file["name"]), file)]
    _say(
        layers=[{"have": have, "offset": offset} for _layer, _part, have, offset in layers],
        files=[file["name"] for file in wanted],
    )
    for layer, part, have, offset in layers:
        if not have:
            _receive_layer(home, layer, part, offset)
            _say(stored=layer["digest"])
    contents = [(file, _take(file["size"])) for file in wanted]
    for file, data in contents:
        if hashlib.sha256(data).hexdigest() != file["sha256"]:
            _refuse_damaged(file["name"])
    for file, data in contents:
        if file["name"] in TOOLS:
            _write_whole(_target_of(home, file["name"]), data, file["mode"])
    contents = [(file, data) for file, data in contents if file["name"] not in TOOLS]
    planned = {file["name"] for file in plan["files"]}
    removed = [name for name in OPTIONAL if name not in planned and os.path.lexists(_target_of(home, name))]
    switched = before != f"environments/{plan['layers'][-1]['digest']}"
    changed = sorted([*(file["name"] for file, _data in contents), *removed, *(["switched"] if switched else [])])
    stale = os.path.join(home, plan["stale"])
    if switched:
        _forget_others(home, _in_use(home) | {layer["digest"] for layer in plan["layers"]})
    if changed and before is not None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(stale)
        _stage(home, plan, before, contents, removed)
        _say(changed=changed, upgrade=plan["upgrade"])
        return
    if changed:
        _write_whole(stale, b"", 0o600)
        _put_in_place(home, plan, contents, removed)
    _say(changed=changed, stale=os.path.exists(stale))


def main() -> None:
    """Serve one plan; tell errors as a last frame."""
    plan = json.loads(sys.stdin.buffer.readline())
    home = plan["home"]
    try:
        _serve(home, plan)
    except Refusal as refusal:
        _say(error=refusal.kind, message=str(refusal))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            message = f"no space in {home} ({error.strerror})"
        else:
            message = f"{error.filename or home} can't be written: {error.strerror}"
        _say(error="BoardError", message=message)


main()
