"""``njit`` for every kernel of ovskit, and where their machine code is kept.

numba's own cache wants a folder that it can write, or ends the program; looks at the file of the outermost function alone; and is
made of pickles, which run what is in them. So one place decides. Machine code is read from

1. ``$NUMBA_CACHE_DIR``, where the user says so;
2. the ``__pycache__`` beside the source, also where it is read-only: an image or a module tree that was used once brings it along;
3. ``$XDG_CACHE_HOME/ovskit`` or ``~/.cache/ovskit``;
4. ``ovskit-UID`` in ``$TMPDIR`` or ``/tmp``;

where 3 and 4 are used only if the folders before them cannot be written. It is written to the first folder that can be; without one, every
process compiles for itself. Folders 3 and 4 must be the user's own, and writable for no other user. What is damaged, of another version or
of sources that have changed since is compiled anew; failing to keep it is not an error.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numba
import numpy as np
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _Cache, _CacheLocator

from ovskit.core.runtime.cache_folder import can_write, own_folder
from ovskit.core.runtime.logs import get_logger

log = get_logger("kernels")

_PACKAGE = Path(__file__).resolve().parent.parent


def njit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """numba's ``njit``, where ``cache=True`` is the cache described above."""
    kept = options.pop("cache", False)

    def decorate(function: Callable[..., Any]) -> Any:
        kernel = numba.njit(**options)(function)  # noqa: TID251
        if kept and hasattr(kernel, "enable_caching"):  # a plain function under NUMBA_DISABLE_JIT
            kernel._cache = KernelCache(function)
        return kernel

    return decorate if function is None else decorate(function)


def is_compiled(kernel: Any) -> bool:
    """Whether there is machine code of ``kernel`` from an earlier run, perhaps of other sources."""
    found = getattr(kernel, "_cache", None)
    return isinstance(found, KernelCache) and found.is_filled()


class KernelCache(_Cache):
    """What numba asks for the machine code of one function. Nothing is looked for before the first call."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._folders: list[_Folder] | None = None
        self._target: _Folder | None = None

    def _open(self) -> list[_Folder]:
        if self._folders is None:
            read, written = places(os.path.dirname(self._function.__code__.co_filename))
            self._folders = [_Folder(self._function, path) for path in read]
            self._target = self._folders[read.index(written)] if written is not None else None
        return self._folders

    def is_filled(self) -> bool:
        """Whether an earlier run has left something."""
        return any(os.path.exists(folder.index) for folder in self._open())

    @property
    def cache_path(self) -> str | None:
        """The folder that is written."""
        self._open()
        return None if self._target is None else str(self._target.cache_path)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code for a signature, None where it has to be compiled."""
        for folder in self._open():
            try:
                found = folder.load_overload(sig, target_context)
            except Exception as error:  # unpickling what is damaged raises anything
                log.debug("cannot use %s: %r", folder.index, error)
                continue
            if found is not None:
                return found
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep it for other processes, if that can be done."""
        self._open()
        if self._target is None:
            _say_lost("no folder can be written")
            return
        try:
            self._target.save_overload(sig, data)
        except (OSError, pickle.PickleError) as error:
            _say_lost(f"cannot write {self._target.cache_path}: {getattr(error, 'strerror', None) or error}")

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None:
        """Forget what was kept."""
        for folder in self._open():
            folder.flush()


@cache
def _say_lost(why: str) -> None:
    log.warning(
        "compiled kernels are lost when this process ends, and each costs seconds: %s; set NUMBA_CACHE_DIR to a writable folder", why
    )


# Where machine code is kept.


@cache
def places(folder: str) -> tuple[list[str], str | None]:
    """Where the machine code of the sources in ``folder`` is read, in this order, and the one of these that is written, None if no folder
    can be written."""
    name = f"{os.path.basename(folder)}-{hashlib.sha256(os.path.abspath(folder).encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
    beside = os.path.join(folder, "__pycache__")
    chosen: str = getattr(config, "CACHE_DIR", "")
    if chosen and can_write(given := os.path.join(chosen, f"ovskit-{name}")):
        return [given, beside], given
    if can_write(beside):
        return [beside], beside
    own = own_folder()
    if own is not None and can_write(other := os.path.join(own, "kernels", name)):
        return [beside, other], other
    return [beside], None


# What machine code is made from.


class _Locator(_CacheLocator):
    def __init__(self, function: Any, folder: str) -> None:
        self._py_file = function.__code__.co_filename  # numba's name, for its warnings
        self._function, self._folder = function, folder

    def ensure_cache_path(self) -> None: ...

    def get_cache_path(self) -> str:
        return self._folder

    def get_source_stamp(self) -> str:
        return source_stamp(self._function)

    def get_disambiguator(self) -> str:
        return str(self._function.__code__.co_firstlineno)


class _Impl(CompileResultCacheImpl):
    def __init__(self, function: Any, folder: str) -> None:
        self._lineno = function.__code__.co_firstlineno
        self._locator = _Locator(function, folder)
        name = f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}"
        self._filename_base = self.get_filename_base(name, getattr(sys, "abiflags", ""))


class _Folder(FunctionCache):
    """numba's cache of one function in a folder that is ours to choose."""

    def __init__(self, function: Any, folder: str) -> None:
        self._impl_class: Any = partial(_Impl, folder=folder)
        super().__init__(function)

    @property
    def index(self) -> str:
        return os.path.join(self.cache_path, f"{self._impl.filename_base}.nbi")


def source_stamp(function: Any) -> str:
    """A hash of all that machine code of ``function`` comes from: its file, those of the functions that it calls, and the constants."""
    digest = hashlib.sha256()
    for part in sorted(set(_parts(function, set()))):
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _parts(function: FunctionType, seen: set[FunctionType]) -> Iterator[str]:
    seen.add(function)
    yield _hash_of(function.__code__.co_filename)
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        called = getattr(value, "py_func", None) or getattr(value, "_defn", None)  # of a kernel; of an intrinsic
        if isinstance(called, FunctionType):
            if called not in seen:
                yield from _parts(called, seen)
        elif isinstance(value, ModuleType) and value.__name__.startswith("ovskit."):
            yield _hash_of(str(value.__file__))
        elif isinstance(value, int | float | str | tuple | np.generic | np.dtype):
            yield f"{name}={value!r}"


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@cache
def _hash_of(path: str) -> str:
    name = os.path.relpath(os.path.realpath(path), _PACKAGE)  # the same wherever the package is
    return f"{name}:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
