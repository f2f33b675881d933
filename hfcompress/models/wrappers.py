"""Models inside wrappers of `torch.compile` and data parallelism, and modules and weights that a model shares."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

from accelerate.utils import extract_model_from_parallel, is_compiled_module
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def unwrapped(model: ModuleT) -> ModuleT:
    """The model without wrappers at any depth, and with an own module at each place; for code that only reads it.

    Hooks need both: a compiled module ignores hooks that are added later, and a shared one runs those of all places.

    Args:
        model: A model, or a wrapper around one; it is not changed. It may have wrappers and shared modules inside.

    Returns:
        The inner model itself, or a copy of its modules whose parameters and buffers are those of the model.
    """
    inner = _inner(model)
    return _own_modules(inner, set()) if has_wrappers(inner) or shared_modules(inner) else inner


def unwrap_(model: ModuleT) -> ModuleT:
    """Remove wrappers at every depth, in place, and return the inner model."""
    inner = _inner(model)
    for module in inner.modules():
        module._compiled_call_impl = None
        for name, child in module._modules.items():
            if child is not None and _is_wrapper(child):
                module._modules[name] = unwrap_(child)
    return inner


def has_wrappers(model: nn.Module) -> bool:
    """Whether a model or a part of it is compiled, or wrapped for data parallelism."""
    return any(_is_wrapper(module) or module._compiled_call_impl is not None for module in model.modules())


def shared_modules(model: nn.Module) -> list[str]:
    """Names of modules with weights that stand at another name too."""
    return list(_again(model.named_modules(remove_duplicate=False), with_weights=True))


def shared_weights(model: nn.Module) -> list[str]:
    """Names of parameters that stand at another name too, apart from those that the model's class ties."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    own = (item for item in model.named_parameters(remove_duplicate=False) if item[0] not in tied)
    return list(_again(own))


def untie_(model: nn.Module, config: Any = None) -> list[str]:
    """Give every name its own module and parameters, in place, apart from those that the model's class ties.

    Args:
        model: A model, or a part of one.
        config: Its config, which is not copied.

    Returns:
        Names of the parameters that are copies now.
    """
    names = shared_weights(model)
    while modules := shared_modules(model):
        parent, _, child = modules[0].rpartition(".")
        own = copy.deepcopy(model.get_submodule(modules[0]), memo={id(config): config})
        setattr(model.get_submodule(parent), child, own)
    for name in shared_weights(model):
        parent, _, child = name.rpartition(".")
        weight = model.get_parameter(name)
        copied = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
        setattr(model.get_submodule(parent), child, copied)
    return names


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """State dict with a copy of each shared weight, as a checkpoint stores them."""
    state = model.state_dict()
    return state | {name: state[name].clone() for name in shared_weights(model)}


def _again(items: Iterator[tuple[str, Any]], with_weights: bool = False) -> Iterator[str]:
    seen = set()
    for name, item in items:
        if id(item) in seen and not (with_weights and next(item.parameters(), None) is None):
            yield name
        seen.add(id(item))


def _inner(model: ModuleT) -> ModuleT:
    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    return inner if inner is model else _inner(inner)


def _is_wrapper(module: nn.Module) -> bool:
    return isinstance(module, (DataParallel, DistributedDataParallel)) or is_compiled_module(module)


def _own_modules(module: nn.Module, seen: set[int]) -> Any:
    """Copies of the modules that are compiled, shared, or have such inside, and the others themselves."""
    if _is_wrapper(module):
        module = _inner(module)
    repeated = id(module) in seen
    seen.add(id(module))
    children = {  # not by their truth: some modules have a length
        name: None if child is None else _own_modules(child, seen) for name, child in module._modules.items()
    }
    changed = any(child is not module._modules[name] for name, child in children.items())
    if not (repeated or changed or module._compiled_call_impl is not None):
        return module
    copied = copy.copy(module)  # leaves out the compiled call
    vars(copied).update({name: copy.copy(value) for name, value in vars(copied).items() if isinstance(value, dict)})
    copied._modules = children
    return copied
