"""Put an in-page explorer, our own small JavaScript, into a page: ``:::{explorer} KIND``.

An explorer is a numbered figure like any other: a still picture that comes to life where scripts run. ::

    :::{explorer} scrubber
    :name: fig-two-runs
    :alt: What the still picture shows.
    :data: ring-runs

    The caption, which says what to see; {numref}`fig-two-runs` refers to it.
    :::

Options that every kind has:

``:alt:`` (required)
    What the still picture shows, for readers who do not see it.
``:name:``
    The target for ``{numref}``.
``:data:``
    A JSON file of ``book/explorers``, without the ending. A kind says whether it needs one, and may make it.
``:poster:``
    The still picture, a path as in ``{figure}``. Without it the kind draws one while the book is built.

A kind may have more. What a kind is, in Python, stands in :mod:`explorer_kinds`; in the page it is
``book/explorers/KIND.js``, after parts of it in ``KIND-*.js``, and ``KIND.css`` if it needs one, over what all share in
``explorers.js`` and ``explorers.css``. Only pages that use a kind refer to these files. The data become a script beside
them, since a page opened from the disk may not fetch; ``explorers.js`` adds it when the reader comes near the figure.

Other builders, print and browsers without scripts show the still picture. Wrong use is a warning, which stops a build
with ``-W``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from explorer_kinds import KINDS, Kind

logger = logging.getLogger(__name__)

SHARED = "explorers"
FOLDER = "explorers"  # below _static, in the output


class explorer(nodes.General, nodes.Element):
    """An explorer's place in a figure; its one child is the still picture."""


class ExplorerDirective(SphinxDirective):
    """See the module."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {
        "alt": directives.unchanged,
        "data": directives.unchanged,
        "name": directives.unchanged,
        "poster": directives.unchanged,
        **{name: convert for kind in KINDS.values() for name, convert in kind.options.items()},
    }

    def run(self) -> list[nodes.Node]:
        """Return the figure, or nothing after a warning."""
        try:
            return [self._figure(self.arguments[0])]
        except ValueError as error:
            logger.warning("explorer: %s", error, location=self.get_location(), type="explorers")
            return []

    def _figure(self, name: str) -> nodes.figure:
        if name not in KINDS:
            raise ValueError(f"there is no kind {name!r}; known are {', '.join(sorted(KINDS))}")
        kind = KINDS[name]
        own = {"alt", "data", "name", "poster", *kind.options}
        if foreign := sorted(set(self.options) - own):
            raise ValueError(f"a {name} has no option {foreign[0]!r}; it has {', '.join(sorted(own))}")
        if not (self.options.get("alt") or "").strip():
            raise ValueError(f"this {name} needs the option :alt:, a sentence that says what its still picture shows")
        settings = {option: self.options[option] for option in kind.options if option in self.options}
        file, data = self._data(name, kind)
        if kind.settle is not None:
            settings = kind.settle(data, settings)
        given = self.options.get("data")
        place = explorer(kind=name, label=kind.label, settings=settings, data=given, file=str(file))
        place += self._still(name, kind, data, settings)
        for file in _files(Path(self.env.app.srcdir) / self.config.explorers_path, name):
            self.env.note_dependency(str(file))
        return self._captioned(place)

    def _data(self, name: str, kind: Kind) -> tuple[Path | None, Any]:
        """Read and check the data, so that a page never meets a wrong file; return its path as well."""
        wanted = self.options.get("data")
        if "data" in self.options and kind.check is None:
            raise ValueError(f"a {name} takes no :data:")
        if not wanted:
            if kind.check is not None:
                raise ValueError(f"this {name} needs the option :data:, a JSON file of {self.config.explorers_path}")
            return None, None
        path = Path(self.env.app.srcdir) / self.config.explorers_path / f"{wanted}.json"
        if kind.made is not None and not path.exists():
            try:
                path, sources = kind.made(wanted, Path(self.env.doctreedir) / FOLDER)
                for source in sources:
                    self.env.note_dependency(str(source))
            except ValueError as error:
                raise ValueError(f"the data {wanted!r} would be {path}, there is no such file, {error}") from error
        self.env.note_dependency(str(path))
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if kind.check is not None:
                kind.check(data)
        except OSError as error:
            raise ValueError(f"the data {wanted!r} would be {path}, and there is no such file") from error
        except (ValueError, KeyError, TypeError) as error:
            what = error if isinstance(error, ValueError) else repr(error)
            raise ValueError(f"{path} does not hold what a {name} shows: {what}") from error
        return path, data

    def _still(self, name: str, kind: Kind, data: Any, settings: dict[str, Any]) -> nodes.image:
        """The still picture: the poster, or else what the kind draws."""
        image = nodes.image(alt=self.options["alt"], classes=["explorer-still", "no-scaled-link"])
        if "poster" in self.options:
            image["uri"] = directives.uri(self.options["poster"] or "")
            return image
        if kind.still is None:
            raise ValueError(f"this {name} needs the option :poster:, a still picture")
        # Drawing takes a second: a picture is kept as long as the data, the settings and the kinds' own code stay.
        source = Path(kind.still.__code__.co_filename).read_bytes()
        key = hashlib.sha256(json.dumps([data, settings], sort_keys=True).encode() + source).hexdigest()[:16]
        path = Path(self.env.doctreedir) / FOLDER / f"{name}-{key}.png"
        width = path.with_suffix(".width")
        if not width.exists():
            # As a notebook stores a figure: sharper than the screen, in few bytes, with its size in CSS pixels.
            drawn, sizes = kind.still(data, settings)._repr_mimebundle_()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(drawn["image/png"]))
            width.write_text(f"{sizes['image/png']['width']}px", encoding="ascii")
        image["uri"] = "/" + Path(os.path.relpath(path, self.env.srcdir)).as_posix()
        image["width"] = width.read_text(encoding="ascii")
        return image

    def _captioned(self, place: explorer) -> nodes.figure:
        """A figure round the explorer; the directive's body is the caption, and a legend if it goes on."""
        figure = nodes.figure("", place, classes=["explorer-figure"])
        self.set_source_info(figure)
        body = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, body)
        paragraphs = list(body.children)
        if not paragraphs or not isinstance(paragraphs[0], nodes.paragraph):
            raise ValueError("the body must begin with a paragraph, which is the caption and says what to see")
        first = paragraphs[0]
        caption = nodes.caption(first.rawsource, "", *first.children)
        caption.source, caption.line = first.source, first.line
        figure += caption
        if paragraphs[1:]:
            figure += nodes.legend("", *paragraphs[1:])
        self.add_name(figure)
        return figure


def _files(folder: Path, *kinds: str) -> list[Path]:
    """Return the scripts and style sheets that explorers need, what all share first; KIND-*.js come before KIND.js."""
    files: list[Path] = []
    parts = sorted({part for kind in kinds for part in KINDS[kind].parts})
    for ending in ("js", "css"):
        for stem in (SHARED, *parts, *kinds):
            files += [*sorted(folder.glob(f"{stem}-*.{ending}")), folder / f"{stem}.{ending}"]
    return [file for file in files if file.exists()]


def visit_html(self: HTML5Translator, node: explorer) -> None:
    """Open the element that `explorers.js` brings to life; the still picture stands inside."""
    attributes = {"data-kind": node["kind"], "data-label": node["label"]}
    if node["settings"]:
        attributes["data-settings"] = json.dumps(node["settings"], sort_keys=True)
    if node["data"]:
        digest = hashlib.sha256(Path(node["file"]).read_bytes()).hexdigest()[:8]
        attributes |= {"data-data": node["data"], "data-version": digest}
    self.body.append(self.starttag(node, "div", CLASS="explorer", **attributes))


def depart_html(self: HTML5Translator, node: explorer) -> None:
    """Close it, with a word to those who switched scripts off."""
    note = "With scripts switched on, this figure is interactive."
    self.body.append(f'<noscript><p class="explorer-note">{note}</p></noscript></div>\n')


def _pass(self: nodes.NodeVisitor, node: explorer) -> None:
    """Other builders show the child: the still picture."""


def add_assets(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Copy what the explorers of one page need into the output, and let this page alone load it."""
    places = list(doctree.findall(explorer)) if doctree is not None else []
    if not places:
        return
    kinds = sorted({place["kind"] for place in places})
    target = Path(app.outdir) / "_static" / FOLDER
    for file in _files(Path(app.srcdir) / app.config.explorers_path, *kinds):
        text = file.read_text(encoding="utf-8")
        _write(target / file.name, _without_comments(text) if file.suffix == ".js" else text)
        if file.suffix == ".js":
            app.add_js_file(f"{FOLDER}/{file.name}", loading_method="defer")
        else:
            app.add_css_file(f"{FOLDER}/{file.name}")
    for name, file in sorted({(place["data"], place["file"]) for place in places if place["data"]}):
        compact = json.dumps(json.loads(Path(file).read_text(encoding="utf-8")), separators=(",", ":"))
        _write(target / f"{name}.data.js", f"explorers.receive({json.dumps(name)},{compact});\n")


def _without_comments(script: str) -> str:
    """A script without the lines that are nothing but comments, and without indentation: a quarter less to load."""
    script = re.sub(r"^[ \t]*/\*\*?.*?\*/[ \t]*\n", "", script, flags=re.DOTALL | re.MULTILINE)
    lines = (line.strip() for line in script.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("//"))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_config_value("explorers_path", "explorers", "env")
    others: Sequence[str] = ("latex", "text", "man", "texinfo", "gettext")
    app.add_node(explorer, html=(visit_html, depart_html), **dict.fromkeys(others, (_pass, _pass)))
    app.add_directive("explorer", ExplorerDirective)
    app.connect("html-page-context", add_assets)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
