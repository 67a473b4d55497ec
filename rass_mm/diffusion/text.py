"""Frozen text encoder of the base, which converts text to token ids and token ids to context tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from rass_mm.diffusion.base import DiffusionBase, load_whole, on_meta
from rass_mm.errors import BaseFolderError, ConfigError


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
        BaseFolderError: the vocabulary or the merges are missing.
    """
    folder = base.folder / 'tokenizer'
    missing = [name for name in ('vocab.json', 'merges.txt') if not (folder / name).is_file()]
    if missing:
        raise BaseFolderError(
            f'{folder / missing[0]} is missing, so the tokenizer cannot be loaded. Copy the tokenizer/ folder of the '
            f'same Stable Diffusion release into {base.folder}.'
        )
    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def load_text_model(base: DiffusionBase) -> CLIPTextModel:
    """Loads the text model of the base in float32, frozen and in eval mode."""
    if on_meta():
        return CLIPTextModel(CLIPTextConfig(**base.configs['text_encoder'])).requires_grad_(False).eval()
    return load_whole(CLIPTextModel, base.folder, 'text_encoder', dtype=torch.float32)
