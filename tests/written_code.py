"""What the README and the pages of the documentation write as code: blocks by language, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(medseg [a-z][^`]*)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[str]:
        """Return the lines of a block of the shell, those that go on after a backslash as one, without comments."""
        joined = re.sub(r"\\\n\s*", " ", self.code).splitlines()
        return [line.strip() for line in joined if line.strip() and not line.lstrip().startswith("#")]


def name_of(page: Path) -> str:
    """Return how a page is called in messages."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """Return the blocks of a page, all or those of one language."""
    text = page.read_text("utf-8")
    found = []
    for match in BLOCK.finditer(text):
        code = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        found.append(Block(name_of(page), text.count("\n", 0, match.start()) + 1, match[2], code))
    return [block for block in found if language in (None, block.language)]


def prose(page: Path) -> list[str]:
    """Return the lines of a page with those of its blocks empty."""
    text = page.read_text("utf-8")
    return BLOCK.sub(lambda match: "\n" * match[0].count("\n"), text).splitlines()


def inline_commands(page: Path) -> list[str]:
    """Return the command lines of medseg that stand within sentences."""
    return [line.replace("\\|", "|") for line in INLINE.findall("\n".join(prose(page)))]


def words_of(command: str) -> list[str]:
    """Split a command as a shell does, without a comment at its end."""
    return shlex.split(command, comments=True)
