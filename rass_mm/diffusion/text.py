"""Frozen text encoder of the base, which converts text to token ids and token ids to context tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from rass_mm.diffusion.base import DiffusionBase
from rass_mm.diffusion.base_loading import load_whole
from rass_mm.diffusion.base_schemas import TOKENIZER_TYPES
from rass_mm.diffusion.base_weights import on_meta
from rass_mm.errors import BaseFolderError, ConfigError
from rass_mm.files.regular import check_regular
from rass_mm.files.schemas import read_json

COPY = 'Copy the tokenizer/ folder of the same Stable Diffusion release into the base folder.'


class TextEncoder(nn.Module):
    """Frozen CLIP tokenizer and text model of a base folder.

    Raises:
        BaseFolderError: the folder has no tokenizer or no text encoder weights.
    """

    def __init__(self, base: DiffusionBase) -> None:
        super().__init__()
        self.tokenizer = load_tokenizer(base)
        self.model = load_text_model(base)

    @property
    def length(self) -> int:
        """Context length in tokens, including the start and end tokens (77 in CLIP)."""
        return self.model.config.max_position_embeddings

    def token_ids(self, text: str) -> list[int]:
        """Returns the token ids of a text, without start and end tokens."""
        return self.tokenizer(text, add_special_tokens=False)['input_ids']

    def framed(self, ids: Sequence[int]) -> list[int]:
        """Adds the start token, the end token and padding up to the context length `length`.

        Raises:
            ConfigError: there are more than `length - 2` tokens.
        """
        room = self.length - 2
        if len(ids) > room:
            raise ConfigError(
                f'A prompt of {len(ids)} tokens does not fit the {room} tokens of this text encoder. Use fewer or '
                f"shorter names, or a prompt of type 'ClassTokens', which needs only one token per class."
            )
        tokenizer = self.tokenizer
        padding = [tokenizer.pad_token_id] * (room - len(ids))
        return [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *padding]

    @torch.no_grad()
    def encode(self, ids: Tensor) -> Tensor:
        """Encodes (B, T) token ids (see `framed`) to (B, T, C) context tokens, the output of the final layer norm."""
        return self.model(input_ids=ids.to(self.model.device)).last_hidden_state

    def encode_texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encodes B texts to context tokens.

        Returns:
            The (B, T, C) context tokens, and the (B,) positions of the end tokens.

        Raises:
            ConfigError: a text has more than `length - 2` tokens.
        """
        framed = [self.framed(self.token_ids(text)) for text in texts]
        ends = torch.tensor([len(self.token_ids(text)) + 1 for text in texts])
        return self.encode(torch.tensor(framed)), ends


def load_tokenizer(base: DiffusionBase) -> CLIPTokenizer:
    """Loads the tokenizer of the base.

    Raises:
        BaseFolderError: the vocabulary or the merges are missing, or a file of the tokenizer is damaged.
    """
    folder = base.folder / 'tokenizer'
    tokenizer_texts(base)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        special = {name: getattr(tokenizer, f'{name}_token_id') for name in ('bos', 'eos', 'pad')}
        largest = max([*special.values(), *tokenizer.get_vocab().values()])
    except Exception as error:  # the tokenizers library raises plain exceptions
        reason = str(error).strip() or type(error).__name__
        raise BaseFolderError(
            f'{folder}: vocab.json, merges.txt and the configs of the tokenizer do not match ({reason}). {COPY}'
        ) from None
    size = base.configs['text_encoder'].get('vocab_size', largest + 1)
    if largest >= size:
        raise BaseFolderError(
            f'{folder}/vocab.json contains the token id {largest}, but vocab_size in text_encoder/config.json is '
            f'{size}. {COPY}'
        )
    return tokenizer


def tokenizer_texts(base: DiffusionBase) -> list[str]:
    """Returns the contents of the files of the tokenizer, sorted by name, after a check of their types.

    Raises:
        BaseFolderError: the vocabulary or the merges are missing, or a file is damaged.
    """
    folder = base.folder / 'tokenizer'
    missing = [name for name in ('vocab.json', 'merges.txt') if not (folder / name).exists()]
    if missing:
        raise BaseFolderError(
            f'{folder / missing[0]} is missing, so the tokenizer cannot be loaded. Copy the tokenizer/ folder of the '
            f'same Stable Diffusion release into {base.folder}.'
        )
    texts = []
    for file in sorted(folder.glob('*.*')):
        if file.suffix == '.json':
            read_json(file, TOKENIZER_TYPES.get(file.name, dict[str, Any]), COPY, BaseFolderError)
        check_regular(file, COPY, BaseFolderError)
        try:
            texts.append(file.read_text(encoding='utf-8'))
        except (OSError, ValueError) as error:
            raise BaseFolderError(f'{file} cannot be read ({error}). {COPY}') from None
    return texts


def load_text_model(base: DiffusionBase) -> CLIPTextModel:
    """Loads the text model of the base in float32, frozen and in eval mode."""
    if on_meta():
        return CLIPTextModel(CLIPTextConfig(**base.configs['text_encoder'])).requires_grad_(False).eval()
    return load_whole(CLIPTextModel, base.folder, 'text_encoder', dtype=torch.float32)
