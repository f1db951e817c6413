"""Makes an unchanged session runtime trust a simulator, where its CA bundle says so.

Python imports a module of this name by itself when it stands in PYTHONPATH. After neonize is imported, the root key
in the CA bundle (a `trust.pem` of the simulator) takes the place of WhatsApp's; a bundle without one changes nothing.
The bundle is looked for in $SSL_CERT_DIR, where the session's supervisor puts it for its worker.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_MODULE = "neonize"
_CA_DIR = "/etc/whatsapp/ca"


class _AfterImport(MetaPathFinder, Loader):
    """Stands before the finder of one module, and acts once that module is there."""

    def __init__(self) -> None:
        self._loader: Loader | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None:
            self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None if self._loader is None else self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if self._loader is not None:
            self._loader.exec_module(module)
        _trust_bundle()


def _trust_bundle() -> None:
    from whatsapp_simulator.trust import TRUST_LINE, root_in, trust_root

    for directory in os.environ.get("SSL_CERT_DIR", _CA_DIR).split(os.pathsep):
        for path in sorted(Path(directory).glob("*")):
            if path.is_file() and path.suffix in (".crt", ".pem"):
                text = path.read_text()
                if TRUST_LINE in text:
                    trust_root(root_in(text))
                    return


sys.meta_path.insert(0, _AfterImport())
