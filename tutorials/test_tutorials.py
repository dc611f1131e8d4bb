"""Each tutorial runs as it stands, but for what takes long in it: `pytest tutorials`.

That they are stored with their outputs is asserted by tests/test_pages.py, which runs none.
"""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

# For the kernels: several of several threads each would get in each other's way, and threads that wait take CPU, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Seconds of CPU that a tutorial may take, shortened. Not of the clock: those tell of what else the machine does.
MOST = 180

# What takes long in a tutorial, done less often or with less: every cell still runs.
SHORTENED = {
    "quickstart": {
        'gx.tl.fit(ref, method="dgex", progress=False)': 'gx.tl.fit(ref, method="dgex", epochs=3, progress=False)',
        'cv="cohort"': "cv=2",
    },
    "l1000": {
        'gx.tl.fit(ref, method="dgex", progress=False)': 'gx.tl.fit(ref, method="dgex", epochs=3, progress=False)',
        'budget="20s"': 'budget="5s"',
    },
    "cross_platform": {
        'budget="10s"': 'budget="2s"',
        'for method in ["ridge", "kernel"]:': 'for method in ["ridge"]:',
    },
    "single_cell_panel": {
        "SEEDS = range(5)": "SEEDS = range(1)",
        "EPOCHS = 60": "EPOCHS = 2",
        'budget="10s"': 'budget="1s"',
    },
    "like_the_papers": {
        "GAN_EPOCHS = 30": "GAN_EPOCHS = 2",
        "N_TARGETS = 300": "N_TARGETS = 30",
        "WIDTHS = [100, 200, 300]": "WIDTHS = [10, 20]",
        "EPOCHS = 100": "EPOCHS = 3",
    },
    "bigger_than_memory": {
        # Still two shards.
        "COPIES = 18": "COPIES = 9",
        "epochs=2": "epochs=1",
        "hidden=200": "hidden=20",
        "sizes = (copies.n_obs // 2, copies.n_obs)": "sizes = (1000, 2000)",
    },
    "add_a_method": {
        "for seed in range(5)": "for seed in range(2)",
        '["ridge", "rrr", "pls"]': '{"ridge": {}, "pls": {"n_components": 5}}',
    },
}


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_tutorial_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    stored = [figures(cell) for cell in code]
    for long, short in SHORTENED.get(path.stem, {}).items():
        assert sum(long in cell.source for cell in code) == 1, long
        for cell in code:
            cell.source = cell.source.replace(long, short)
    (tmp_path / "data").symlink_to(Path(__file__).resolve().parent / "data")
    before = seconds_of_children()
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    assert seconds_of_children() - before < MOST
    assert [figures(cell) for cell in code] == stored


def figures(cell: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def seconds_of_children() -> float:
    """CPU of the kernels that have ended, and of the processes that they waited for."""
    times = os.times()
    return times.children_user + times.children_system
