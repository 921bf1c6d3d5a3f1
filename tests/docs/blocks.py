"""The code blocks of the pages, read as Markdown, with what the HTML comment before a block says of it.

<!-- needs: gpu -->                         not run (NEEDS), or only where there is such a program (PROGRAMS)
<!-- file: k8s/overlays/mine/x.yaml -->     the block is the content of this file
<!-- keeps running: 127.0.0.1:8000 -->      runs until the end of the page; what follows begins when that listens
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
EXECUTED = {"python", "sh"}
PARSED = {"json", "yaml"}
SHOWN = {"text"}
NEEDS = {"base model", "cluster", "container engine", "gpu", "hours", "object store", "make"}
"""What these tests lack: a large base model, a cluster, an engine that builds images, a GPU, hours, an object store of
the reader's own. `make` runs these tests itself."""
PROGRAMS = {"grpcurl"}
"""What no package index has in a form to rely on."""
_MARK = re.compile(r"<!-- (needs|file|keeps running): (.+?) -->\s*")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    """The file, relative to the repository."""
    line: int
    language: str
    text: str
    mark: str
    """`needs`, `file`, `keeps running`, or empty."""
    marked: str
    """What the mark says."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page that says how to use what is here."""
    found = [
        ROOT / "README.md",
        ROOT / "k8s" / "README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/*/README.md"),
    ]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def may_run(block: Block) -> bool:
    """Whether there is something to do for a block, and what it needs is here."""
    if block.mark == "needs":
        return block.marked in PROGRAMS and shutil.which(block.marked) is not None
    return block.mark == "file" or block.language in EXECUTED


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    found, mark, marked = [], "", ""
    for token in MarkdownIt("commonmark").parse((ROOT / page).read_text()):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            found.append(Block(page, token.map[0] + 1, token.info.strip(), token.content, mark, marked))
            mark = marked = ""
        elif token.type == "html_block" and (match := _MARK.fullmatch(token.content)):
            mark, marked = match.groups()
        elif mark:
            raise ValueError(f"{page}: <!-- {mark}: {marked} --> is followed by no block")
    return found
