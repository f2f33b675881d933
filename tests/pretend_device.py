"""A pretend accelerator: tensors that compute on the CPU, and refuse every operation that a GPU would refuse.

Tensors on the device `pretend` hold their values in a tensor on the CPU. An operation on tensors of both devices
raises, as it does with CUDA; only a tensor without dimensions may come from the CPU. Copies to the CPU are counted,
since each of them would wait for a GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
aten = torch.ops.aten
# Take tensors of two devices also with CUDA, or indices from the CPU.
COPIES = {aten._to_copy.default, aten.copy_.default, aten.to.dtype_layout}
CPU_INDICES = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}
QUESTIONS = {aten._has_compatible_shallow_copy_type.default}


class MixedDevices(RuntimeError):
    """An operation on tensors of two devices."""


class PretendTensor(torch.Tensor):
    """A tensor on the pretend device; `values` are on the CPU."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> PretendTensor:
        found = torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=torch.device(NAME, 0),
            requires_grad=False,
        )
        found.values = values
        return found

    def __repr__(self, **_: Any) -> str:
        return f"PretendTensor({tuple(self.shape)}, {self.dtype})"

    def tolist(self) -> Any:
        """One copy, as from a GPU; PyTorch has none for tensors of subclasses."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch.inference_mode(False):  # whose tensors cannot be made here
            if _is_composite(func):  # in inference mode, PyTorch leaves them whole
                with _Factories():
                    return func.decompose(*args, **(kwargs or {}))
            return computed(func, args, kwargs or {})


def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


reads: Counter[str] = Counter()


def computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of an operation on the pretend device, or a MixedDevices error."""
    if func in QUESTIONS:
        return False
    tensors: list[torch.Tensor] = []
    tree_map_only(torch.Tensor, tensors.append, (args, kwargs))
    pretend = any(isinstance(each, PretendTensor) for each in tensors)
    wanted = kwargs.get("device")
    target = torch.device(wanted).type if wanted is not None else None
    if func in COPIES and func is not aten.copy_.default:
        to_cpu = target == "cpu" and pretend
        reads["copies"] += to_cpu
        stays = pretend and target is None
        inner = {**kwargs, "device": torch.device("cpu")} if wanted is not None else kwargs
        found = func(*_values(args), **_values(inner))
        if to_cpu and found is _values(args)[0]:
            found = found.clone()
        return PretendTensor(found) if target == NAME or stays else found
    if func is aten.copy_.default:
        if isinstance(args[1], PretendTensor) and not isinstance(args[0], PretendTensor):
            reads["copies"] += 1
        func(*_values(args), **_values(kwargs))
        return args[0]
    if func is aten._local_scalar_dense.default:
        reads["scalars"] += pretend
    if pretend and func not in CPU_INDICES:
        other = [each for each in tensors if not isinstance(each, PretendTensor) and each.dim()]
        if other:
            raise MixedDevices(f"{func}: {[(type(each).__name__, tuple(each.shape)) for each in tensors]}")
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    found = func(*_values(args), **_values(kwargs))
    if target == NAME or (pretend and target is None):
        return _wrapped(func, found, args, kwargs)
    return found


def _values(nested: Any) -> Any:
    return tree_map_only(PretendTensor, lambda each: each.values, nested)


def _wrapped(func: Any, found: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result on the pretend device; what was changed in place is the same object as before."""
    given: dict[int, PretendTensor] = {}
    tree_map_only(PretendTensor, lambda each: given.setdefault(id(each.values), each), (args, kwargs))
    return tree_map_only(
        torch.Tensor, lambda each: given[id(each)] if id(each) in given else PretendTensor(each), found
    )


class _Factories(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        wanted = kwargs.get("device")
        if wanted is not None and torch.device(wanted).type == NAME:
            with torch.inference_mode(False):
                return computed(func, args, kwargs)
        return func(*args, **kwargs)


class _FromData(TorchFunctionMode):
    """`torch.tensor` copies to its device where no dispatch mode sees it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device).type == NAME:
            return func(*args, **{**kwargs, "device": "cpu"}).to(device)
        if func is torch.Tensor.__getitem__ and isinstance(args[0], PretendTensor) and isinstance(args[1], tuple):
            indices = tuple(torch.tensor(each) if isinstance(each, list) else each for each in args[1])
            return func(args[0], indices)
        if func is torch.Tensor.new_tensor and isinstance(args[0], PretendTensor):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}).to(args[0].device)
        return func(*args, **kwargs)


class _Backend:
    """What PyTorch asks of the module of a kind of devices. Outside the block there is none of this kind."""

    active = False

    def is_available(self) -> bool:
        return self.active

    is_initialized = is_available

    def device_count(self) -> int:
        return int(self.active)

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class _Hook(torch._C._acc.PrivateUse1Hooks):  # type: ignore[name-defined, misc]
    def is_available(self) -> bool:
        return backend.active

    def has_primary_context(self, dev_id: int) -> bool:
        return backend.active

    def is_built(self) -> bool:
        return True


backend = _Backend()


@cache
def _register() -> None:
    _setup_privateuseone_for_python_backend(NAME, backend, _Hook())


@contextmanager
def pretend_device() -> Iterator[torch.device]:
    """Within the block there is a pretend device; yields it."""
    _register()
    reads.clear()
    backend.active = True
    try:
        with _Factories(), _FromData():
            yield torch.device(NAME, 0)
    finally:
        backend.active = False


def start_autograd() -> None:
    """Start PyTorch's autograd while the device is there: it counts devices at the first backward pass of a process."""
    with pretend_device() as device:
        torch.ones(1, requires_grad=True).to(device).sum().backward()
