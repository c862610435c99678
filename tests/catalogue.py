"""Real models and labelled data that lie beside the project on machines that have them: `../shared/data`.

They are not part of the project; a test that needs them skips and says so when they are absent.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("TFLOTILLA_CATALOGUE", Path(__file__).resolve().parents[2] / "shared" / "data"))


def path(relative: str) -> Path:
    """Return the path of a catalogue file, or skip the calling test with the reason."""
    found = ROOT / relative
    if not found.exists():
        pytest.skip(f"the catalogue's {relative} is not on this machine (set TFLOTILLA_CATALOGUE)")
    return found
