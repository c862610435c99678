"""Where things lie on a board, relative to its home (`/var/lib/tflotilla` or `~/.local/share/tflotilla`).

Host (bootstrap) and device (agent) must agree on these names, so they stand here.
"""

from __future__ import annotations

SYSTEM_HOME = "/var/lib/tflotilla"
USER_HOME = ".local/share/tflotilla"

STORE = "store/sha256"
INCOMING = "incoming"
BUNDLES = "bundles"
CURRENT = "current"
PREVIOUS = "previous"
ENVIRONMENTS = "environments"
#: Symbolic link to the environment in use.
ENVIRONMENT = "environment"
JOURNAL = "journal.json"
OUTBOX = "outbox.db"
#: The benchmark that is going on, and what it found so far: a line of JSON for each thing that happened.
BENCHMARK = "benchmark.jsonl"
#: Samples of a benchmark, by their digest, until it is over.
SAMPLES = "samples"
CONFIG = "agent.toml"
ALLOWED_SIGNERS = "allowed_signers"
MQTT_PASSWORD = "mqtt-password"  # noqa: S105 - the name of a file
#: The supervisor's control socket.
SOCKET = "agent.sock"
PID = "agent.pid"
GUARD_PID = "guard.pid"
LOG = "agent.log"
#: `sh` script that runs the agent of the environment in use with the board's python3.
LAUNCHER = "bin/tflotilla-agent"
SYSTEMD_UNIT = "tflotilla-agent.service"
#: An agent that is being changed for another: what, how far, and the files of both.
UPGRADE = "upgrade"
#: Present from when the change begins until it is decided.
UPGRADE_PENDING = "upgrade/pending"
#: Carries it out, and changes nothing of itself by that.
UPGRADER = "bin/tflotilla-upgrade"
UPGRADE_UNIT = "tflotilla-upgrade.service"
#: AF_UNIX paths are limited to 108 bytes; below it the socket lies in the home.
SOCKET_PATH_LIMIT = 100
