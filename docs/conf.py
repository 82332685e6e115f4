"""Sphinx settings."""

from importlib.metadata import version as version_of

project = "maskcon-loss"
author = "The maskcon-loss authors"
version = release = version_of("maskcon-loss")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["dollarmath"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_custom_sections = [("Shapes", "params_style")]
intersphinx_mapping: dict[str, tuple[str, None]] = {}  # filled when the docs are hosted; a build needs no network
html_theme = "furo"
html_title = "maskcon-loss"
nitpicky = False
