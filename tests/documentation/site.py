"""What mkdocs does besides: pages of docs/ may link to files of the repository, which the site does not have."""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any, Final

_LOG: Final = logging.getLogger("mkdocs.plugins.site")
_CODE: Final = re.compile(r"`[^`\n]+`")
_OUTSIDE: Final = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>\.\./[^)#]*)(?P<anchor>#[^)]*)?\)")


def on_page_markdown(markdown: str, /, *, page: Any, config: Any, **_: Any) -> str:
    """Links to files outside of docs/ lead to the repository, where its address is known, and are its path elsewhere.

    A file that is not there is a warning, and so an error where the build is strict.
    """
    docs = Path(config.docs_dir)

    def shown(link: re.Match[str]) -> str:
        if not (docs / link["target"]).exists():
            _LOG.warning("%s links to %s, which does not exist", page.file.src_uri, link["target"])
        if not config.repo_url:
            return str(link["text"])
        path = posixpath.normpath(posixpath.join(docs.name, link["target"]))
        return f"[{link['text']}]({config.repo_url.rstrip('/')}/blob/main/{path}{link['anchor'] or ''})"

    # Elsewhere a pipe in the code of a table is escaped; here the backslash would be shown.
    unescaped = _CODE.sub(lambda code: code[0].replace("\\|", "|"), markdown)
    return _OUTSIDE.sub(shown, unescaped)
