"""The table of docs/development/reliability.md counts every test once, and tests of the corpus by their samples."""

from types import SimpleNamespace

import pytest
from trust.reliability import BEGIN, END, ReliabilityTable


def report(name, outcome="passed", when="call", **properties):
    return SimpleNamespace(
        nodeid=f"tests/trust/{name}.py::test_a",
        when=when,
        passed=outcome == "passed",
        failed=outcome == "failed",
        skipped=outcome == "skipped",
        user_properties=[(key.replace("_", " "), value) for key, value in properties.items()],
    )


@pytest.fixture
def table(tmp_path):
    (tmp_path / "tests/trust").mkdir(parents=True)
    for name in ("test_kills", "test_corpus"):
        (tmp_path / f"tests/trust/{name}.py").write_text(f'"""What {name} does.\n\nMore."""\n')
    (tmp_path / "page.md").write_text(f"# Page\n\n{BEGIN}\nold\n{END}\n\nbehind\n")
    return ReliabilityTable(tmp_path / "page.md", tmp_path)


def test_the_table_is_written_between_its_lines(table):
    for when in ("setup", "call", "teardown"):
        table.pytest_runtest_logreport(report("test_kills", when=when))
    table.pytest_runtest_logreport(report("test_kills", "failed"))
    table.pytest_runtest_logreport(report("test_kills", "failed", when="setup"))
    table.pytest_runtest_logreport(report("test_kills", "skipped"))
    counts = {"tried": 9, "right": 4, "clear_error": 4, "failed": 1}
    table.pytest_runtest_logreport(report("test_corpus", "failed", family="cuts", subject="Cut files", **counts))
    table.pytest_sessionfinish()
    assert table.page.read_text().splitlines() == [
        "# Page",
        "",
        BEGIN,
        "",
        "| family | what | tried | right | clear error | failed |",
        "|---|---|--:|--:|--:|--:|",
        "| cuts | Cut files | 9 | 4 | 4 | 1 |",
        "| kills | What test_kills does | 3 | 1 | 0 | 2 |",
        "| **all** |  | 12 | 5 | 4 | 3 |",
        "",
        END,
        "",
        "behind",
    ]


def test_a_page_without_the_lines_is_left_as_it_is(table):
    table.page.write_text("# Page\n")
    with pytest.raises(pytest.UsageError, match="lacks the line"):
        table.pytest_sessionfinish()
    assert table.page.read_text() == "# Page\n"
