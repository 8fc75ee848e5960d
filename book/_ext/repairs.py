"""Mend what the theme and its companions get wrong, in pages and in the API reference."""

from __future__ import annotations

from pathlib import Path
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


_WHOLE_TEXT = {"attribute", "data", "property"}
_as_written: dict[str, list[str]] = {}


def keep_text(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Remember the description of an attribute before napoleon takes all up to its first colon for a type."""
    if what in _WHOLE_TEXT:
        _as_written[name] = list(lines)


def restore_text(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Put the remembered description back."""
    if what in _WHOLE_TEXT:
        lines[:] = _as_written.pop(name)


def skip_aliases(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: Any) -> bool | None:
    """Leave out "Alias for field number 0" and its like: the description of a named tuple lists its fields."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


REDIRECT = """<!doctype html>
<html lang="{language}">
<meta charset="utf-8">
<title>{title}</title>
<link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0; url={target}">
<p><a href="{target}">{title}</a></p>
</html>
"""


def complete_redirect(app: Sphinx, exception: Exception | None) -> None:
    """Make ``index.html`` a whole page: for a bare redirect browsers ask for an icon that is not there.

    The icon is empty, since a request for one would be cut off as the browser moves on.
    """
    index = Path(app.outdir) / "index.html"
    if exception is None and app.builder.format == "html" and app.config.root_doc != "index" and index.exists():
        names = {"language": app.config.language, "title": app.config.html_title or app.config.project}
        index.write_text(REDIRECT.format(**names, target=f"{app.config.root_doc}.html"), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("html-page-context", repair, priority=900)
    app.connect("autodoc-process-docstring", keep_text, priority=100)  # napoleon's own is 500
    app.connect("autodoc-process-docstring", restore_text, priority=900)
    app.connect("autodoc-skip-member", skip_aliases)
    app.connect("build-finished", complete_redirect, priority=900)  # after the redirect is written
    return {"parallel_read_safe": True, "parallel_write_safe": True}
