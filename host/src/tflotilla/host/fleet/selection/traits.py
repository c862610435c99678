"""What can be asked of a board besides its labels, from what it said about itself last. Pure.

    arch     aarch64                        model    Raspberry Pi 4 Model B Rev 1.4, or a part: *4*
    python   3.11.2, or 3.11                os       Debian GNU/Linux 12 (bookworm), or a word of it: debian, bookworm
    runtime  ai-edge-litert, or ai-edge-litert==2.3.0
    agent    0.2.0, or 0.2                  bundle   digits, digits-1.0.0, or the digest's beginning

`*`, `?` and `[…]` stand for anything; upper and lower case are the same. A board that was never asked matches nothing.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tflotilla.host.fleet.inventory.contacts import Known

KEYS = ("arch", "model", "python", "runtime", "agent", "bundle", "os")
#: Of these a beginning up to a dot will do: 3.11 is 3.11.2.
_VERSIONS = frozenset({"python", "agent"})
#: Shorter beginnings of a digest would match by accident.
_SHORTEST_DIGEST = 6


def matches(known: Known, key: str, pattern: str) -> bool:
    """Whether a board is what is asked for; `key` is one of KEYS."""
    wanted = pattern.lower()
    for value in values(known, key):
        have = value.lower()
        if have == wanted or fnmatch.fnmatchcase(have, wanted):
            return True
        if key in _VERSIONS and have.startswith(f"{wanted}."):
            return True
    digest = known.contact.serving.digest if key == "bundle" and known.contact.serving is not None else ""
    return len(wanted) >= _SHORTEST_DIGEST and digest.startswith(wanted)


def values(known: Known, key: str) -> tuple[str, ...]:
    """Return what a board may be called for a key; nothing where nothing is known."""
    facts, contact = known.facts, known.contact
    if key == "agent":
        return () if contact.agent is None else (contact.agent,)
    if key == "bundle":
        serving = contact.serving
        return () if serving is None else (f"{serving.name}-{serving.version}", serving.name)
    if facts is None:
        return ()
    if key == "runtime":
        return tuple(text for offer in facts.runtimes for text in (str(offer), offer.name))
    words = facts.distribution or ""
    said = {
        "arch": (facts.arch,),
        "python": (facts.python,),
        "model": (facts.model or "",),
        "os": (words, *re.findall(r"[^\s()]+", words)),
    }
    return tuple(filter(None, said[key]))
