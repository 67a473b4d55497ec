"""Types of the JSON files of a Stable Diffusion folder, as far as their values are used. Further keys are allowed."""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat
from typing_extensions import TypedDict

MOST = 1_000_000
"""Largest integer in a config. Larger ones are damage and would exhaust the memory."""
Width = Annotated[int, Field(gt=0, le=65_536)]
Count = Annotated[int, Field(gt=0, le=1000)]
Widths = Annotated[list[Width], Field(min_length=1, max_length=10)]
Beta = Annotated[FiniteFloat, Field(gt=0, lt=1)]


def _one_or_several(limit: int) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        values = value if isinstance(value, list) else [value]
        if not values or not all(type(item) is int and 0 < item <= limit for item in values):
            raise ValueError(f'a positive integer of at most {limit}, or a list of them')
        return value

    return check


def _absent(value: Any) -> Any:
    if value is not None:
        raise ValueError('absent: quantized models and models with code of their own are not supported')
    return value


def _absent_in(config: dict[str, Any]) -> dict[str, Any]:
    if config.get('auto_map') is not None:
        raise ValueError('without auto_map, because tokenizers with code of their own are not supported')
    return config


def _plausible(config: Any) -> Any:
    """Raises a ValueError for a number that is not finite or is very large, at any depth."""
    for key, value in config.items() if isinstance(config, dict) else ():
        values = [value]
        while values:
            item = values.pop()
            if isinstance(item, (dict, list)):
                values += item.values() if isinstance(item, dict) else item
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError(f'without numbers that are not finite ({key} is {item})')
            elif isinstance(item, int) and abs(item) > MOST:
                raise ValueError(f'without integers above {MOST} ({key} is {item})')
    return config


OneOrSeveral = Annotated[Any, AfterValidator(_one_or_several(65_536))]
Layers = Annotated[Any, AfterValidator(_one_or_several(100))]
Absent = NotRequired[Annotated[Any, AfterValidator(_absent)]]


class _Model(TypedDict):
    quantization_config: Absent
    auto_map: Absent


class _UNet(_Model):
    _class_name: NotRequired[Literal['UNet2DConditionModel']]
    in_channels: Width
    out_channels: NotRequired[Width]
    block_out_channels: Widths
    cross_attention_dim: Width
    attention_head_dim: NotRequired[OneOrSeveral]
    layers_per_block: NotRequired[Layers]
    transformer_layers_per_block: NotRequired[Layers]
    norm_num_groups: NotRequired[Width | None]
    down_block_types: NotRequired[list[str]]
    up_block_types: NotRequired[list[str]]


class _VAE(_Model):
    _class_name: NotRequired[Literal['AutoencoderKL']]
    latent_channels: Width
    block_out_channels: Widths
    layers_per_block: NotRequired[Layers]
    norm_num_groups: NotRequired[Width]
    scaling_factor: NotRequired[Annotated[FiniteFloat, Field(gt=0)]]


class _TextEncoder(_Model):
    architectures: NotRequired[list[str] | None]
    hidden_size: Width
    intermediate_size: NotRequired[Width]
    num_hidden_layers: NotRequired[Count]
    num_attention_heads: NotRequired[Count]
    max_position_embeddings: NotRequired[Annotated[int, Field(gt=2, le=65_536)]]
    vocab_size: NotRequired[Annotated[int, Field(gt=0, le=MOST)]]


class _Scheduler(TypedDict):
    num_train_timesteps: NotRequired[Annotated[int, Field(gt=0, le=100_000)]]
    beta_start: NotRequired[Beta]
    beta_end: NotRequired[Beta]
    beta_schedule: NotRequired[Literal['linear', 'scaled_linear', 'squaredcos_cap_v2', 'sigmoid']]
    trained_betas: NotRequired[Annotated[list[Beta], Field(min_length=1)] | None]
    prediction_type: NotRequired[str]


class Index(TypedDict):
    """Index of the shards of a model."""

    weight_map: Annotated[dict[str, Annotated[str, Field(pattern=r'^[^/\\]+\.safetensors$')]], Field(min_length=1)]


CONFIG_TYPES = {
    'unet': Annotated[_UNet, BeforeValidator(_plausible)],
    'vae': Annotated[_VAE, BeforeValidator(_plausible)],
    'text_encoder': Annotated[_TextEncoder, BeforeValidator(_plausible)],
    'scheduler': _Scheduler,  # diffusers writes -Infinity for some schedulers
}
"""Maps each part of a base to the type of its config."""
TOKENIZER_TYPES = {
    'vocab.json': Annotated[dict[str, Annotated[int, Field(ge=0, le=MOST)]], Field(min_length=1)],
    'special_tokens_map.json': dict[str, Any],
    'tokenizer_config.json': Annotated[dict[str, Any], AfterValidator(_absent_in)],
}
"""Maps each JSON file of a tokenizer to the type of its content. All others must contain a dict."""
