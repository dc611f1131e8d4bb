"""Run tutorials in full and store them with their outputs.

Usage: python tutorials/execute.py [NAME ...]

Without names all of them are run, one after another, each in a folder that holds `data` alone. A notebook in which a
cell fails stays as it was.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
# Of a notebook as it is stored: without the version of Python, and editors' notes.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def main(names: list[str]) -> None:
    for path in [FOLDER / f"{name}.ipynb" for name in names] or sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        started = time.perf_counter()
        execute(notebook)
        nbformat.write(notebook, path)
        print(f"{path.stem}: {time.perf_counter() - started:.0f} s, {path.stat().st_size / 1000:.0f} kB", flush=True)


def execute(notebook: nbformat.NotebookNode) -> None:
    """Run a notebook, and leave in it only what the next run will say, too."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").symlink_to(FOLDER / "data")
        # What is printed in several pieces is one output, wherever the pieces were cut.
        client = NotebookClient(
            notebook,
            timeout=600,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = {}


if __name__ == "__main__":
    main(sys.argv[1:])
