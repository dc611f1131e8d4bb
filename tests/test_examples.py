"""The examples of the API run, and show what they say."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from test_conventions import PUBLIC

API = (Path(__file__).parents[1] / "docs" / "api.md").read_text()


@pytest.fixture(scope="module")
def made() -> dict[str, object]:
    """What the first lines of the page make, which all examples start from."""
    names: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", API, re.S)[1], names)
    return {"gx": names["gx"], "ref": names["ref"]}


def test_the_lines_of_the_page_make_what_it_says(made):
    ref = made["ref"]
    assert ref.n_obs == 696
    assert ref.var["landmark"].value_counts().to_dict() == {True: 94, False: 204}


@pytest.mark.parametrize("function", PUBLIC, ids=lambda f: f"{f.__module__.split('.')[1]}.{f.__name__}")
def test_the_example_runs(function, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"gx": made["gx"], "ref": made["ref"].copy()}
    (example,) = doctest.DocTestFinder(recurse=False).find(function, function.__name__, globs=names)
    assert any(f"{function.__name__}(" in part.source for part in example.examples), "the docstring has no example"
    if not function.__module__.startswith("gexinfer.datasets"):
        assert not any(doctest.SKIP in part.options for part in example.examples)
    told: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(example, out=told.append)
    plt.close("all")
    assert not told, "".join(told)
