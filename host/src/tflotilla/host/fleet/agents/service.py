"""How the agent is started, kept over reboots, and taken away again: shell scripts as data, for `sh -c` on the board.

With root and systemd it is a unit; elsewhere the agent's own guard keeps it alive and an `@reboot` line of cron brings
it back, where there is a cron. What it does NOT do: run them.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tflotilla.shared.contract import layout

if TYPE_CHECKING:
    from tflotilla.host.fleet.inventory.fleet import Install

_UNIT_PATH = f"/etc/systemd/system/{layout.SYSTEMD_UNIT}"
_UPGRADE_UNIT_PATH = f"/etc/systemd/system/{layout.UPGRADE_UNIT}"
#: Ends our line of the crontab, so that it is found again.
_CRON_MARK = "# tflotilla-agent"


def start(home: str, *, by_systemd: bool, restart: bool, stale: str, timeout_s: float) -> str:
    """Return the script that has the agent running afterwards; with `restart`, one that started now.

    `timeout_s` is how long the agent may take to answer; `stale` is the marker file that is removed once that is done.
    """
    agent = shlex.quote(f"{home}/{layout.LAUNCHER}")
    if by_systemd:
        steps = [
            *(["systemctl daemon-reload"] if restart else []),
            f"systemctl enable --quiet {layout.SYSTEMD_UNIT}",
            f"systemctl {'restart' if restart else 'start'} {layout.SYSTEMD_UNIT}",
        ]
    else:
        steps = [
            *([f"{agent} stop >/dev/null"] if restart else []),
            f"{agent} start --timeout {timeout_s:g} >/dev/null",
            f"{{ {_cron(home)}; }}",
        ]
    return " && ".join([*steps, f"rm -f {shlex.quote(f'{home}/{stale}')}"])


def purge(install: Install) -> str:
    """Return the script that stops the agent and removes everything it had on the board."""
    homes = {
        "user": f'"$HOME"/{layout.USER_HOME}',
        "system": layout.SYSTEM_HOME,
        "auto": f'{layout.SYSTEM_HOME} "$HOME"/{layout.USER_HOME}',
    }[install]
    return f"""\
for h in {homes}; do
    [ -e "$h/{layout.LAUNCHER}" ] || [ -d "$h/{layout.ENVIRONMENTS}" ] || continue
    # What would bring an agent back goes first.
    rm -f "$h/{layout.UPGRADE_PENDING}"
    if p=$(cat "$h/{layout.UPGRADE}/pid" 2>/dev/null) && grep -qa tflotilla "/proc/$p/cmdline" 2>/dev/null; then
        kill -9 "-$p"
    fi
    if [ "$h" = {layout.SYSTEM_HOME} ] && [ -e {_UPGRADE_UNIT_PATH} ]; then
        systemctl disable --now --quiet {layout.UPGRADE_UNIT}
        rm -f {_UPGRADE_UNIT_PATH}
    fi
    if [ "$h" = {layout.SYSTEM_HOME} ] && [ -e {_UNIT_PATH} ]; then
        systemctl disable --now --quiet {layout.SYSTEMD_UNIT}
        rm -f {_UNIT_PATH} && systemctl daemon-reload
    fi
    if [ -x "$h/{layout.LAUNCHER}" ] && ! "$h/{layout.LAUNCHER}" stop >/dev/null 2>&1; then
        # Its environment is broken, or it hangs. The agent dies with its guard, and the worker with the agent.
        for f in {layout.GUARD_PID} {layout.PID}; do
            p=$(cat "$h/$f" 2>/dev/null) && grep -qa tflotilla "/proc/$p/cmdline" 2>/dev/null && kill -9 "$p"
        done
    fi
    rm -rf "$h" || exit 1
done
if {_OUR_CRON} && crontab -l 2>/dev/null | grep -qF {shlex.quote(_CRON_MARK)}; then
    crontab -l | grep -vF {shlex.quote(_CRON_MARK)} | crontab -
fi
"""


#: A HOME that isn't the account's own (a virtual board's) must not write the account's crontab.
_OUR_CRON = 'command -v crontab >/dev/null 2>&1 && [ "$HOME" = "$(getent passwd "$(id -un)" | cut -d: -f6)" ]'


def _cron(home: str) -> str:
    # In a crontab % is a newline and a newline ends the line.
    if "%" in home or "\n" in home:
        return ":"
    line = shlex.quote(f"@reboot {shlex.quote(f'{home}/{layout.LAUNCHER}')} start >/dev/null 2>&1 {_CRON_MARK}")
    others = f"crontab -l 2>/dev/null | grep -vF {shlex.quote(_CRON_MARK)}"
    return (
        f"if {_OUR_CRON} && ! crontab -l 2>/dev/null | grep -qxF {line}; "
        f"then {{ {others}; printf '%s\\n' {line}; }} | crontab - || :; fi"
    )
