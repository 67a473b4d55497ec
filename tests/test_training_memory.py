"""The bytes that tests/training_memory.py counts, compared with those of a chain whose tensors are known."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from training_memory import CountedCuda, Saved

ROWS, WIDTH, LAYERS, BLOCKS = 4096, 64, 6, 5
TENSOR = ROWS * WIDTH * 4
"""Bytes of the output of a layer. The weights of a layer have 64 times fewer."""


class Chain(nn.Module):
    """Blocks of tanh layers. Each layer keeps its output for the backward pass; with checkpointing, only each block."""

    def __init__(self, checkpointing):
        super().__init__()
        layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.Tanh()) for _ in range(LAYERS * BLOCKS)]
        self.blocks = nn.ModuleList(nn.Sequential(*layers[at : at + LAYERS]) for at in range(0, len(layers), LAYERS))
        self.checkpointing = checkpointing

    def forward(self, value):
        for block in self.blocks:
            value = checkpoint(block, value, use_reentrant=False) if self.checkpointing else block(value)
        return value


@pytest.mark.parametrize(('checkpointing', 'kept'), [(False, LAYERS * BLOCKS), (True, BLOCKS + LAYERS)])
def test_peak_is_what_the_chain_keeps(checkpointing, kept):
    with CountedCuda() as card:
        model = card.placed(Chain(checkpointing))
        value, saved = torch.zeros(ROWS, WIDTH, device='cuda'), Saved()
        with saved.hooks():
            model(value).sum().backward()
        assert all(parameter.grad.shape == (WIDTH, WIDTH) for parameter in model.parameters())
    assert kept <= card.peak / TENSOR <= kept + 4, 'and a few gradients and temporary tensors'
    assert not saved.tensors
