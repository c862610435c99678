"""Jinja, the only door to it: templates of a folder, and beside them the style that all pages share.

Rules it keeps: every word in a page is escaped; a name that nobody gave is an error, no gap. What it does NOT do: know
what stands on a page.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

#: `page.css`, and `stack.css`, which makes cards of a table's rows where the page is at most `narrow_px` wide.
_SHARED = Path(__file__).parent / "templates"


def environment(templates: Path) -> Environment:
    """Return an environment for the templates of a folder."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, _SHARED]),
        autoescape=jinja2.select_autoescape(("html.j2",)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
