"""Every command in the documentation is run by a test, or says why it is not."""

from pathlib import Path

import pytest

from tests.cluster.paths import CHECKOUT
from tests.documentation.shell import Shell
from tests.documentation.shell_blocks import CLUSTER, SHELL, blocks, fenced, files, pages

PAGE = """
<!-- run: cluster, then scan support -->
```sh
kubectl get was
```

1. In a list

   <!-- not run: it takes a day -->
   ```sh
   sleep 86400
   ```

```yaml title="support.yaml"
kind: WhatsAppSession
```

```sh
unmarked
```
"""


@pytest.mark.parametrize("page", pages())
def test_each_block_says_what_it_is_and_by_what_it_is_run(page: str) -> None:
    for block in fenced(page):
        assert block.language not in ("", "bash", "shell", "console"), (
            f"{block.place}: commands are `sh`, output `text`"
        )
        if block.language != SHELL:
            continue
        assert block.by or block.why_not, f"{block.place}: no mark above it, see tests/documentation/shell_blocks.py"
        if block.by and block.by != CLUSTER:
            assert page in (CHECKOUT / block.by).read_text(), f"{block.place}: {block.by} does not read the page"


def test_blocks_are_found_with_their_marks(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    scan, sleep, file, unmarked = fenced("page.md", tmp_path)
    assert (scan.by, scan.then, scan.text) == ("cluster", ("scan", "support"), "kubectl get was\n")
    assert (sleep.by, sleep.why_not, sleep.text) == (None, "it takes a day", "sleep 86400\n")
    assert (file.title, file.language) == ("support.yaml", "yaml")
    assert (unmarked.by, unmarked.why_not, unmarked.place) == (None, None, "page.md:18")
    assert blocks("page.md", CLUSTER, tmp_path) == [scan]
    assert files("page.md", tmp_path) == {"support.yaml": "kind: WhatsAppSession\n"}


def test_a_block_ends_at_the_first_command_that_fails(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        PAGE.replace("kubectl get was", "cat support.yaml | tee copy.yaml\ntouch not-reached")
    )
    [block] = blocks("page.md", CLUSTER, tmp_path)
    with pytest.raises(AssertionError, match=r"page.md:3: exit code 1(.|\n)*support.yaml"):
        Shell(tmp_path).run(block)
    assert not (tmp_path / "not-reached").exists()
    (tmp_path / "support.yaml").write_text("kind: WhatsAppSession\n")
    assert Shell(tmp_path).run(block) == "kind: WhatsAppSession\n"


def test_the_pages_are_those_of_the_repository() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md", "tests/cluster/README.md"} <= set(pages())
