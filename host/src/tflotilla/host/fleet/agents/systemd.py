"""The systemd units of a system-wide agent. In `deploy/systemd/` lie the same texts.

What it does NOT do: install it; `bootstrap` does, on boards with root and systemd.
"""

from __future__ import annotations

from tflotilla.shared.contract import layout

UNIT = f"""\
# Written by `tflotilla board bootstrap`; changes of your own belong into `systemctl edit tflotilla-agent`.
[Unit]
Description=tflotilla agent: runs the current model bundle and reports over MQTT
Wants=network-online.target
After=network-online.target
# A board in a cupboard must come back by itself, however often the agent died.
StartLimitIntervalSec=0

[Service]
Type=exec
Environment=TFLOTILLA_HOME={layout.SYSTEM_HOME}
ExecStart={layout.SYSTEM_HOME}/{layout.LAUNCHER} run
Restart=always
RestartSec=2
# The agent ends its children itself; what is left after that is killed.
KillMode=mixed
TimeoutStopSec=20
# A model that is tried or measured may take all the memory there is: that ends its own process, not the serving one.
OOMPolicy=continue
StateDirectory=tflotilla
StateDirectoryMode=0700
UMask=0077

# Models are other people's files. Cameras, accelerators and delegates stay usable: no PrivateDevices, no
# MemoryDenyWriteExecute (delegates compile), no system call filter.
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
# Instead of ProtectClock, which before systemd 253 takes every device away.
CapabilityBoundingSet=~CAP_SYS_TIME CAP_WAKE_ALARM
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""

#: A unit of its own: the agent's is stopped meanwhile, and may not write where units lie.
UPGRADE = f"""\
# Written by `tflotilla board bootstrap`.
[Unit]
Description=tflotilla: watches a new agent until it reports, and puts the old one back if it doesn't
# Present while an upgrade is undecided: a board that went down meanwhile goes on with it.
ConditionPathExists={layout.SYSTEM_HOME}/{layout.UPGRADE_PENDING}
After={layout.SYSTEMD_UNIT} network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={layout.SYSTEM_HOME}/{layout.UPGRADER} run {layout.SYSTEM_HOME}
Restart=on-failure
RestartSec=2

[Install]
WantedBy=multi-user.target
"""
