"""The same sources give the same layers, from whichever checkout and whenever; `make release` looks at whole images."""

import os
import re
import shutil
from pathlib import Path

from images import build, inventory
from tests.cluster import images
from tests.cluster.paths import CHECKOUT

DOCKERFILE = "images/operator/Dockerfile"


def checkout(root: Path, moment: int) -> Path:
    """A copy of what the operator's image is made from but its dependencies, with files of that moment."""
    stages = re.split(r"^(?=FROM )", (CHECKOUT / DOCKERFILE).read_text(), flags=re.MULTILINE)
    kept = [stage for stage in stages if " AS dependencies" not in stage]
    text = re.sub(r"^COPY --from=dependencies .*\n", "", "".join(kept), flags=re.MULTILINE)
    assert len(kept) == len(stages) - 1
    for file in build.context_files(CHECKOUT, build.context_paths(text)):
        target = root / file.relative_to(CHECKOUT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        os.utime(target, (moment, moment))
    (root / "Dockerfile").write_text(text)
    return root


def test_two_builds_from_nothing_have_the_same_digest(tmp_path: Path) -> None:
    found = set()
    for moment, name in ((1_000_000_000, "one"), (1_700_000_000, "another")):
        archive = tmp_path / f"{name}.tar"
        images.build(
            checkout(tmp_path / name, moment),
            f"localhost/whatsapp-operator/reproducible-{name}:test",
            build_args={"VERSION": "1.2.3"},
            archive=archive,
            cached=False,
        )
        assert "/app/src/whatsapp_operator/controller/__main__.py" in build.read_contents(archive).paths
        found.add(inventory.read_files(archive).digest)
    assert len(found) == 1
