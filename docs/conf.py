"""Settings of the documentation; build it with sphinx-build -W -b html docs docs/_build/html."""

from importlib.metadata import version as installed

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.ext.napoleon import NumpyDocstring
from sphinx.writers.html5 import HTML5Translator

project = "gexinfer"
author = "gexinfer developers"
copyright = "2026, gexinfer developers"
release = version = installed("gexinfer")

extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinxcontrib.bibtex",
]
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
exclude_patterns = ["_build", "**/.ipynb_checkpoints", "tutorials/data"]
templates_path = ["_templates"]
html_theme = "sphinx_book_theme"
html_title = f"gexinfer {version}"
html_static_path = ["_static"]
html_css_files = ["gexinfer.css"]
# The search field stands in the sidebar, and on a phone behind its button.
html_theme_options = {"navbar_persistent": []}

# Notebooks are executed by `pytest tutorials`; here their stored outputs are shown.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst-nb.mime_priority"]

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
# In docstrings single backticks are code.
default_role = "literal"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Formulas are written as MathML, which browsers know, so that no page loads a script from elsewhere.
html_math_renderer = "mathml"

nitpicky = True
# Types of other packages: without intersphinx, which needs a network to build, there is nothing to link them to.
nitpick_ignore_regex = [("py:class", r"(anndata|collections|matplotlib|mudata|numpy|os|pandas|pathlib)\..*")]


def returns_in_prose(self: NumpyDocstring, section: str) -> list[str]:
    """Read a Returns section as text: napoleon would take each of its lines for a type."""
    lines = self._dedent(self._consume_to_next_section())
    return self._format_block(":returns: ", lines) + [""]


NumpyDocstring._parse_returns_section = returns_in_prose


def inline_formula(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block_formula(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(convert(node.astext(), display="block"))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (inline_formula, None), (block_formula, None))
