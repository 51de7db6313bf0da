"""The weights in a TorchScript archive, such as OpenAI's CLIP, without running or compiling any of its code.

An archive is a zip of stored records: ``data.pkl``, a pickle of the module's objects; ``data/0``, ``data/1``, …, the bytes of its
tensors; and ``code/``, which is not opened. The pickle is read by a machine that does only what torch's own pickles need, and knows
four things only: tensors over those bytes, empty objects for the archive's own classes, lists and ordered dictionaries. A pickle that
asks for anything else is refused before it gets it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from ovskit.core.models.weights.layouts import State
from ovskit.core.runtime.errors import InputError

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# What torch writes such pickles with, and a few of their kind.
_OPERATIONS = frozenset(
    "PROTO STOP MARK GLOBAL REDUCE NEWOBJ BUILD BINPERSID BINPUT LONG_BINPUT BINGET LONG_BINGET NONE NEWTRUE NEWFALSE BININT BININT1 "
    "BININT2 LONG1 BINFLOAT BINUNICODE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS".split()
)
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
_MOST = 100_000  # names: an object may be in many places, without end in a hostile file
_DEEPEST = 100
_CONVERT = "with trusted files, torch.save(torch.jit.load(FILE).state_dict(), OTHER) in Python makes one that can be read"


def read_torchscript(path: Path) -> State:
    """The tensors of an archive's modules by their names, on the CPU: parameters, buffers, and where scripting kept them others.

    Raises InputError for an archive that is damaged or whose objects are more than modules, tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next((name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1), None)
            if root is None:
                raise InputError(f"{path}: a TorchScript archive without data.pkl; fetch it again")
            folder = root.removesuffix("data.pkl")
            if f"{folder}byteorder" in archive.namelist() and _stored(archive, f"{folder}byteorder") != b"little":
                raise InputError(f"{path}: a TorchScript archive of a big-endian machine is not read; {_CONVERT}")
            content = _Objects(archive, folder).load()
            return _tensors(content)
    except _RefusedError as error:
        raise InputError(f"{path}: a TorchScript archive that holds more than modules and tensors ({error}), refused; {_CONVERT}") from None
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything, and a damaged zip a good deal
        raise InputError(f"{path}: not a complete TorchScript archive ({type(error).__name__}); fetch it again") from None


class _RefusedError(Exception):
    """The pickle asks for what no module needs."""


class _Module:
    """What stands for an object of one of the archive's classes."""


class _Objects(pickle.Unpickler):
    """The machine of the module's docstring."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        content = _stored(archive, f"{folder}data.pkl")
        for operation, _, _ in pickletools.genops(content):  # reads them and does none
            if operation.name not in _OPERATIONS:
                raise _RefusedError(operation.name)
        super().__init__(io.BytesIO(content))
        self._archive, self._folder = archive, folder
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The only way by which a pickle gets hold of anything. What it gets cannot be changed by it, or is made anew."""
        if module == "__torch__" or module.startswith("__torch__."):
            return type("_Module", (_Module,), {})
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name in _LISTS:
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return self._untagged
        raise _RefusedError(f"{module}.{name}"[:80])

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """The values (n,) of one record."""
        kind, dtype, key, _device, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or type(key) is not str or type(count) is not int:
            raise _RefusedError("a tensor's storage of another kind")
        if key not in self._storages:
            content = bytearray(_stored(self._archive, f"{self._folder}data/{key}"))
            self._storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        values = self._storages[key]
        if values.dtype != dtype or len(values) < count:
            raise ValueError("a record is shorter than its tensor")
        return values

    def _tensor(self, values: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> torch.Tensor:
        if not isinstance(values, torch.Tensor):
            raise _RefusedError("a tensor without a storage")
        return values.as_strided(tuple(shape), tuple(strides), int(offset))  # torch refuses what is beyond the storage

    def _untagged(self, value: Any, _type: Any) -> Any:
        return value


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """A record, which torch never compresses: so none is larger than the file."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise _RefusedError("compressed records")
    return archive.read(name)


def _tensors(content: Any) -> State:
    """The tensors that modules hold, by the path to them."""
    state: State = {}
    waiting = [("", content, 0)]
    visits = 0
    while waiting:
        prefix, each, depth = waiting.pop()
        visits += 1
        if visits > _MOST or depth > _DEEPEST:
            raise _RefusedError("modules without end")
        for name, value in vars(each).items() if isinstance(each, _Module) else ():
            if isinstance(value, torch.Tensor):
                state[f"{prefix}{name}"] = value
            else:
                waiting.append((f"{prefix}{name}.", value, depth + 1))
    return state
