"""Backward pass in Python, for tensors on a device that does not exist."""

import torch
from torch.utils.checkpoint import GraphExecGroup


def backward(tensors, grad_tensors=None, *_, **__):
    """Backward pass in Python, because PyTorch's engine needs the streams of a real card."""
    loss = tensors[0] if isinstance(tensors, (list, tuple)) else tensors
    given = grad_tensors[0] if grad_tensors and grad_tensors[0] is not None else torch.ones_like(loss)
    gradients = {loss.grad_fn: [given]}
    # Outside of PyTorch's engine, only a group makes a checkpointed block run again once instead of once per tensor.
    with torch.no_grad(), GraphExecGroup():
        for node in _ordered(loss.grad_fn):
            incoming = gradients.pop(node, None)
            if incoming is None:
                continue
            if hasattr(node, 'variable'):
                parameter, gradient = node.variable, incoming[0]
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
                continue
            outgoing = node(*incoming)
            outgoing = outgoing if isinstance(outgoing, tuple) else (outgoing,)
            for (following, slot), gradient in zip(node.next_functions, outgoing, strict=False):
                if following is None or gradient is None:
                    continue
                wanted = following._input_metadata
                slots = gradients.setdefault(following, [None] * len(wanted))
                assert gradient.device == wanted[slot].device, f'{node.name()}: {gradient.device}'
                gradient = gradient.sum_to_size(wanted[slot].shape).to(wanted[slot].dtype)
                slots[slot] = gradient if slots[slot] is None else slots[slot] + gradient


def _ordered(root):
    """Returns the nodes of a graph, each before those that follow it in the backward pass."""
    order, seen, stack = [], {root}, [(root, iter(root.next_functions))]
    while stack:
        node, following = stack[-1]
        child = next((child for child, _ in following if child is not None and child not in seen), None)
        if child is None:
            order.append(node)
            stack.pop()
        else:
            seen.add(child)
            stack.append((child, iter(child.next_functions)))
    return reversed(order)
