# ruff: noqa: ANN001, ANN201, BLE001, D103, PLR2004, S110, SIM115, T201
# ruff: noqa: PTH111, PTH112, PTH113, PTH118, PTH120, PTH123, PTH208
# mypy: ignore-errors
"""Print what this board is, as one marked line of JSON.

This file is read by whatever `python3` is on the board, were it 2.6: no annotations, no f-strings, no pathlib, no with
for two things. The linter's newer ways are switched off for it, each of them would break that promise.
"""

import json
import os
import platform
import struct
import subprocess
import sys
import time

MARK = "TFLOTILLA-FACTS "
NEWER = ("3.10", "3.11", "3.12", "3.13", "3.14")


def text(path):
    try:
        stream = open(path, "rb")
        try:
            return stream.read().decode("utf-8", "replace").replace("\0", "").strip()
        finally:
            stream.close()
    except Exception:
        return None


def after(path, key, separator):
    for line in (text(path) or "").splitlines():
        head, found, tail = line.partition(separator)
        if found and head.strip() == key:
            return tail.strip().strip("\"'") or None
    return None


def libc():
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION")
        if name:
            return name
    except Exception:
        pass
    try:
        if [name for name in os.listdir("/lib") if name.startswith("ld-musl-")]:
            return "musl"
    except Exception:
        pass
    return None


def arch():
    machine = platform.machine()
    # A 64-bit kernel under a 32-bit system, Raspberry Pi OS's default pairing: the Python decides which wheels fit.
    if struct.calcsize("P") < 8:
        return {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(machine, machine)
    return machine


def free(folder):
    while True:
        try:
            room = os.statvfs(folder)
            return room.f_bavail * room.f_frsize
        except Exception:
            if folder in ("", "/"):
                return 0
            folder = os.path.dirname(folder)


def has(package):
    # The version of a package of the system's own: without what lies in this folder or was installed by one user, and
    # in a process of its own, because a broken one may crash.
    script = "import " + package + " as p; print(p.__version__)"
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
        )
        lines = child.communicate()[0].decode("utf-8", "replace").strip().splitlines()
        said = lines[-1].strip()[:200] if lines else ""
        if child.returncode == 0:
            return {"version": said}
        absent = said.startswith("ModuleNotFoundError: No module named") and said.endswith("'" + package + "'")
        return {"version": None, "problem": None if absent else said or "status " + str(child.returncode)}
    except Exception:
        return {"version": None, "problem": str(sys.exc_info()[1])[:200]}


def find(program):
    for folder in os.environ.get("PATH", "").split(":"):
        path = os.path.join(folder, program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def user():
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except Exception:
        return str(os.geteuid())


def cores():
    try:
        return len(os.sched_getaffinity(0))
    except Exception:
        return os.sysconf("SC_NPROCESSORS_ONLN")


def main():
    home = os.environ.get("HOME") or os.path.expanduser("~")
    memory = (after("/proc/meminfo", "MemTotal", ":") or "0 kB").split()[0]
    facts = {
        "time": time.time(),
        "hostname": platform.node(),
        "model": text("/proc/device-tree/model") or None,
        "arch": arch(),
        "kernel": platform.release(),
        "libc": libc(),
        "python": ".".join([str(part) for part in sys.version_info[:3]]),
        "cores": cores(),
        "ram_bytes": int(memory) * 1024,
        "disk_free_bytes": free(home),
        "distribution": after("/etc/os-release", "PRETTY_NAME", "="),
        "systemd": os.path.isdir("/run/systemd/system"),
        "user": user(),
    }
    ground = {
        "facts": facts,
        "home": home,
        "root": os.geteuid() == 0,
        "executable": sys.executable,
        "ssh_keygen": find("ssh-keygen") is not None,
        "newer": [path for path in [find("python" + version) for version in NEWER] if path],
        "system_disk_free_bytes": free("/var/lib"),
    }
    if struct.calcsize("P") < 8:
        # There are no wheels of these two for 32 bit: the board's own are used.
        ground["hard_float"] = os.path.isfile("/lib/ld-linux-armhf.so.3")
        ground["numpy"] = has("numpy")
        ground["pillow"] = has("PIL")
    print(MARK + json.dumps(ground))


main()
