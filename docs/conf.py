"""Sphinx settings."""

import os
from importlib.metadata import version as version_of

project = "maskcon-loss"
author = "The maskcon-loss authors"
project_copyright = author
version = release = version_of("maskcon-loss")
extensions = [
    "myst_parser",
    "sphinx-mathjax-offline",  # equations need no network, neither to build them nor to read them
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shapes"]

# Every reference must lead somewhere. Those to other projects are links where the pages are hosted, and plain names
# where they are built without a network.
nitpicky = True
nitpick_ignore = [("py:class", "Rows")]  # recall_at_k's tensor or array, as its arguments say; no name outside
nitpick_ignore_regex = [("py:.*", r"(torch|collections)\..*")]  # other projects', see below
hosted = "READTHEDOCS" in os.environ
intersphinx_mapping = (
    {
        "numpy": ("https://numpy.org/doc/stable", None),
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }
    if hosted
    else {}
)

html_theme = "furo"
html_theme_options = {"navigation_with_keys": True}
html_title = f"maskcon-loss {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
