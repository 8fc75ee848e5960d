"""Show the repository and Colab buttons if, and only if, ``repository.url`` in ``_config.yml`` is set."""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.config import Config


def add_buttons(app: Sphinx, config: Config) -> None:
    """Switch the theme's buttons on; without an address they would lead nowhere."""
    options = config.html_theme_options
    if options.get("repository_url"):
        options["use_repository_button"] = True
        options["use_issues_button"] = True
        options.setdefault("launch_buttons", {})["colab_url"] = "https://colab.research.google.com"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("config-inited", add_buttons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
