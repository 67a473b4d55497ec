"""Prompts: the context tokens of the UNet's cross-attention, and the class of each token.

There are three kinds of prompts: `ClassTokens` (default), `EmptyPrompt` and `TagPrompt`. All are modules that return a
`Prompt`. None of them has trained parameters or adds tensors to a checkpoint.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rass_mm.diffusion.base import DiffusionBase
from rass_mm.diffusion.base_weights import on_meta, weights_hash
from rass_mm.diffusion.text import TextEncoder, tokenizer_texts
from rass_mm.errors import ConfigError
from rass_mm.files.atomic import atomic_path
from rass_mm_cli.bases import cache_folder

logger = logging.getLogger(__name__)

NOBODY = -1
"""Value in `Prompt.owners` for a token that belongs to no class (start, end, padding, null, punctuation)."""
TEMPLATE = 'a photo of a {}'


@dataclass(frozen=True)
class Prompt:
    """Context tokens of a batch of images, and the class of each token.

    Attributes:
        context: (B, T, C) context tokens.
        owners: (B, T) int64, the class id of each token, or `NOBODY`.
        stored: whether the UNet of a prepared model has stored the keys and values of the context.
    """

    context: Tensor
    owners: Tensor
    stored: bool = False

    @property
    def conditioning(self) -> Tensor | None:
        """Context to call the UNet with, which is None if its keys and values are stored."""
        return None if self.stored else self.context

    def repeated(self, times: int) -> 'Prompt':
        """Returns a prompt in which the row of each image is repeated `times` times, e.g. once per window."""
        repeated = (part.repeat_interleave(times, 0) for part in (self.context, self.owners))
        return Prompt(*repeated, self.stored)


@runtime_checkable
class Tagger(Protocol):
    """Interface of a tagger, which names the contents of an image.

    A tagger that reads labels has an attribute `needs_labels = True`. A tagger that is an `nn.Module` is moved to other
    devices and switched between training and eval mode together with the prompt.
    """

    def tags(self, images: Tensor, data_samples: Sequence[Any] | None = None) -> list[list[str]]:
        """Returns the tags of each image.

        Args:
            images: (B, 3, H, W) RGB in [-1, 1].
            data_samples: mmseg's samples of the batch, for taggers that read labels or file names.
        """


class ClassTokens(nn.Module):
    """Prompt with one token per class and a null token, the same for every image (as in VPD, arXiv 2303.02153).

    A class token is the text encoder's state at the end token of "a photo of a <name>". The null token is its state at
    the start token. This state is the same in every prompt, and Stable Diffusion attends to it where no word matches.
    The tokens are computed once per base and class list and cached in a file. The text encoder is not kept.

    Args:
        base: the base.
        classes: class names. The index of a name is its class id.
        cache: folder for the cached tokens. None uses `cache_folder()`.
    """

    stored = False
    """Whether a prepared UNet has stored the keys and values of the tokens, see `prepare_unet`."""

    def __init__(self, base: DiffusionBase, classes: Sequence[str], cache: str | os.PathLike | None = None) -> None:
        super().__init__()
        tokens = stored_class_tokens(base, list(classes), Path(cache) if cache else cache_folder())
        self.register_buffer('tokens', tokens, persistent=False)
        self.register_buffer('owners', torch.tensor([*range(len(classes)), NOBODY]), persistent=False)

    def forward(self, images: Tensor, data_samples: Sequence[Any] | None = None) -> Prompt:
        """Returns the prompt of (B, 3, H, W) images, with a context of (B, K+1, C) for K classes.

        `data_samples` is not used.
        """
        batch = images.shape[0]
        return Prompt(self.tokens.expand(batch, -1, -1), self.owners.expand(batch, -1), self.stored)


class EmptyPrompt(nn.Module):
    """Prompt with the empty text for every image.

    Args:
        base: the base.
        classes: not used. It exists so that all prompts have the same signature.
    """

    stored = False
    """Whether a prepared UNet has stored the keys and values of the tokens, see `prepare_unet`."""

    def __init__(self, base: DiffusionBase, classes: Sequence[str] = ()) -> None:
        super().__init__()
        tokens = torch.empty(77, base.context_width) if on_meta() else TextEncoder(base).encode_texts([''])[0][0]
        self.register_buffer('tokens', tokens, persistent=False)
        self.register_buffer('owners', torch.full((tokens.shape[0],), NOBODY), persistent=False)

    def forward(self, images: Tensor, data_samples: Sequence[Any] | None = None) -> Prompt:
        """Returns the prompt of (B, 3, H, W) images, with a context of (B, 77, C). `data_samples` is not used."""
        batch = images.shape[0]
        return Prompt(self.tokens.expand(batch, -1, -1), self.owners.expand(batch, -1), self.stored)


PROMPTS = {'ClassTokens': ClassTokens, 'EmptyPrompt': EmptyPrompt}
"""Prompts that need only a base and class names, so that a restorer can use them for images without labels."""


def list_text(tag: str) -> str:
    """Formats a tag as in the prompt of the released RASS.

    The released code converts the list of tags to text with `str`, strips the characters `[] ,` from both ends, deletes
    all apostrophes and replaces commas by spaces. This deletes the quotes around each tag as well. However, Python
    encloses a tag that contains an apostrophe in double quotes, which are not deleted.
    """
    return repr(tag).replace("'", '').replace(',', ' ')


TAG_TEXTS: dict[str, tuple[Callable[[str], str], str]] = {'commas': (str, ', '), 'list': (list_text, '  ')}
"""For each `TagPrompt.style`: the function that formats a tag, and the separator."""


class TagPrompt(nn.Module):
    """Prompt with the tags of each image as one text. The text encoder stays in memory, as in the released code.

    Args:
        base: the base.
        classes: class names. The tokens of a tag that equals a class name belong to that class.
        tagger: the tagger that provides the tags.
        truncate: whether to cut off the end of a text that does not fit the text encoder, as the released code does.
            Otherwise, such a text raises an error.
        style: 'commas' formats tags as "sky, tree" (OSEDiff), and 'list' as "sky  tree" (the released RASS, see
            `list_text`).
        suffix: text after the tags. OSEDiff uses ', ,'.

    Raises:
        ConfigError: `tagger` or `style` is not valid.
    """

    def __init__(
        self,
        base: DiffusionBase,
        classes: Sequence[str],
        tagger: Tagger,
        truncate: bool = False,
        style: str = 'commas',
        suffix: str = '',
    ) -> None:
        super().__init__()
        if not isinstance(tagger, Tagger):
            raise ConfigError(f'{type(tagger).__name__} is not a tagger. It needs a method tags(images, data_samples).')
        if style not in TAG_TEXTS:
            raise ConfigError(f'prompt.style is {style!r}, but it must be one of {", ".join(TAG_TEXTS)}.')
        self.text = TextEncoder(base)
        self.tagger = tagger
        self.truncate, self.style, self.suffix = truncate, style, suffix
        self.class_ids = {name: index for index, name in enumerate(classes)}
        for part in (self.text, tagger):
            if isinstance(part, nn.Module):
                # Frozen and reloaded from the base folder or its own files, so excluded from checkpoints.
                part.requires_grad_(False)
                part.register_state_dict_post_hook(lambda _m, state, prefix, _l: _drop_prefix(state, prefix))

    @property
    def needs_labels(self) -> bool:
        """Whether the tagger reads labels and therefore cannot be used for images without labels."""
        return getattr(self.tagger, 'needs_labels', False)

    def forward(self, images: Tensor, data_samples: Sequence[Any] | None = None) -> Prompt:
        """Returns the prompt of (B, 3, H, W) RGB images in [-1, 1], with a context of (B, 77, C).

        Raises:
            ConfigError: the tags of an image do not fit the text encoder, and `truncate` is False.
        """
        rows = [self._tokens(tags) for tags in self.tagger.tags(images, data_samples)]
        ids = torch.tensor([self.text.framed([token for token, _ in row]) for row in rows])
        owners = torch.full(ids.shape, NOBODY)
        for owned, row in zip(owners, rows, strict=True):
            owned[1 : 1 + len(row)] = torch.tensor([owner for _, owner in row], dtype=torch.long)
        return Prompt(self.text.encode(ids).to(images.device), owners.to(images.device))

    def written(self, tags: Sequence[str]) -> str:
        """Returns the text that is passed to the text encoder for these tags."""
        return ''.join(part for part, _ in self._parts(tags))

    def _parts(self, tags: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Yields a pair (text, owner) for each tag, each separator and the suffix, in the order of the text."""
        write, between = TAG_TEXTS[self.style]
        for index, tag in enumerate(tags):
            if index:
                yield between, NOBODY
            yield write(tag), self.class_ids.get(tag, NOBODY)
        yield self.suffix, NOBODY

    def _tokens(self, tags: Sequence[str]) -> list[tuple[int, int]]:
        """Returns a pair (token id, owner) for each token of the text.

        The parts are tokenized separately, because CLIP's tokenizer joins only punctuation and never words.
        """
        tokens = [(token, owner) for part, owner in self._parts(tags) for token in self.text.token_ids(part)]
        return tokens[: self.text.length - 2] if self.truncate else tokens


class GroundTruthTagger:
    """Tagger that returns the names of the classes in an image's labels.

    It is used for training a restorer, and in experiments as an upper bound for taggers that do not read labels.

    Args:
        classes: class names. The index of a name is its class id.
        ignore_index: value of label pixels that belong to no class.
    """

    needs_labels = True

    def __init__(self, classes: Sequence[str], ignore_index: int = 255) -> None:
        self.classes = list(classes)
        self.ignore_index = ignore_index

    def tags(self, images: Tensor, data_samples: Sequence[Any] | None = None) -> list[list[str]]:
        """Returns the class names in each sample's `gt_sem_seg`, in the order of the class ids.

        Raises:
            ConfigError: a sample has no labels.
        """
        if data_samples is None or any('gt_sem_seg' not in sample for sample in data_samples):
            raise ConfigError('Ground-truth tags need labels. Use ClassTokens or EmptyPrompt if there are no labels.')
        present = [torch.unique(sample.gt_sem_seg.data).tolist() for sample in data_samples]
        return [[self.classes[i] for i in ids if i != self.ignore_index] for ids in present]


def _drop_prefix(state: dict[str, Tensor], prefix: str) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        del state[key]


def stored_class_tokens(base: DiffusionBase, classes: list[str], cache: Path) -> Tensor:
    """Returns the (K+1, C) tokens of K classes, see `class_tokens`. They are computed only if they are not cached."""
    if on_meta():
        return torch.empty(len(classes) + 1, base.context_width)
    sources = [weights_hash(base.folder, ('text_encoder',)), json.dumps(base.configs['text_encoder'], sort_keys=True)]
    sources += tokenizer_texts(base)
    key = hashlib.sha256('\n'.join([*sources, TEMPLATE, *classes]).encode()).hexdigest()[:16]
    file = cache / 'class_tokens' / f'{key}.safetensors'
    found = _cached(file, (len(classes) + 1, base.context_width))
    if found is not None:
        return found
    tokens = class_tokens(TextEncoder(base), classes)
    try:
        with atomic_path(file) as temporary:
            save_file({'tokens': tokens}, temporary)
    except (OSError, SafetensorError) as error:
        logger.warning(
            'The tokens of the classes cannot be cached in %s (%s). They are computed again in each run. Set '
            'RASS_MM_CACHE to a folder that can be written.',
            file.parent,
            error,
        )
    return tokens


def _cached(file: Path, shape: tuple[int, int]) -> Tensor | None:
    """Returns the tokens in a file of the cache, or None if it does not exist or is damaged."""
    try:
        if not file.is_file():
            return None
        tokens = load_file(file)['tokens']
        if tuple(tokens.shape) == shape and tokens.dtype == torch.float32 and tokens.isfinite().all():
            return tokens
        reason = f'its tensor has the shape {tuple(tokens.shape)} and the type {tokens.dtype}, or is not finite'
    except (OSError, SafetensorError, KeyError) as error:
        reason = str(error)
    logger.warning('%s in the cache is damaged (%s) and is written again.', file, reason)
    return None


def class_tokens(text: TextEncoder, classes: Sequence[str]) -> Tensor:
    """Computes the (K+1, C) tokens of K classes: one token per class, then the null token. See `ClassTokens`."""
    contexts, ends = zip(*(text.encode_texts([TEMPLATE.format(name)]) for name in classes), strict=True)
    tokens = [context[0, end[0]] for context, end in zip(contexts, ends, strict=True)]
    return torch.stack([*tokens, contexts[0][0, 0]]).float().contiguous()
