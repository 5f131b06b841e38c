"""Packages import one way: down the list in ``docs/development/architecture.md``, never up."""

import ast
import re
from pathlib import Path

import medseg

PACKAGE = Path(medseg.__file__).parent
PAGE = PACKAGE.parent / "docs/development/architecture.md"
FIGURE = PACKAGE.parent / "docs/figures/architecture.svg"


def order() -> list[str]:
    """Return the packages, and modules with a rank of their own, from those that all may import to those none may."""
    block = re.search(r"```text title=\"order\"\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert block
    return block[1].split()


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path) -> set[str]:
    """Return the names of medseg's modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "medseg":
            base = (node.module or "").removeprefix("medseg").lstrip(".")
            names = [f"{base}.{alias.name}".lstrip(".") for alias in node.names]
            found |= {name if name in MODULES else base for name in names}
        elif isinstance(node, ast.Import):
            found |= {each.name.partition(".")[2] for each in node.names if each.name.split(".")[0] == "medseg"}
    return found - {""}  # the version


def rank(module: str, ranks: dict[str, int]) -> int:
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(ranks[name] for name in names if name in ranks)


def test_every_package_has_a_rank():
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py" and path.read_text("utf-8")}
    packages |= {name.rpartition(".")[0] for name in MODULES} - {""}
    assert packages - {""} <= set(order())
    assert set(order()) <= MODULES.keys()
    assert len(set(order())) == len(order())


def test_no_module_imports_one_above_it():
    ranks = {name: number for number, name in enumerate(order())}
    upward = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        if module not in ("", "__main__")
        for other in imports(path)
        if rank(other, ranks) > rank(module, ranks)
    ]
    assert not upward


def test_no_folder_holds_more_than_twelve_files():
    folders = {path.parent for path in MODULES.values()}
    sizes = {folder: sum(path.is_file() for path in folder.iterdir()) for folder in folders}
    assert not {str(folder.relative_to(PACKAGE)): size for folder, size in sizes.items() if size > 12}


def test_every_file_that_the_page_and_its_figure_name_exists():
    figure = FIGURE.read_text("utf-8")
    named = set(re.findall(r"[a-z_0-9]+(?:/[a-z_0-9]+)*\.py", PAGE.read_text("utf-8") + figure))
    assert named
    assert not {name for name in named if not (PACKAGE / name).is_file() and not (PACKAGE.parent / name).is_file()}
    folders = set(re.findall(r">([a-z_]+(?:/[a-z_]+)*)</text>", figure))
    assert folders
    assert not {name for name in folders if not (PACKAGE / name).is_dir()}
