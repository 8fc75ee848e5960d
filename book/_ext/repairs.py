"""Mend in every page what the theme and its companions get wrong."""

from __future__ import annotations

from typing import Any

from docutils.nodes import document
from sphinx.application import Sphinx


def repair(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: document | None) -> None:
    """Repair one page before it is written.

    sphinx-thebe's scripts go: the book does not use them, and one is written twice, which is an error in the console.
    Entries of the bibliography become list items: docutils gives them the retired role doc-biblioentry inside of a
    list, which screen readers cannot count.
    """
    context["script_files"] = [script for script in context.get("script_files", []) if not _is_thebe(script)]
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def _is_thebe(script: Any) -> bool:
    return "thebe" in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', {}).get('body', '')}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("html-page-context", repair, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
