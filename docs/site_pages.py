"""What the site is made of: every page of the repository at its own path, and whatever these pages link to.

Pages link to each other, to source files and to folders, as a reader of the repository follows them. So the site has
the repository's paths, a source file becomes a page that shows it, and a folder its README, or a page that lists it.
"""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "docs/measurements/*.md",
    "examples/*/README.md",
    "k8s/README.md",
    "base_models/toon_64/README.md",
]
_PICTURES = {".jpg", ".png", ".svg"}
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages and what they link to, instead of the folder `docs`."""
    # What the theme brings along is in no folder of ours.
    found = Files([file for file in files if not (file.abs_src_path or "").startswith(str(ROOT / "docs"))])
    pages = [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    for path in pages:
        found.append(File.generated(config, _uri(path), abs_src_path=str(path)))
    for path in pages:
        for _, target, _ in _LINK.findall(path.read_text()):
            linked = (path.parent / target).resolve()
            uri = _shown_as(linked)
            if "://" in target or not linked.exists() or found.get_file_from_path(uri):
                continue
            if linked.suffix in _PICTURES or linked.suffix == ".md":
                found.append(File.generated(config, uri, abs_src_path=str(linked)))
            else:
                found.append(
                    File.generated(config, uri, content=_listed(linked) if linked.is_dir() else _shown(linked))
                )
    return found


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to source files and folders lead to the pages that show them."""
    here = (ROOT / page.file.src_uri).parent

    def rewritten(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        linked = (here / target).resolve()
        if "://" in target or not linked.exists():
            return match.group()
        return before + posixpath.relpath(_shown_as(linked), posixpath.dirname(page.file.src_uri) or ".") + after

    return _LINK.sub(rewritten, markdown)


def _uri(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _shown_as(path: Path) -> str:
    """Where the site shows a file or folder of the repository."""
    if path.is_dir():
        return f"{_uri(path)}/{'README' if (path / 'README.md').exists() else 'index'}.md"
    return _uri(path) if path.suffix in {".md", *_PICTURES} else f"{_uri(path)}.md"


def _shown(path: Path) -> str:
    language = {".py": "python", ".mjs": "javascript", ".proto": "protobuf"}.get(path.suffix, path.suffix[1:])
    return f"# {_uri(path)}\n\n~~~~{language}\n{path.read_text()}\n~~~~\n"


def _listed(folder: Path) -> str:
    """A folder's files, each with the first sentence that it says of itself."""
    lines = [f"# {_uri(folder)}/", ""]
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".")):
            continue
        said = ast.get_docstring(ast.parse(path.read_text())) if path.suffix == ".py" else None
        lines.append(f"- `{path.name}{'/' * path.is_dir()}`{': ' + said.splitlines()[0] if said else ''}")
    return "\n".join(lines) + "\n"
