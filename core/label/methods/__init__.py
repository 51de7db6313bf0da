"""The methods of ``ovs-label``: a module each, chosen by its required option."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ovskit.core.runtime.declared import Declared
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import Method, Registry
from ovskit.core.runtime.settings import fields_of

LABEL = Registry("label", __name__, ("clusters", "centroids", "names"))


def method_of(given: Mapping[str, Any]) -> str:
    """The name of the method whose own option is among those that are given. Raises UsageError if there is not exactly one."""
    keys = {method.name: _key(method) for method in LABEL}
    asked = [name for name, key in keys.items() if key.name in given]
    if len(asked) != 1:
        *most, last = [f"{key.flag} {key.metavar}" for key in keys.values()]
        raise UsageError(f"say how to label, in one way: {', '.join(most)} or {last}")
    return asked[0]


def _key(method: Method) -> Declared:
    return next(one for one in fields_of(method.options) if one.default is dataclasses.MISSING)
