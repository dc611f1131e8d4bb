"""Settings of the documentation; build it with sphinx-build -W -b html docs docs/_build/html."""

from importlib.metadata import version as installed

from sphinx.ext.napoleon import NumpyDocstring

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
]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]
html_theme = "sphinx_book_theme"
html_title = f"gexinfer {version}"

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

nitpicky = True
# Types of other packages and of Python: without intersphinx there is nothing to link them to. And two private ones.
nitpick_ignore_regex = [
    ("py:class", r"gexinfer\.(methods\._contract\.Model|engine\.blocks\.Scale)"),
    ("py:(class|obj)", r"(anndata|numpy|pandas|mudata|matplotlib|collections|pathlib|os|typing)\..*"),
    ("py:(class|obj)", r"(AnnData|ad\.AnnData|MuData|Axes|Any|Literal|Path|Iterable|Sequence|Mapping|NDArray)"),
    ("py:(class|obj)", r"(np\.(random\.Generator|floating|uint64)|pd\.DataFrame|os\.PathLike)"),
    ("py:(class|obj|exc)", r"(bool|float|int|str|None|KeyError|TypeError|ValueError|FileNotFoundError)"),
]


def returns_in_prose(self: NumpyDocstring, section: str) -> list[str]:
    """Read a Returns section as text: napoleon would take each of its lines for a type."""
    lines = self._dedent(self._consume_to_next_section())
    return self._format_block(":returns: ", lines) + [""]


NumpyDocstring._parse_returns_section = returns_in_prose
