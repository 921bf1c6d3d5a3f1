"""The pages build as one site whose every link and anchor leads somewhere; links to elsewhere are well formed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from markdown_it import MarkdownIt

from tests.docs.blocks import ROOT, pages
from tests.tracked_files import tracked

BUILD_S = 120.0
_ELSEWHERE = re.compile(r"https://(?:[a-z0-9-]+\.)+[a-z]{2,}(?:/[\w./~%#+-]*)?")


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` runs."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = build(ROOT, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    for page in pages():
        name = page.replace("README.md", "index.html").replace(".md", ".html")
        assert (tmp_path / "site" / name).is_file()


def test_links_that_lead_nowhere_fail_the_build(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in tracked(ROOT):
        if name.suffix != ".safetensors" and "sets" not in name.parts:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    wrong = ["nowhere.md", "train.md#no-such-heading", "../service_kit/no_such_file.py"]
    with (copy / "docs" / "generate.md").open("a") as page:
        page.writelines(f"\n[more]({link})\n" for link in wrong)
    built = build(copy, tmp_path / "site")
    assert built.returncode == 1
    assert [link for link in wrong if f"'{link}'" not in built.stderr] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert [page for page in pages() if f" {page}\n" not in navigation] == []
    assert isinstance(yaml.safe_load(navigation)["nav"], list)


def test_links_to_elsewhere_are_well_formed() -> None:
    links = {
        (page, str(part.attrs["href"]))
        for page in pages()
        for token in MarkdownIt("commonmark").parse((ROOT / page).read_text())
        for part in token.children or []
        if part.type == "link_open" and "://" in str(part.attrs["href"])
    }
    assert len(links) > 3
    assert [link for link in links if not _ELSEWHERE.fullmatch(link[1])] == []
