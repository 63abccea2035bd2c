"""Import a library without modules that it loads and that we hardly ever use.

`lean` puts a stand-in in the place of each such module while the library is imported. A stand-in
loads the real module as soon as something asks for what it does not have itself. Where a library or
a module is loaded already, that one is left as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class StandIn(ModuleType):
    """Stands for the module of its name."""

    def load(self) -> Any:
        """Import the real module and return it. Called by `real`.

        A stand-in without this has all that is ever asked of it, or `lean` gives up on the library.
        """
        raise ImportError(f"the stand-in for {self.__name__} has all that it can have")

    def real(self) -> Any:
        """Return the real module. It finds no stand-in for another module of its package."""
        package = self.__name__.partition(".")[0]
        _withdraw(
            one
            for name, one in list(sys.modules.items())
            if isinstance(one, StandIn) and name.partition(".")[0] == package
        )
        return self.load()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.real(), name)


@contextmanager
def lean(library: str, *stand_ins: StandIn) -> Iterator[None]:
    """Let the block import `library` with stand-ins in place; import it once more after the block.

    A version of the library may need more than the stand-ins have. Then the block ends without an
    error and without the library, and the import after it loads all of it.
    """
    placed: list[StandIn] = []
    if library not in sys.modules:
        placed = [one for one in stand_ins if one.__name__ not in sys.modules]
    sys.modules.update({one.__name__: one for one in placed})
    try:
        yield
        _load_on_demand(sys.modules[library], placed)
    except (AttributeError, ImportError, TypeError):
        for loaded in [name for name in sys.modules if name.partition(".")[0] == library]:
            del sys.modules[loaded]
    finally:
        _withdraw(placed)


def _load_on_demand(package: ModuleType, stand_ins: list[StandIn]) -> None:
    """Take the stand-ins out of a package's names; the first use of one loads the real module."""
    names = vars(package)
    taken = {name: one for name, one in names.items() if any(one is each for each in stand_ins)}
    if not taken:
        return
    others = names.get("__getattr__")

    def load(name: str) -> Any:
        if name in taken:
            module = taken[name].real()
            is_module = module.__name__ == f"{package.__name__}.{name}"
            return module if is_module else getattr(module, name)
        if others is not None:
            return others(name)
        raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")

    for name in taken:
        delattr(package, name)
    package.__getattr__ = load  # type: ignore[method-assign]


def _withdraw(stand_ins: Iterable[StandIn]) -> None:
    for one in stand_ins:
        if sys.modules.get(one.__name__) is one:
            del sys.modules[one.__name__]
