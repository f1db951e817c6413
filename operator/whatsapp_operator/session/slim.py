"""Keeps the modules out of the worker that neonize imports but text messaging never uses.

neonize imports its helpers for media, link previews and phone formatting at the top of its modules; they cost some
30 MiB and half of the import time. `install()` puts stand-ins in their place. A stand-in is no stub: the first call
of, or access to, anything in it imports the real module, so a feature that needs one still works, at the price of
the memory then. Where an image does not hold the real module, that first use raises ImportError.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

UNUSED_FOR_TEXT: Final = frozenset(
    {"PIL", "httpx", "linkpreview", "magic", "phonenumbers", "requests", "segno", "tqdm"}
)
"""Top-level packages that neonize 0.5.2 imports for media, stickers, link previews, terminals and vCards."""


class StandIns(MetaPathFinder, Loader):
    """Answers the import of some packages, and of all below them, with empty modules that load on first use."""

    def __init__(self, packages: frozenset[str]) -> None:
        self._packages = set(packages)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self._packages:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name, self)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to execute: the attributes come with their first use."""

    def real(self, name: str) -> ModuleType:
        """The real module, its package freed from its stand-ins first."""
        package = name.partition(".")[0]
        if package in self._packages:
            self._packages.discard(package)
            for loaded in [m for m in sys.modules if m.partition(".")[0] == package]:
                del sys.modules[loaded]
        return importlib.import_module(name)


class _StandInModule(ModuleType):
    def __init__(self, name: str, finder: StandIns) -> None:
        super().__init__(name)
        self.__dict__["_finder"] = finder

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for these; they must not load anything
            raise AttributeError(name)
        return _StandInAttribute(self._finder, self.__name__, name)


class _StandInAttribute:
    """Something in a module that is not loaded yet: a function, a class, a submodule, or an attribute of these.

    Reaching deeper loads nothing yet, as neonize does so in annotations; calling and isinstance() do.
    """

    def __init__(self, finder: StandIns, module: str, *path: str) -> None:
        self._finder = finder
        self._module = module
        self._path = path

    def _load(self) -> Any:
        found: Any = self._finder.real(self._module)
        for name in self._path:
            if isinstance(found, ModuleType) and not hasattr(found, name):
                importlib.import_module(f"{found.__name__}.{name}")
            found = getattr(found, name)
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._load()(*args, **kwargs)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._load())

    def __getattr__(self, name: str) -> "_StandInAttribute":
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandInAttribute(self._finder, self._module, *self._path, name)

    def __or__(self, other: object) -> "_StandInAttribute":  # the unions of annotations
        return self

    __ror__ = __or__


def install(packages: frozenset[str] = UNUSED_FOR_TEXT) -> None:
    """Call before the first import of neonize."""
    sys.meta_path.insert(0, StandIns(packages))
