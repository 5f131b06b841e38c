"""The notebooks as they lie in the repository; ``make notebooks`` runs them."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

import medseg

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
FILE = re.compile(r"%%writefile (\S+)\n", re.ASCII)


def code_of(notebook: nbformat.NotebookNode) -> list[str]:
    """The Python of all code cells, without the files that some of them write, which are not Python always."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    python = [FILE.sub("", source) for source in sources if not (file := FILE.match(source)) or file[1].endswith(".py")]
    return [TransformerManager().transform_cell(source) for source in python]


def names_of_medseg(code: str) -> set[str]:
    """Dotted names below ``medseg`` that some code uses, and modules of it that it imports."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node).split(".")
            if dotted[0] == "medseg" and all(map(str.isidentifier, dotted)):
                names.add(".".join(dotted[1:]))
        elif isinstance(node, ast.Import):
            names |= {each.name.removeprefix("medseg.") for each in node.names if each.name.startswith("medseg.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "medseg":
            names.add((node.module or "").partition(".")[2] or "*")
    return names


def test_there_are_notebooks_and_a_page_names_them():
    page = (NOTEBOOKS / "README.md").read_text("utf-8")
    assert [path.name for path in PATHS] == sorted(re.findall(r"\((\w+\.ipynb)\)", page))
    assert len(PATHS) >= 4


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_holds_no_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].source.startswith("# ")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell.source for cell in code if cell.outputs or cell.execution_count is not None]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_code_parses_and_uses_public_names_alone(path):
    public = {*medseg.__all__, *(f"metrics.{name}" for name in medseg.metrics.__all__)}
    of_classes = {f"{name}.{member}" for name in medseg.__all__ for member in dir(getattr(medseg, name))}
    used = set().union(*map(names_of_medseg, code_of(nbformat.read(path, as_version=4))))
    assert used - public - {name for name in of_classes if "._" not in name} == set()
    assert used


def test_what_is_not_public_is_seen():
    assert names_of_medseg("from medseg.io import case\nimport medseg.jobs\nmedseg.cli.job.x()") == {
        "io",
        "jobs",
        "cli",
        "cli.job",
        "cli.job.x",
    }
