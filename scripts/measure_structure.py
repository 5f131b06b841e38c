"""Measure what a reader of the code meets: files by folder, functions, helpers with one caller, words; one line each.

    python scripts/measure_structure.py [FOLDER OF THE PACKAGE] [--list]

``--list`` names the short helpers with one caller. Of an earlier state: check it out elsewhere and name its ``medseg``.
"""

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

WORDS = (
    *("truth", "place", "places", "found", "given", "wanted", "kept", "told", "tells", "pictures", "rows", "specks"),
    *("pieces", "parts", "draws", "suspicions", "noted", "rungs", "gauges", "taken", "passed over", "painted"),
)
"""Home-made words that the field has terms for."""
SHORT = 2  # statements of a helper that may say no more than its name


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method of a module."""
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def statements(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the statements of a body, nested ones too, without the docstring."""
    has_docstring = ast.get_docstring(function) is not None
    return sum(isinstance(node, ast.stmt) for node in ast.walk(function)) - 1 - has_docstring


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its docstring."""
    doc = function.body[0] if ast.get_docstring(function) is not None else None
    return (function.end_lineno or 0) - function.lineno + 1 - ((doc.end_lineno or 0) - doc.lineno + 1 if doc else 0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, nargs="?", default=Path(__file__).parents[1] / "medseg")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    texts = {path: path.read_text("utf-8") for path in sorted(options.package.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    defined = [(path, each) for path, tree in trees.items() for each in functions(tree)]
    uses = Counter(
        node.id if isinstance(node, ast.Name) else node.attr
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    )
    names = Counter(each.name for _, each in defined)
    once = [
        (path, each)
        for path, each in defined
        if names[each.name] == 1 and uses[each.name] == 1 and not each.decorator_list and not each.name.startswith("__")
    ]
    short = [(path, each) for path, each in once if statements(each) <= SHORT]
    folders = Counter(path.parent for path in texts)
    lengths = sorted(lines_of_code(each) for _, each in defined)
    everything = "\n".join(texts.values())
    words = {word: len(re.findall(rf"\b{word}\b", everything)) for word in WORDS}
    largest = ", ".join(f"{folder.relative_to(options.package)} {count}" for folder, count in folders.most_common(3))
    print(f"files: {len(texts)}, folders: {len(folders)}, the largest: {largest}")
    print(f"lines: {sum(text.count(chr(10)) for text in texts.values())}")
    print(f"functions: {len(defined)}, with one caller: {len(once)}, of these short: {len(short)}")
    print(f"lines of a function: median {median(lengths):g}, p90 {lengths[len(lengths) * 9 // 10]}, most {lengths[-1]}")
    print(f"words: {', '.join(f'{word} {count}' for word, count in words.items() if count)}")
    if options.list:
        for path, each in short:
            print(f"{path.relative_to(options.package)}:{each.lineno} {each.name}")


if __name__ == "__main__":
    main()
