"""A backward pass in Python, where PyTorch's own engine needs a CUDA driver.

It visits the graph as the engine does: a node as soon as all its gradients are there, of those
ready the one made last. What a node saved goes away with it, as in the engine.
"""

import gc
import heapq
from collections.abc import Sequence
from typing import Any

import torch

# The engine's nodes that add up gradients come first.
_FIRST = 1 << 62


def backward(loss: torch.Tensor) -> None:
    """Do what ``loss.backward()`` does; tensors that the graph made lose it."""
    run([loss], [torch.ones_like(loss)])


@torch.no_grad()
def run(outputs: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], **options: Any) -> None:
    """Do what ``torch.autograd.backward`` does; tensors that the graph made lose it."""
    roots: list[Any] = [output.grad_fn for output in outputs]
    nodes, waiting = _graph(roots)
    held = _held(nodes)
    grads: dict[int, dict[int, Any]] = {}
    for output, root, gradient in zip(outputs, roots, gradients, strict=True):
        grads.setdefault(id(root), {})[output.output_nr] = gradient
    del outputs, gradients, output, gradient
    ready = [(-_rank(root), id(root)) for root in roots if not waiting[id(root)]]
    heapq.heapify(ready)
    del roots, root
    while ready:
        _, key = heapq.heappop(ready)
        node = nodes.pop(key)
        inputs = _inputs(node, grads.pop(key, {}))
        given = _call(node, inputs) if any(g is not None for g in inputs) else ()
        del inputs
        edges = node.next_functions
        for tensor in held.pop(key, ()):
            tensor.detach_()
        del node
        for number, (after, place) in enumerate(edges):
            if after is None:
                continue
            grad = given[number] if number < len(given) else None
            if grad is not None:
                places = grads.setdefault(id(after), {})
                places[place] = grad if place not in places else places[place] + grad
            waiting[id(after)] -= 1
            if not waiting[id(after)]:
                heapq.heappush(ready, (-_rank(after), id(after)))
        given = grad = edges = after = None


def _graph(roots: list[Any]) -> tuple[dict[int, Any], dict[int, int]]:
    nodes = {id(root): root for root in roots}
    waiting, stack = dict.fromkeys(nodes, 0), list(nodes.values())
    while stack:
        for after, _ in stack.pop().next_functions:
            if after is None:
                continue
            waiting[id(after)] = waiting.get(id(after), 0) + 1
            if id(after) not in nodes:
                nodes[id(after)] = after
                stack.append(after)
    return nodes, waiting


def _held(nodes: dict[int, Any]) -> dict[int, list[torch.Tensor]]:
    """The tensors that code still holds, by the node that made them: they would keep it alive."""
    held: dict[int, list[torch.Tensor]] = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor) and thing.requires_grad and thing.grad_fn is not None:
            key = id(thing.grad_fn)
            if key in nodes and not thing._is_view():
                held.setdefault(key, []).append(thing)
    return held


def _rank(node: Any) -> int:
    return _FIRST if _adds_up(node) else node._sequence_nr()


def _adds_up(node: Any) -> bool:
    return type(node).__name__ == "AccumulateGrad"


def _inputs(node: Any, grads: dict[int, Any]) -> list[Any]:
    inputs = []
    for place, metadata in enumerate(node._input_metadata):
        grad = grads.pop(place, None)
        # As the engine does before a node sees it.
        if grad is not None and grad.dtype != metadata.dtype:
            grad = grad.to(metadata.dtype)
        inputs.append(grad)
    return inputs


def _call(node: Any, inputs: list[Any]) -> tuple[Any, ...]:
    if _adds_up(node):
        variable, grad = node.variable, inputs[0]
        variable.grad = grad if variable.grad is None else variable.grad + grad
        return ()
    if not isinstance(node, torch.autograd.function.BackwardCFunction):
        given = node(*inputs)
        return given if isinstance(given, tuple) else (given,)
    given = node.apply(*inputs)
    given = given if isinstance(given, tuple) else (given,)
    # One for each argument, tensor or not; the graph knows those that want one.
    wanted = iter([g for g, needs in zip(given, node.needs_input_grad, strict=False) if needs])
    return tuple(next(wanted) if after is not None else None for after, _ in node.next_functions)
