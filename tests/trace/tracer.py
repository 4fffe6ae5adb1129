"""Counts what every operation on fake tensors would take."""

import weakref
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from tests.trace.quantized import flops, operations

aten = torch.ops.aten
_READS = (aten._local_scalar_dense.default, aten.item.default)
# What is drawn has no value here: none is drawn for fake tensors.
_RANDOM = (aten.bernoulli_, aten.native_dropout, aten.rand, aten.randn, aten.normal_, aten.uniform_)
_SHADOWED = 1 << 22  # values, at most: those of tokens and masks, never of weights


@dataclass
class Trace:
    """What a trace counted; bytes.

    Attributes
    ----------
    peak
        The most that was live on the device at once.
    live_at_peak
        The same, by the phase in which each tensor was made.
    elementwise
        Read and written by elementwise operations, by type.
    elsewhere
        Made on other devices.
    flops
        Of matrix products.
    operations
        How often each (operation, device, types of its tensors) was run.
    """

    peak: int = 0
    live: int = 0
    live_at_peak: dict[str, int] = field(default_factory=dict)
    phases: Counter[str] = field(default_factory=Counter)
    elementwise: Counter[torch.dtype] = field(default_factory=Counter)
    elsewhere: int = 0
    flops: int = 0
    operations: Counter[tuple[str, str, tuple[str, ...]]] = field(default_factory=Counter)

    def restart(self) -> None:
        """Count anew from here; what is live stays live."""
        self.peak, self.flops, self.elsewhere = self.live, 0, 0
        self.live_at_peak = dict(self.phases)
        self.elementwise.clear()
        self.operations.clear()


class Tracer(TorchDispatchMode):
    """Counts within it; to be entered inside a ``FakeTensorMode``.

    Values that follow from tokens and masks alone are computed beside the fake ones, so that code
    that looks at them (where do the answers begin?) goes its usual way. A loss is 1, and a token
    that the model chooses is one after the other.

    Parameters
    ----------
    device : str
        The type of the device whose memory is counted.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.phase = device, ""
        self.trace = Trace()
        self.instead, self.flops = operations(), {**flop_registry, **flops()}
        self.tokens = cycle(range(2, 250))
        self.seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, and count it."""
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled() and func._can_decompose():
            with self:  # elsewhere autograd has done it
                return func.decompose(*args, **kwargs)
        leaves = tree_leaves((args, kwargs))
        given: list[Any] = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        known = bool(given) and all(hasattr(tensor, "shadow") for tensor in given)
        if func in _READS:
            return self._value(given[0])
        if known and func is aten.nonzero.default:
            with _disable_current_modes():
                size = int(given[0].shadow.count_nonzero())
            out = torch.empty((size, given[0].ndim), dtype=torch.long, device=given[0].device)
        else:
            out = self.instead.get(func, func)(*args, **kwargs)
        made: list[Any] = [leaf for leaf in tree_leaves(out) if isinstance(leaf, FakeTensor)]
        if known or (not given and made and not made[0].is_floating_point()):
            self._shadow(func, made, args, kwargs)
        elif func is aten.lift_fresh.default and type(given[0]) is torch.Tensor:
            made[0].shadow = given[0]
        for tensor in made:
            tensor.constant = None  # where all arguments have one, PyTorch would run the kernel
            self._hold(tensor)
        self._count(func, given, made, args, kwargs, out)
        return out

    def _hold(self, tensor: FakeTensor) -> None:
        if tensor.fake_device.type != self.device:
            if tensor.fake_device.type != "meta":
                self.trace.elsewhere += tensor.numel() * tensor.element_size()
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.seen:
            return
        size, phase, trace = storage.nbytes(), self.phase, self.trace

        def free(_: Any) -> None:
            self.seen.pop(key, None)
            trace.live -= size
            trace.phases[phase] -= size

        self.seen[key] = weakref.ref(storage, free)
        trace.live += size
        trace.phases[phase] += size
        if trace.live > trace.peak:
            trace.peak, trace.live_at_peak = trace.live, dict(trace.phases)

    def _count(
        self, func: Any, given: list[Any], made: list[Any], args: Any, kwargs: Any, out: Any
    ) -> None:
        if not made:
            return
        trace = self.trace
        if (count := self.flops.get(func.overloadpacket)) is not None:
            trace.flops += count(*args, **kwargs, out_val=out)
        elif torch.Tag.pointwise in func.tags or func in _COPIES:
            for tensor in {id(t): t for t in (*given, *made)}.values():
                trace.elementwise[tensor.dtype] += tensor.numel() * tensor.element_size()
        names = tuple(_name(t.dtype) for t in given)
        trace.operations[str(func), made[0].device.type, names] += 1

    def _shadow(self, func: Any, made: list[Any], args: Any, kwargs: Any) -> None:
        if func.overloadpacket in _RANDOM or any(t.numel() > _SHADOWED for t in made):
            return
        known = {name: "cpu" if name == "device" else value for name, value in kwargs.items()}
        args, known = tree_map(lambda leaf: getattr(leaf, "shadow", leaf), (args, known))
        with _disable_current_modes():
            values = tree_leaves(func(*args, **known))
        for fake, value in zip(made, values, strict=True):
            fake.shadow = value

    def _value(self, tensor: Any) -> Any:
        if hasattr(tensor, "shadow"):
            with _disable_current_modes():
                return tensor.shadow.item()
        if tensor.dtype.is_floating_point:
            return 1.0
        return True if tensor.dtype is torch.bool else next(self.tokens)


_COPIES = (
    aten._to_copy.default,
    aten.copy_.default,
    aten.clone.default,
    aten.native_dropout.default,
)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
