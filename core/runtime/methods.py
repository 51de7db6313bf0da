"""The methods of a room by name: ours, one module each, and those that other packages add.

A method's module has one ``METHOD``. A package of somebody else's names its own under the entry-point group ``ovskit.methods``, as
``ROOM.NAME``::

    [project.entry-points."ovskit.methods"]
    "cluster.toy" = "toy_regions:METHOD"
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "ovskit.methods"


@dataclass(frozen=True, slots=True)
class Method:
    """One way to do what a room does.

    ``name`` is what a person types, ``summary`` one sentence of what it does. ``options`` is its class of
    ``runtime.settings.option`` fields. ``run`` does it; every room says what it is called with. ``needs`` is a sentence on what its input
    must have, or empty. ``supervised``: it was trained on labels.
    """

    name: str
    summary: str
    options: type
    run: Callable[..., Any]
    needs: str = ""
    supervised: bool = False


class GivenBy(IntEnum):
    """Where the value of an option came from, from weak to strong: a file of settings, the environment, ``--set``, its own flag on the
    command line."""

    FILE = 1
    ENVIRONMENT = 2
    SET = 3
    FLAG = 4


@dataclass(frozen=True, slots=True)
class ChosenMethod:
    """A method and its options, as a person chose them; ``given`` are the names of the options that were given, and by whom."""

    method: Method
    options: Any
    given: Mapping[str, GivenBy] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method.name


@dataclass(eq=False)
class Registry:
    """The methods of ``room``: a module of ``package`` for each of ``names``, the default first, then those of other packages.
    ``flag`` is what chooses among them; all are of one ``kind``.

    Nothing is imported before it is asked for. A method of another package that cannot be used is not listed; ``broken`` has the reasons,
    by name.
    """

    room: str
    package: str
    names: tuple[str, ...]
    flag: str = "--method"
    kind: type[Method] = Method
    broken: dict[str, str] = field(default_factory=dict)
    _loaded: dict[str, Method] = field(default_factory=dict)
    _all: bool = False

    def get(self, name: str) -> Method:
        """The method of a name. Raises UsageError for an unknown name, with the valid ones, and for a method that is broken."""
        if name in self.names and name not in self._loaded:
            self._loaded[name] = importlib.import_module(f"{self.package}.{name.replace('-', '_')}").METHOD
        elif name not in self._loaded:
            self._load_others()
        if name not in self._loaded:
            why = self.broken.get(name) or f"choose from {', '.join(method.name for method in self)}"
            raise UsageError(f"{self.flag} {name}: {why}")
        return self._loaded[name]

    def __iter__(self) -> Iterator[Method]:
        """All methods: ours in their order, then the others by name."""
        for name in self.names:
            yield self.get(name)
        self._load_others()
        yield from (self._loaded[name] for name in sorted(self._loaded.keys() - {*self.names}))

    def refuse(self, name: str, why: str) -> None:
        """Leave a method of another package out, and say ``why`` where it is asked for."""
        del self._loaded[name]
        self.broken[name] = f"{name} of another package: {why}"

    def _load_others(self) -> None:
        if self._all:
            return
        self._all = True
        if not _somebody_adds():
            return
        from importlib.metadata import entry_points

        for entry in entry_points(group=GROUP):
            room, _, name = entry.name.partition(".")
            if room == self.room:
                self._load(name, entry)

    def _load(self, name: str, entry: EntryPoint) -> None:
        what = f"{entry.value} (entry point {entry.name})"
        if name in self.names or name in self._loaded:
            self.broken[name] = f"{what} has a name that another method has; its package must give it another"
            return
        try:
            method = entry.load()
        except Exception as error:  # whatever somebody else's module does when it is imported, our own methods must go on working
            self.broken[name] = f"{what} cannot be loaded: {type(error).__name__}: {error}; repair its package or remove it"
            return
        if not isinstance(method, self.kind) or method.name != name:
            self.broken[name] = f"{what} is not a {self.kind.__name__} called {name}; repair its package or remove it"
            return
        self._loaded[name] = method


def _somebody_adds() -> bool:
    """Whether any installed package mentions the group: reading the files takes a fifth of the time of importlib.metadata."""
    marker = GROUP.encode()
    for folder in sys.path:
        try:
            names: Sequence[str] = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(folder, name, "entry_points.txt"), "rb") as file:
                        if marker in file.read():
                            return True
                except OSError:
                    continue
    return False
