"""A card that is none: tensors that say they are on ``cuda:0`` while the CPU holds and computes them.

A real card is had rarely. On this one tests marked ``gpu`` run anywhere (``--pretend-card``, or OVSKIT_PRETEND_CARD=1), and find what
CUDA would refuse: NumPy taken of a tensor of the card, operations between the card and the CPU, indices of the card into
tensors of the CPU, a CPU's generator for the card's numbers. What CUDA allows is allowed: tensors without dimensions of the
CPU in elementwise operations, indices of the CPU into tensors of the card, and copies. ``Card.waits`` counts what a CPU
would wait for. Random numbers of the card are another stream than the CPU's, as on a real one.

    python -m tests.pretend_card ovs-predict --device cuda …

It cannot tell how fast or how exact a card is. Autocast is the CPU's, which casts nearly the same operations and tensors of the CPU too.
Inference mode is no_grad. It has no streams, no distribution, and torch.compile does not see through it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

CARD = torch.device("cuda", 0)
_CPU = torch.device("cpu")
_MEMORY = 80 << 30

# What takes even a tensor without dimensions from the card alone.
_STRICT = (
    "cat", "stack", "gather", "scatter", "index_select", "index_add", "index_copy", "mm", "bmm", "addmm", "baddbmm", "embedding",
    "convolution", "native_layer_norm", "native_batch_norm", "grid_sampler", "_fused_", "topk", "sort", "equal", "bincount",
    "masked_scatter",
)  # fmt: skip
_INDEXING = ("index", "index_put", "_index_put_impl", "_unsafe_index", "_unsafe_index_put")
_WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "bincount", "repeat_interleave", "linalg_eigh")
_FACTORIES = ("zeros", "ones", "empty", "full", "arange", "eye", "linspace", "empty_strided", "scalar_tensor", "rand", "randn", "randperm")
_RANDOM = ("rand", "randn", "randint", "randperm", "normal")
_LEAVING = ("numpy", "__array__", "__dlpack__", "data_ptr", "untyped_storage")


class Card(torch.Tensor):
    """A tensor of the card. ``inside`` is what it holds, a tensor of the CPU."""

    inside: torch.Tensor
    waits: ClassVar[Counter[str]] = Counter()
    moved: ClassVar[int] = 0  # bytes, by moves to the card and from it
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inside: torch.Tensor) -> Card:
        made: Card = torch.Tensor._make_wrapper_subclass(
            cls, inside.size(), strides=inside.stride(), storage_offset=inside.storage_offset(), dtype=inside.dtype, device=_CPU
        )  # type: ignore[attr-defined]
        made.inside = inside
        return made

    # To C++ it is a tensor of the CPU: its backward pass would otherwise look for the threads of a device that is not there.
    device = property(lambda self: CARD)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def get_device(self) -> int:
        return 0

    def __repr__(self, **_: Any) -> str:
        return f"Card({self.inside!r})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inside"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, torch.Tensor], _about: None, _size: Any, _stride: Any) -> Card:
        return Card(parts["inside"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        if name == "copy":
            _of_copy(args[0], args[1])
            with torch._C.DisableTorchFunction():
                func(*_inside(args), **_inside(kwargs))
            return args[0]
        _check(name, args, kwargs)
        _count(name, args)
        with torch._C.DisableTorchFunction():
            found = func(*_inside(args), **_inside(kwargs))
        wrapped = tree_map_only(torch.Tensor, lambda x: Card(x) if x.device.type == "cpu" and not isinstance(x, Card) else x, found)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _inside(value: Any) -> Any:
    return tree_map_only(Card, lambda x: x.inside, value)


def _of_copy(to: torch.Tensor, of: torch.Tensor) -> None:
    if isinstance(to, Card) != isinstance(of, Card):
        Card.waits["download" if isinstance(of, Card) else "upload"] += 1


def _check(name: str, args: Any, kwargs: Any) -> None:
    """Raise RuntimeError as CUDA does for what it takes from two devices, or for a CPU's generator."""
    flat = tree_flatten((args, kwargs))[0]
    if any(isinstance(one, torch.Generator) for one in flat):
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    if name in _INDEXING:
        if not isinstance(args[0], Card):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        if any(isinstance(one, torch.Tensor) and not isinstance(one, Card) for one in args[1]):
            Card.waits["upload of an index"] += 1
        flat = tree_flatten(args[2:])[0]
    strict = name.startswith(_STRICT)
    for one in flat:
        if isinstance(one, torch.Tensor) and not isinstance(one, Card) and one.device.type == "cpu" and (strict or one.dim()):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({name})")


def _count(name: str, args: Any) -> None:
    if name in _WAITING:
        Card.waits[name] += 1
    if name in _INDEXING and any(isinstance(one, torch.Tensor) and one.dtype == torch.bool for one in args[1]):
        Card.waits["index by truth"] += 1


class _ToCard(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return Card(x.detach().clone())

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return _inside(gradient).clone()


class _FromCard(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Card) -> torch.Tensor:
        return x.inside.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return Card(gradient.detach().clone())


def _moved(x: torch.Tensor, device: torch.device | None, *, waiting: bool = True) -> torch.Tensor:
    if device is None or (device.type == "cuda") == isinstance(x, Card):
        return x
    if waiting:
        Card.waits["upload" if device.type == "cuda" else "download"] += 1
    Card.moved += x.numel() * x.element_size()
    found: torch.Tensor = (_ToCard if device.type == "cuda" else _FromCard).apply(x)
    return found


class _InternalFactories(TorchDispatchMode):
    """What an operation on tensors of the card makes for itself is on the card too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():
            found = func(*args, **(kwargs or {}))
        own = func._schema.name.removeprefix("aten::") in _FACTORIES and isinstance(found, torch.Tensor)
        return Card(found) if own and not isinstance(found, Card) and found.device.type == "cpu" else found


class _Calls(TorchFunctionMode):
    """Moves between the devices, and tensors made on the card."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        first = args[0] if args else kwargs.get("input")
        if isinstance(first, torch.Tensor) and name in ("to", "cpu", "cuda"):
            return _to(name, first, args[1:], kwargs)
        if name in ("pin_memory", "is_pinned"):
            return first if name == "pin_memory" else False
        if isinstance(first, Card):
            if name in _LEAVING:
                raise TypeError(
                    f"can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first. ({name})"
                )
            if name == "tolist":
                Card.waits["tolist"] += 1
                return first.inside.tolist()
        device = None if kwargs.get("device") is None else _device(kwargs["device"])
        if device is not None and device.type in ("cpu", "cuda"):
            return _made(func, name, device, args, kwargs)
        if not (_any_of_card(args) or _any_of_card(kwargs.values())):
            return func(*args, **kwargs)
        if name == "new_tensor":
            return Card(func(first.inside, *args[1:], **kwargs))
        with _InternalFactories():
            return func(*args, **kwargs)


def _any_of_card(values: Iterable[Any]) -> bool:
    """Not in dicts: what is copied deeply comes with all that was copied before."""
    return any(isinstance(one, Card) or (isinstance(one, list | tuple) and _any_of_card(one)) for one in values)


def _device(value: Any) -> torch.device:
    return torch.device("cuda", value) if isinstance(value, int) else torch.device(value)


def _made(func: Any, name: str, device: torch.device, args: Any, kwargs: Any) -> Any:
    """What a call with ``device`` makes."""
    kwargs["device"] = "cpu"
    if name in ("as_tensor", "asarray") and args and isinstance(args[0], torch.Tensor):
        return _moved(args[0] if kwargs.get("dtype") is None else args[0].to(kwargs["dtype"]), device)
    if device.type == "cuda" and name in _RANDOM:
        if kwargs.get("generator") is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        kwargs["generator"] = _generator
    found = func(*_inside(args), **_inside(kwargs))
    if device.type == "cuda" and name in ("tensor", "as_tensor"):
        Card.waits["upload"] += 1
    made: Any = tree_map_only(torch.Tensor, lambda x: Card(x.detach()), found) if device.type == "cuda" else found
    return made.requires_grad_() if kwargs.get("requires_grad") else made


def _to(name: str, x: torch.Tensor, args: Any, kwargs: Any) -> torch.Tensor:
    """``x.to(…)``, ``x.cpu()`` and ``x.cuda()``."""
    if name != "to":
        return _moved(x, CARD if name == "cuda" else _CPU)
    rest: list[Any] = []
    device: torch.device | None = None
    for one in args:
        if isinstance(one, torch.Tensor):
            device, rest = one.device, [*rest, one.dtype]
        elif isinstance(one, str | torch.device) or (isinstance(one, int) and not isinstance(one, bool) and not rest):
            device = _device(one)
        elif isinstance(one, torch.dtype | bool):
            rest.append(one)
    named = kwargs.pop("device", None)
    device = device if named is None else _device(named)
    if device is not None and device.type not in ("cpu", "cuda"):
        return torch.Tensor.to(x, device, *rest, **kwargs)
    dtype = kwargs.get("dtype") or next((one for one in rest if isinstance(one, torch.dtype)), None)
    kept = {key: kwargs[key] for key in ("memory_format", "copy") if key in kwargs}
    # On the side that it comes from, as torch does.
    converted = torch.Tensor.to(x, x.dtype if dtype is None else dtype, **kept)
    return _moved(converted, device, waiting=not kwargs.get("non_blocking"))


_generator = torch.Generator()


def _seed(seed: int) -> None:
    _generator.manual_seed((int(seed) + 0x9E3779B9) % (1 << 63))


def _start(run: Callable[[Any], None]) -> Callable[[Any], None]:
    def started(thread: threading.Thread) -> None:
        with _Calls():
            run(thread)

    return started


def _back(run: Callable[..., Any]) -> Callable[..., Any]:
    def back(*args: Any, **kwargs: Any) -> Any:
        with _Calls():  # what is computed again on the way back is anybody's code
            return run(*args, **kwargs)

    return back


def _grouped(group: Callable[..., Any]) -> Callable[..., Any]:
    def grouped(tensors: Any, with_indices: bool = False) -> Any:
        found = group(tensors, with_indices)
        on = CARD if any(isinstance(one, Card) for some in tensors for one in some) else None
        return {(on or device, dtype): rest for (device, dtype), rest in found.items()}

    return grouped


def _swapped(swap: Callable[..., None]) -> Callable[..., None]:
    def swapped(one: torch.Tensor, other: torch.Tensor) -> None:
        if isinstance(one, Card) and isinstance(other, Card):  # a module that is on the card already
            one.inside = other.inside
        else:
            swap(one, other)

    return swapped


def _autocast(init: Callable[..., None]) -> Callable[..., None]:
    def inited(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        if device_type == "cuda":
            args = (torch.float16,) if not args and kwargs.get("dtype") is None else args
            kwargs = {key: value for key, value in kwargs.items() if value is not None}
        init(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    return inited


def _state(_device: Any = None) -> torch.Tensor:
    return _generator.get_state()


def _cuda() -> dict[str, Any]:
    """What is asked of torch.cuda."""
    about = SimpleNamespace(name="a pretend card", total_memory=_MEMORY, major=9, minor=0, multi_processor_count=1)
    nothing: Any = lambda *_, **__: None  # noqa: E731
    return {
        "is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0, "set_device": nothing, "_lazy_init": nothing,
        "is_initialized": lambda: True, "synchronize": nothing, "empty_cache": nothing, "reset_peak_memory_stats": nothing,
        "memory_allocated": lambda *_: 0, "max_memory_allocated": lambda *_: 0, "memory_reserved": lambda *_: 0,
        "mem_get_info": lambda *_: (_MEMORY, _MEMORY), "get_device_name": lambda *_: about.name, "get_device_properties": lambda *_: about,
        "get_device_capability": lambda *_: (9, 0), "is_bf16_supported": lambda including_emulation=True: True,
        "manual_seed": _seed, "manual_seed_all": _seed, "get_rng_state": _state, "get_rng_state_all": lambda: [_state()],
        "set_rng_state": lambda state, _device=None: _generator.set_state(state),
        "set_rng_state_all": lambda states: _generator.set_state(states[0]), "is_current_stream_capturing": lambda: False,
    }  # fmt: skip


@contextmanager
def pretending() -> Iterator[None]:
    """The card is there, in this thread and in those that are started meanwhile."""
    import torch._dynamo  # modes bring it in, and it must know torch.cuda's own functions
    import torch.optim.optimizer as optimizer
    import torch.utils._foreach_utils as foreach

    grouped = _grouped(foreach._group_tensors_by_device_and_dtype)
    with ExitStack() as stack:
        for name, function in _cuda().items():
            stack.enter_context(mock.patch.object(torch.cuda, name, function))
        for place, name, made in (
            (threading.Thread, "run", _start(threading.Thread.run)),
            (torch.amp.autocast_mode.autocast, "__init__", _autocast(torch.amp.autocast_mode.autocast.__init__)),
            (foreach, "_group_tensors_by_device_and_dtype", grouped),
            (optimizer, "_group_tensors_by_device_and_dtype", grouped),
            (torch.nn.utils.clip_grad, "_group_tensors_by_device_and_dtype", grouped),
            (torch, "inference_mode", lambda mode=True: torch.no_grad() if mode else nullcontext()),  # wrappers have none
            (torch.autograd, "_engine_run_backward", _back(torch.autograd._engine_run_backward)),
            (torch.utils, "swap_tensors", _swapped(torch.utils.swap_tensors)),
        ):
            stack.enter_context(mock.patch.object(place, name, made))
        for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):  # by torch's version
            if hasattr(optimizer.Optimizer, name):
                stack.enter_context(mock.patch.object(optimizer.Optimizer, name, return_value=None))
        _seed(torch.initial_seed())
        Card.waits.clear()
        stack.enter_context(_Calls())
        yield


def main() -> None:
    """Run a command of ovskit on the pretend card."""
    import importlib

    tool, sys.argv = sys.argv[1], sys.argv[1:]
    with pretending():
        importlib.import_module(f"ovskit.cli.{tool.removeprefix('ovs-')}").app()


if __name__ == "__main__":
    main()
