"""Which licences may be in an image, and the file with all their texts that comes with a release.

Python packages and Go modules have an SPDX expression each. Debian packages must be of the section main, which is free
software by Debian's guidelines; what is named of them are the short names in their copyright files.
"""

import re
from collections.abc import Mapping
from email.message import Message
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from images.inventory import Inventory, Package

# What older metadata says, where it has no SPDX expression.
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: MIT License": "MIT",
}
# Packages whose metadata does not say it: read in the licence file that they bring.
STATED_IN_FILE = {"neonize": "Apache-2.0"}
ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0"),
}
# What else is in an image, knowingly. The reason goes into the licence file.
EXCEPTIONS = {
    "go.mau.fi/libsignal": "GPL-3.0: linked into neonize's library, so whoever passes the session image on owes its"
    " recipients what the GPL-3.0 asks for that library, its source included"
}
# Read in the LICENSE file of each module, in the version that neonize 0.5.2 is linked from.
GO_LICENCES = {
    "filippo.io/edwards25519": "BSD-3-Clause",
    "github.com/beeper/argo-go": "MIT",
    "github.com/coder/websocket": "ISC",
    "github.com/elliotchance/orderedmap/v3": "MIT",
    "github.com/google/uuid": "BSD-3-Clause",
    "github.com/lib/pq": "MIT",
    "github.com/mattn/go-colorable": "MIT",
    "github.com/mattn/go-isatty": "MIT",
    "github.com/mattn/go-sqlite3": "MIT",
    "github.com/petermattis/goid": "Apache-2.0",
    "github.com/rs/zerolog": "MIT",
    "github.com/vektah/gqlparser/v2": "MIT",
    "go.mau.fi/libsignal": "GPL-3.0-only",
    "go.mau.fi/util": "MPL-2.0",
    "go.mau.fi/whatsmeow": "MPL-2.0",
    "golang.org/x/crypto": "BSD-3-Clause",
    "golang.org/x/exp": "BSD-3-Clause",
    "golang.org/x/net": "BSD-3-Clause",
    "golang.org/x/sync": "BSD-3-Clause",
    "golang.org/x/sys": "BSD-3-Clause",
    "golang.org/x/text": "BSD-3-Clause",
    "google.golang.org/protobuf": "BSD-3-Clause",
    "std": "BSD-3-Clause",
}


def python_licence(metadata: "Message[str, str]") -> str:
    """The SPDX expression of a Python package; empty if its metadata does not say it."""
    if expression := metadata["License-Expression"]:
        return str(expression)
    stated = str(metadata["License"] or "").strip()
    if name := STATED_IN_FILE.get(metadata["Name"]) or SPDX.get(stated):
        return name
    # A whole text may be there too.
    if stated and "\n" not in stated:
        return stated
    return next((SPDX[found] for found in metadata.get_all("Classifier") or () if found in SPDX), "")


def problems(inventory: "Inventory") -> list[str]:
    """Packages with an unknown or a forbidden licence, or, but for Go modules, without the text of it."""
    return [f"{package.purl}: {problem}" for package in inventory.packages if (problem := _problem(package))]


def _problem(package: "Package") -> str | None:
    if not package.licence:
        return "unknown licence"
    if package.kind != "golang" and not package.texts:
        return "no licence file"
    if package.kind == "deb" or package.name in EXCEPTIONS or allowed(package.licence):
        return None
    return f"{package.licence} is not allowed"


def allowed(expression: str) -> bool:
    """Whether an SPDX expression is satisfied by allowed licences: one side of an OR, both of an AND."""
    if "(" in expression:
        return all(name in ALLOWED for name in re.findall(r"[A-Za-z0-9.+-]+", expression) if name not in ("AND", "OR"))
    return any(all(name.strip() in ALLOWED for name in option.split(" AND ")) for option in expression.split(" OR "))


def third_party(title: str, inventory: "Inventory", go_texts: Mapping[str, str]) -> str:
    """The licence file of an image: a list, and every text once, with the packages that it is from.

    `go_texts` are the licence texts of Go modules, by name: they are in no image.
    """
    lines = [f"Third-party software in {title}", f"Image {inventory.digest}", ""]
    owners: dict[str, list[str]] = {}
    for package in inventory.packages:
        lines.append(f"{package.name} {package.version} ({package.kind}): {package.licence}")
        if note := EXCEPTIONS.get(package.name):
            lines.append(f"    {note}")
        texts = list(package.texts.values())
        if package.kind == "golang" and (text := go_texts.get(package.name)):
            texts.append(text)
        for text in texts:
            owners.setdefault(text.strip(), []).append(f"{package.name} {package.version}")
    for text, names in owners.items():
        lines += ["", "=" * 80, ", ".join(dict.fromkeys(names)), "=" * 80, "", text]
    return "\n".join([*lines, ""])
