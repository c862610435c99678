"""Who waits for whom on a board's few cores: inference goes on, the rest runs when a core is free or its turn has come.

A worker that hands a batch over wakes its supervisor; on a core they share the kernel would let the one that wakes cut
in, and an inference pays for JSON, disk and network. A batch process still gets its share, only not that privilege.
"""

from __future__ import annotations

import contextlib
import os

from tflotilla.shared.contract.errors import BoardError


def stand_back() -> None:
    """Let this process, and threads and children it starts, never interrupt others by waking up."""
    _schedule("SCHED_BATCH")


def be_prompt() -> None:
    """Take the ordinary place again, which a child of one that stands back has lost."""
    _schedule("SCHED_OTHER")


def bind(processors: tuple[int, ...]) -> None:
    """Keep this process, and the threads it starts from now on, on these processors; empty is wherever it may run.

    Before a runtime is imported: the pools of threads that it makes inherit the place.

    Raises:
        BoardError: this board has no such processor, or the process may not run there.

    """
    if not processors:
        return
    try:
        os.sched_setaffinity(0, processors)
    except OSError as error:
        here = ", ".join(str(number) for number in sorted(os.sched_getaffinity(0)))
        asked = ", ".join(str(number) for number in processors)
        message = (
            f"inference.affinity: processor {asked} is not to be had on this board ({error.strerror}); have {here}"
        )
        raise BoardError(message) from error


def _schedule(policy: str) -> None:
    # Not everywhere to be had, and nothing depends on it: sandboxes refuse the call, other systems don't know it.
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, getattr(os, policy), os.sched_param(0))
