"""Every notebook runs from its first cell to its last in a kernel of its own, quietly, and shows what it promises."""

from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SHOWN = {"pictures": (3, 1), "dicom": (2, 0), "own_network": (2, 0), "report": (2, 1)}
"""How many pictures of scans and masks, and how many pages of reports, each shows."""


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_from_beginning_to_end(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as sockets:  # short names, as sockets must have
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
        client = NotebookClient(notebook, kernel, timeout=600, resources={"metadata": {"path": tmp_path}})
        try:
            client.execute(cleanup_kc=True)
        finally:
            nbformat.write(notebook, tmp_path / "executed.ipynb")  # which is kept where the test fails
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    stderr = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert not stderr
    shown = [output.data for output in outputs if "data" in output]
    pages = sum("srcdoc" in data.get("text/html", "") for data in shown)
    assert (sum("image/png" in data for data in shown), pages) == SHOWN[path.stem]
