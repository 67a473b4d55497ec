"""Preparation of a UNet and an autoencoder for prediction at a fixed timestep.

The results stay the same up to rounding. A prepared UNet has no LoRA layers and no time embedding, and the keys and
values of a fixed prompt are computed once. On the SD 2.1 UNet, the merged LoRA alone makes a pass 1.15 times faster in
float32.

Tensors are replaced and never changed in place, so that a copy that shares its tensors with the model stays valid.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from rass_mm.diffusion.adapters import merge_adapter

STORED = ('stored_key', 'stored_value')
"""Names of the buffers (heads, T, d) of a cross-attention layer that contain the keys and values of the prompt."""
QUERIES = {'self': 512, 'cross': 1024}
"""Number of queries per block of `attend`. Both are the fastest sizes for 4,096 queries in 5 heads of 64 channels."""


@torch.no_grad()
def prepare_unet(unet: UNet2DConditionModel, timestep: int, prompt: nn.Module, dtype: torch.dtype) -> None:
    """Prepares a UNet for prediction, in place.

    Its adapter is merged, the time embedding becomes part of the biases, the keys and values of `prompt` are stored if
    it is the same for all images, and the weights are cast to `dtype`. All this is computed in float32. Afterwards, the
    UNet ignores the timestep that it is called with.

    Args:
        unet: the UNet, in float32, with at most one adapter.
        timestep: the timestep of all later calls.
        prompt: the prompt module of the model. If it has a buffer `tokens`, which is the same for every image, it is
            marked as stored, and the UNet is called without context tokens, see `Prompt.conditioning`.
        dtype: dtype of the weights.
    """
    for name in list(getattr(unet, 'peft_config', {})):
        merge_adapter(unet, name)
    fold_time(unet, timestep)
    if hasattr(prompt, 'stored'):
        store_prompt(unet, prompt.tokens)
        prompt.stored = True
    prepare_network(unet, dtype)


@torch.no_grad()
def prepare_network(network: nn.Module, dtype: torch.dtype) -> None:
    """Casts a UNet or an autoencoder to `dtype` and sets the attention that is fastest on its device, in place."""
    nn.Module.to(network.requires_grad_(False), dtype)  # that of diffusers warns
    for module in network.modules():
        if isinstance(module, Attention):
            module.processor = PreparedAttention()


def fold_time(unet: UNet2DConditionModel, timestep: int) -> None:
    """Adds the time embedding of a fixed timestep to the biases of the layers that it is added to, in place."""
    place = next(unet.parameters())
    steps = torch.full((1,), timestep, device=place.device)
    embedding = unet.time_embedding(unet.time_proj(steps).to(place.dtype))
    for block in unet.modules():
        if isinstance(block, ResnetBlock2D) and block.time_emb_proj is not None:
            shift = block.time_emb_proj(block.nonlinearity(embedding))[0]
            block.conv1.bias = nn.Parameter(block.conv1.bias + shift, requires_grad=False)
            block.time_emb_proj = None
    unet.time_embedding = NoEmbedding()


class NoEmbedding(nn.Module):
    """Time embedding that returns None, because the biases of the UNet contain it."""

    def forward(self, *_: Any) -> None:
        """Returns None."""


def store_prompt(unet: UNet2DConditionModel, tokens: Tensor) -> None:
    """Stores the keys and values of context tokens (T, C) in every cross-attention layer, in place."""
    for name, layer in unet.named_modules():
        if not (isinstance(layer, Attention) and name.endswith('attn2')):
            continue
        context = tokens[None].to(layer.to_k.weight.dtype)
        for buffer, project in zip(STORED, (layer.to_k, layer.to_v), strict=True):
            layer.register_buffer(buffer, _heads(project(context), layer.heads)[0].contiguous(), persistent=False)


def _heads(x: Tensor, heads: int) -> Tensor:
    """Converts (B, N, heads * d) to (B, heads, N, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class PreparedAttention:
    """Attention processor for prediction, equal to that of diffusers.

    Without context tokens, a cross-attention layer uses the keys and values of `store_prompt`.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
        temb: None = None,
    ) -> Tensor:
        """Applies the attention layer to (B, N, C) tokens or to a (B, C, h, w) map.

        `attention_mask` and `temb` are ignored. UNets and autoencoders pass no masks in prediction.
        """
        given = hidden_states
        x = given.flatten(2).transpose(1, 2) if given.ndim == 4 else given
        if attn.group_norm is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        query = _heads(attn.to_q(x), attn.heads)
        if encoder_hidden_states is None and hasattr(attn, STORED[0]):
            key, value = (getattr(attn, name).expand(len(x), -1, -1, -1) for name in STORED)
        else:
            context = x if encoder_hidden_states is None else encoder_hidden_states
            key, value = (_heads(project(context), attn.heads) for project in (attn.to_k, attn.to_v))
        out = attn.to_out[0](attend(query, key, value).transpose(1, 2).flatten(2))
        if given.ndim == 4:
            out = out.transpose(1, 2).unflatten(2, given.shape[2:])
        out = out + given if attn.residual_connection else out
        return out if attn.rescale_output_factor == 1 else out / attn.rescale_output_factor


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Computes scaled dot-product attention of (B, heads, N, d) tensors with the method that suits the device.

    PyTorch's fused kernel in bfloat16 takes longer than in float32 on CPUs. There, blocks of queries are faster.
    """
    blocks = query.device.type == 'cpu' and query.dtype is torch.bfloat16 and not torch.compiler.is_compiling()
    if not blocks:
        return F.scaled_dot_product_attention(query, key, value)
    size = QUERIES['self' if key.shape[2] >= query.shape[2] else 'cross']
    query, key = query * query.shape[-1] ** -0.5, key.transpose(-1, -2)
    return torch.cat([(part @ key).softmax(-1) @ value for part in query.split(size, 2)], 2)
