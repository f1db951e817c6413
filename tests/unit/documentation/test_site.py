"""The site builds strictly, loads nothing from elsewhere, and its generated pages are up to date."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.paths import CHECKOUT
from tests.documentation import api, options
from tests.documentation.shell_blocks import pages
from whatsapp_operator.api.reasons import ConditionType, Phase, Reason

LINK = re.compile(r"\[[^\]]+\]\((?!https?:|mailto:)(?P<file>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")
LOADED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"' >]+)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_each_page_is_built_and_loads_nothing_from_elsewhere(site: Path) -> None:
    built = {path.relative_to(site).with_suffix(".md").as_posix() for path in site.rglob("*.html")}
    assert {page.removeprefix("docs/") for page in pages() if page.startswith("docs/")} <= built
    for path in site.rglob("*.html"):
        text = path.read_text()
        assert LOADED.findall(text.replace('rel="canonical"', "")) == [], path
        assert "../tests/" not in text, f"{path}: a link that leads out of the site"
    for path in site.rglob("*.css"):
        assert not re.search(r"""url\(["']?(?:https?:)?//""", path.read_text()), path


def test_what_conditions_and_alerts_refer_to_has_an_anchor(site: Path) -> None:
    page = (site / "troubleshooting.html").read_text()
    for reason in Reason:
        assert f'id="{reason}"' in page


def test_concepts_explains_each_phase_and_condition() -> None:
    page = (CHECKOUT / "docs" / "concepts.md").read_text()
    for name in (*Phase, *ConditionType):
        assert re.search(rf"^\| `{name}` \|" if isinstance(name, Phase) else f"`{name}`", page, re.MULTILINE), name


@pytest.mark.parametrize(("page", "render"), [("api", api.render), ("options", options.render)])
def test_a_generated_page_is_what_make_docs_makes(page: str, render: Callable[[], str]) -> None:
    assert (CHECKOUT / "docs" / f"{page}.md").read_text() == render()


@pytest.mark.parametrize("page", [page for page in pages() if not page.startswith("docs/")])
def test_links_of_pages_outside_of_the_site_lead_somewhere(page: str) -> None:
    for link in LINK.finditer((CHECKOUT / page).read_text()):
        target = (CHECKOUT / page).parent / link["file"] if link["file"] else CHECKOUT / page
        assert target.exists(), f"{page}: {link[0]}"
        if link["anchor"] and target.suffix == ".md":
            assert link["anchor"] in anchors(target.read_text()), f"{page}: {link[0]}"


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'id="([^"]+)"', page))
