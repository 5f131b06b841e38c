"""The package's long description: README.md without what only the repository can show.

Links to other pages of the repository and its pictures lead nowhere on a package index, and the package names no
address of the repository to complete them with. Links become their text; pictures are left out.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

ELSEWHERE = r"(?:https?:|mailto:)"
CODE = r"(?P<code>^```.*?^```|`[^`\n]+`)"
PICTURE = rf"!\[[^\]]*\]\((?!{ELSEWHERE})[^)]*\)|<img\b[^>]*?\bsrc=\"(?!{ELSEWHERE})[^>]*>"
LINK = rf"(?<!!)\[(?P<text>(?:!\[[^\]]*\]\([^)]*\)|`[^`\n]*`|[^\[\]`])*)\]\((?!{ELSEWHERE}|#)[^)]*\)"


def long_description(readme: str) -> str:
    """Return a page of Markdown without relative links and pictures; code stays as it is."""
    flags = re.MULTILINE | re.DOTALL
    without_pictures = re.sub(f"{PICTURE}|{CODE}", lambda match: match["code"] or "", readme, flags=flags)
    text = re.sub(f"{LINK}|{CODE}", lambda match: match["code"] or match["text"], without_pictures, flags=flags)
    return re.sub(r"\n{3,}", "\n\n", text)


class LongDescription(MetadataHookInterface):
    """Adds the long description to the package's metadata, for Hatchling."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the description from README.md."""
        text = long_description(Path(self.root, "README.md").read_text("utf-8"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
