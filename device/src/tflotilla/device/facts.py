"""What this board is: read from files and system calls alone, in a few milliseconds, without starting a program.

Every reader of a file takes `root`, so that a test (or a mounted image) can be looked at like a board. A fact that
can't be read is None or a plain substitute: a board must not fail to report because it is unusual.

What this module does NOT do: import a runtime (their versions come from their metadata), measure, or import numpy:
the supervisor uses it.
"""

from __future__ import annotations

import os
import pwd
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.shared.contract.board import BoardFacts, RuntimeOffer
from tflotilla.shared.inference.runtime import ADAPTERS

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path("/")
_POINTER_BYTES_64 = 8
#: A 64-bit kernel reports its own name even to a 32-bit system, which is Raspberry Pi OS's default pairing.
_ARCH_OF_32_BITS = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}
_PLAUSIBLE_C = (-40.0, 150.0)
#: What zones of the processor are called on Raspberry Pi, Rockchip, NXP and x86; the first match wins.
_SOC_ZONES = ("cpu", "soc", "x86_pkg_temp", "package")


def read(home: Path, *, root: Path = ROOT, clock: Callable[[], float] = time.time) -> BoardFacts:
    """Describe this board; `home` is where bundles will lie, for the free space there (0 when it doesn't exist)."""
    system = os.uname()
    return BoardFacts(
        time=clock(),
        hostname=system.nodename,
        model=machine_model(root),
        arch=arch(),
        kernel=system.release,
        libc=libc(root),
        python=".".join(str(part) for part in sys.version_info[:3]),
        cores=cores(),
        ram_bytes=ram_bytes(root),
        disk_free_bytes=disk_free_bytes(home),
        distribution=distribution(root),
        systemd=(root / "run/systemd/system").is_dir(),
        user=user(),
        runtimes=runtimes(),
    )


def machine_model(root: Path = ROOT) -> str | None:
    """Return what the device tree calls this machine (`Raspberry Pi 4 Model B Rev 1.4`), None without one."""
    text = _text(root / "proc/device-tree/model")
    return text.replace("\0", "").strip() or None if text is not None else None


def cores() -> int:
    """Return how many processors this process may run on."""
    return len(os.sched_getaffinity(0))


def processors() -> tuple[int, ...]:
    """Return the kernel's numbers of the processors this process may run on, in order."""
    return tuple(sorted(os.sched_getaffinity(0)))


def kernel() -> str:
    """Return the kernel's release (`6.6.31+rpt-rpi-v8`)."""
    return os.uname().release


def arch() -> str:
    """Return the architecture of this Python, which decides which wheels fit; not always the kernel's."""
    machine = os.uname().machine
    if struct.calcsize("P") < _POINTER_BYTES_64:
        return _ARCH_OF_32_BITS.get(machine, machine)
    return machine


def libc(root: Path = ROOT) -> str | None:
    """Return `glibc 2.36`, `musl`, or None when it can't be told."""
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        name = None
    if name:
        return name
    return "musl" if any((root / "lib").glob("ld-musl-*.so.1")) else None


def ram_bytes(root: Path = ROOT) -> int:
    """Return the memory of this board in bytes; 0 when it can't be told."""
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def disk_free_bytes(folder: Path) -> int:
    """Return the bytes an unprivileged user may still write where `folder` lies, or will lie."""
    for existing in (folder, *folder.parents):
        try:
            room = os.statvfs(existing)
        except OSError:
            continue
        return room.f_bavail * room.f_frsize
    return 0


def distribution(root: Path = ROOT) -> str | None:
    """Return the distribution as it calls itself (`Debian GNU/Linux 12 (bookworm)`)."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        for line in (_text(root / name) or "").splitlines():
            key, _, value = line.partition("=")
            if key == "PRETTY_NAME":
                return value.strip().strip("\"'") or None
    return None


def user() -> str:
    """Return the name of the user this process runs as; the number when it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def runtimes() -> tuple[RuntimeOffer, ...]:
    """Return the runtimes installed for this Python, in the order of `ADAPTERS`, importing none of them."""
    found = (offer(name) for name in ADAPTERS)
    return tuple(runtime for runtime in found if runtime is not None)


def offer(name: str) -> RuntimeOffer | None:
    """Return one runtime by its PyPI name, None when it isn't installed.

    Read from the folders that its packages left, as importlib.metadata reads them (PEP 376): importing that would take
    a session longer than everything else that it does before it answers.
    """
    wanted = name.replace("-", "_")
    for folder in sys.path:
        try:
            with os.scandir(folder or ".") as entries:
                found = [entry.path for entry in entries if _is_of(entry.name, wanted)]
        except OSError:
            continue
        if found:
            path = Path(found[0])
            # The folder's name has the version as well, with characters replaced.
            return RuntimeOffer(name=name, version=_said_version(path) or path.stem.split("-")[1])
    return None


def _is_of(entry: str, package: str) -> bool:
    stem, _, kind = entry.rpartition(".")
    title, dash, _version = stem.partition("-")
    return kind in ("dist-info", "egg-info") and bool(dash) and title.lower().replace(".", "_") == package


def _said_version(facts: Path) -> str | None:
    for name in ("METADATA", "PKG-INFO"):
        for line in (_text(facts / name) or "").splitlines():
            if line.startswith("Version:"):
                return line.partition(":")[2].strip()
            if not line:
                break
    return None


def thermal_zones(root: Path = ROOT) -> tuple[Path, ...]:
    """Return the folders of the thermal zones, the processor's first; which is looked up once and read often."""
    try:
        zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    except OSError:
        return ()
    ranked = []
    for zone in zones:
        kind = (_text(zone / "type") or "").strip().lower()
        rank = next((i for i, word in enumerate(_SOC_ZONES) if word in kind), len(_SOC_ZONES))
        ranked.append((rank, zone.name, zone))
    return tuple(zone for _, _, zone in sorted(ranked))


def zone_celsius(zone: Path) -> float | None:
    """Return one zone's temperature in degrees Celsius, None when it tells none that can be true."""
    try:
        celsius = int(_text(zone / "temp") or "") / 1000
    except (ValueError, OverflowError):
        return None
    return celsius if _PLAUSIBLE_C[0] <= celsius <= _PLAUSIBLE_C[1] else None


def temperature_c(root: Path = ROOT) -> float | None:
    """Return the processor's temperature in degrees Celsius, None on machines without a sensor."""
    readings = (zone_celsius(zone) for zone in thermal_zones(root))
    return next((celsius for celsius in readings if celsius is not None), None)


def rss_bytes() -> int:
    """Return this process's resident memory in bytes."""
    with Path("/proc/self/statm").open("rb") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_rss_bytes() -> int:
    """Return the most this process ever had resident, in bytes (VmHWM: unlike ru_maxrss it is not inherited)."""
    for line in (_text(Path("/proc/self/status")) or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return rss_bytes()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
