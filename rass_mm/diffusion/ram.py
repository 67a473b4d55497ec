"""Tags of the Recognize Anything Model (RAM), or of its form for degraded images (DAPE), by the user's `ram` package.

RAM's code and weights are not part of this package. It finds them where the user has put them, reads the weights
safely, and remembers the tags of every image it has seen.
"""

import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rass_mm.diffusion.base import on_meta
from rass_mm.diffusion.prompts import cache_folder
from rass_mm.errors import CheckpointError, ConfigError, InstallationError
from rass_mm.files.atomic import write_text
from rass_mm.files.hashing import update_sampled
from rass_mm.files.tensors import read_tensors, tensors_only

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, per channel of RGB in [0, 1]."""
DTYPES = {'float32': torch.float32, 'float16': torch.float16}
SEPARATORS = re.compile(r'[|,]')
REMEDY = 'pip install git+https://github.com/xinyu1205/recognize-anything'
FORKS = 'the folder ram/ of SeeSR or OSEDiff, put on PYTHONPATH,'


class RAMTagger(nn.Module):
    """A `Tagger` that asks RAM (arXiv 2306.03514), or DAPE (arXiv 2311.16518) where `condition` is given.

    In eval mode an image's tags are computed once and kept, in memory and in files under `cache`; in training mode,
    where crops do not come again, nothing is kept, and a sample that holds its clean crop is tagged by that.

    The network is loaded at the first image whose tags are not known. It is frozen, and it is no submodule: neither
    a checkpoint nor an optimiser nor `parameters()` sees it. It runs on the images' device.

    The released RASS shows RAM the padded image, resized without antialiasing, in float16: `padding=True`,
    `antialias=False`, `dtype='float16'`. The defaults are RAM's own.

    Args:
        classes: taken for the common signature and not used.
        weights: RAM's file, `ram_swin_large_14m.pth`.
        condition: DAPE's file, `DAPE.pth`; None is plain RAM.
        image_size: side in pixels at which RAM looks at an image: 384, or 224.
        padding: shows the image with its padding; else the padding is cut off first.
        antialias: whether the resize to `image_size` smooths what it shrinks.
        dtype: 'float32' or 'float16'; a CPU computes in float32 either way.
        cache: folder for the stored tags; None uses `cache_folder()`.

    Raises:
        ConfigError: a file of weights does not exist, or another dtype.
        InstallationError: there is no package `ram`.
    """

    needs_labels = False

    def __init__(
        self,
        classes: Sequence[str] = (),
        weights: str | os.PathLike = 'weights/ram_swin_large_14m.pth',
        condition: str | os.PathLike | None = None,
        image_size: int = 384,
        padding: bool = False,
        antialias: bool = True,
        dtype: str = 'float32',
        cache: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ConfigError(f'tagger.dtype is {dtype!r}; one of {", ".join(DTYPES)} is needed.')
        self.weights, self.condition = Path(weights), Path(condition) if condition else None
        self.image_size, self.padding, self.antialias, self.dtype = image_size, padding, antialias, DTYPES[dtype]
        # Past nn.Module's own bookkeeping, which would make the network a submodule.
        self.__dict__['network'] = None
        if on_meta():
            return
        if importlib.util.find_spec('ram') is None:
            raise InstallationError(f'RAMTagger needs the package ram (recognize-anything): {REMEDY}')
        identities = [file_identity(path) for path in (self.weights, self.condition) if path]
        # Tags of another resize or precision are other tags; those stored before there was a choice keep their folder.
        switches = [*([] if antialias else ['aliased']), *([] if dtype == 'float32' else [dtype])]
        folder = '-'.join([*identities, str(image_size), *switches])
        self.store = TagStore((Path(cache) if cache else cache_folder()) / 'tags' / folder)

    @torch.no_grad()
    def tags(self, images: Tensor, data_samples: Sequence[Any] | None = None) -> list[list[str]]:
        """Tags of each image, in RAM's order.

        Args:
            images: (B, 3, H, W) RGB in [-1, 1].
            data_samples: per image; `img_shape` (h, w) tells padding (right and below) from image, and in training
                mode `gt`, (h, w, 3) BGR uint8, is looked at in place of the image.

        Raises:
            InstallationError: the package `ram` cannot be used.
            CheckpointError: the weights are unsafe, damaged or do not fit.
        """
        samples = data_samples if data_samples is not None else [None] * len(images)
        seen = [self._seen(image, sample) for image, sample in zip(images, samples, strict=True)]
        if self.training:
            return self._ask(seen)
        keys = [image_key(image) for image in seen]
        known = {key: self.store.get(key) for key in keys}
        unknown = {key: image for key, image in zip(keys, seen, strict=True) if known[key] is None}
        if unknown:
            for key, tags in zip(unknown, self._ask([*unknown.values()]), strict=True):
                known[key] = tags
                self.store.put(key, tags)
        return [list(known[key]) for key in keys]

    def _seen(self, image: Tensor, sample: Any) -> Tensor:
        """What RAM is shown for an image: (3, h, w) RGB in [-1, 1]."""
        clean = sample.get('gt') if sample is not None and self.training else None
        if clean is not None:
            planes = torch.as_tensor(np.ascontiguousarray(np.asarray(clean)[..., ::-1]))
            return planes.permute(2, 0, 1).to(image.device, torch.float32) / 127.5 - 1
        known = None if sample is None or self.padding else sample.get('img_shape')
        height, width = known or image.shape[1:]
        return image[:, :height, :width].float()

    def _ask(self, images: Sequence[Tensor]) -> list[list[str]]:
        """The network's tags of (3, h, w) images of any sizes."""
        batch = torch.stack([prepared(image, self.image_size, self.antialias) for image in images])
        dtype = self._dtype_on(batch.device)
        network = self._loaded().to(batch.device, dtype)
        with torch.autocast(batch.device.type, enabled=False):
            english = network.generate_tag(batch.to(dtype))[0]
        if len(english) != len(images) or not all(isinstance(text, str) for text in english):
            raise InstallationError(
                f"The package ram answered {len(images)} images with {english!r}; generate_tag's first result should "
                f'be one text per image. Use recognize-anything or {FORKS} instead.'
            )
        return [[tag for part in SEPARATORS.split(text) if (tag := part.strip())] for text in english]

    def _dtype_on(self, device: torch.device) -> torch.dtype:
        return torch.float32 if device.type == 'cpu' else self.dtype

    def _loaded(self) -> nn.Module:
        if self.network is None:
            # Drawing the initial values must not move the random numbers of a training run.
            with torch.random.fork_rng(devices=[]), without_downloads():
                self.__dict__['network'] = load_network(self.weights, self.condition, self.image_size)
        return self.network


class TagStore:
    """Tags by image: in memory, and one small JSON file per image in `folder`, so that any processes may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.memory: dict[str, list[str]] = {}

    def get(self, key: str) -> list[str] | None:
        """The stored tags; None where there are none, or where the file is damaged."""
        if key not in self.memory:
            with suppress(OSError, ValueError, TypeError):
                self.memory[key] = [str(tag) for tag in json.loads(self._file(key).read_text(encoding='utf-8'))]
        return self.memory.get(key)

    def put(self, key: str, tags: list[str]) -> None:
        """Stores tags; the file appears whole."""
        self.memory[key] = tags
        write_text(self._file(key), json.dumps(tags, ensure_ascii=False))

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f'{key}.json'


def prepared(image: Tensor, size: int, antialias: bool = True) -> Tensor:
    """(3, h, w) RGB in [-1, 1] to RAM's input: (3, size, size), ImageNet's mean and standard deviation."""
    unit = (image[None] + 1) / 2
    square = F.interpolate(unit, (size, size), mode='bilinear', antialias=antialias, align_corners=False)
    mean, std = (torch.tensor(values, device=image.device).view(3, 1, 1) for values in (MEAN, STD))
    return (square[0] - mean) / std


def image_key(image: Tensor) -> str:
    """Hash of what a (3, h, w) image in [-1, 1] shows; the last bits of a device's arithmetic do not count."""
    # In 16 bits an 8-bit value falls on a whole number, so that no rounding is near a tie.
    values = ((image.double() + 1) * 32767.5).round().clamp(0, 65535).cpu().numpy().astype(np.uint16)
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()[:32]


def file_identity(path: Path) -> str:
    """Hash of a weights file's size, begin and end; the end of a .pth lists the checksums of all its tensors.

    Raises:
        ConfigError: there is no such file.
    """
    if not path.is_file():
        raise ConfigError(
            f"{path} does not exist. Put RAM's weights there (ram_swin_large_14m.pth from the recognize-anything "
            f'project, DAPE.pth from SeeSR) or name your file: tagger.weights=..., tagger.condition=....'
        )
    digest = hashlib.sha256(str(path.stat().st_size).encode())
    update_sampled(digest, path)
    return digest.hexdigest()[:16]


def load_network(weights: Path, condition: Path | None, image_size: int) -> nn.Module:
    """RAM or DAPE as the user's package builds it, frozen, in eval mode.

    Raises:
        InstallationError, CheckpointError: see `RAMTagger.tags`.
    """
    build = network_builder('ram.models.ram_lora' if condition else 'ram.models.ram')
    read_ram_weights(weights)  # the package reads the file itself, and older torch would then run code found in it
    try:
        network = build(pretrained=str(weights), image_size=image_size, vit='swin_l')
    except Exception as error:  # the package raises whatever the libraries below it raise
        raise CheckpointError(
            f'The package ram could not load {weights} at image_size={image_size} ({_reason(error)}). Is it '
            f'ram_swin_large_14m.pth, and is the tokenizer bert-base-uncased in the Hugging Face cache? Nothing is '
            f'downloaded here.'
        ) from error
    if condition:
        add_condition(network, condition)
    return network.requires_grad_(False).float().eval()


def add_condition(network: nn.Module, condition: Path) -> None:
    """Loads DAPE's tensors into RAM.

    The package could do it, but only on a machine that has the device they were saved from.

    Raises:
        CheckpointError: the file is unsafe or damaged, or has none of the network's tensors.
    """
    state = read_ram_weights(condition)
    try:
        unknown = network.load_state_dict(state, strict=False).unexpected_keys
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f'{condition} does not fit RAM ({_reason(error)}). Is it DAPE.pth?') from error
    if len(unknown) == len(state):
        raise CheckpointError(f'{condition} has none of the tensors of DAPE. Is it DAPE.pth?')


def network_builder(name: str) -> Callable[..., nn.Module]:
    """The function of the user's package that builds RAM.

    Args:
        name: `ram.models.ram`, or `ram.models.ram_lora` for DAPE.

    Raises:
        InstallationError: there is none, or its import fails.
    """
    try:
        module = importlib.import_module(name)
    except Exception as error:  # made for other library versions, it fails in more ways than ImportError
        if isinstance(error, ModuleNotFoundError) and name.startswith(f'{error.name}'):
            lacking = f'The installed package ram has no {error.name}.'
            if name.endswith('lora'):
                raise InstallationError(
                    f'{lacking} DAPE (condition=...) needs {FORKS} or leave condition out.'
                ) from None
            raise InstallationError(f'{lacking} It is another project of that name: {REMEDY}') from None
        raise InstallationError(
            f'The package ram cannot be imported ({_reason(error)}); installed is transformers '
            f'{importlib.metadata.version("transformers")}. Its published code asks transformers.modeling_utils for '
            f'functions that have moved to transformers.pytorch_utils: change that import in ram/models/bert.py (see '
            f'issue 219 of recognize-anything), or install what is missing.'
        ) from error
    build = getattr(module, name.rpartition('.')[2], None) or getattr(module, 'ram', None)
    if build is None:
        raise InstallationError(f'{name} of the installed package ram has no function ram. Use {REMEDY}')
    return build


def read_ram_weights(path: Path) -> Any:
    """Content of a .pth file of RAM's authors: tensors and plain values alone.

    Raises:
        CheckpointError: damaged, or it holds other objects.
    """
    with tensors_only():  # mapped, not read: the file is three times as large as the network
        return read_tensors(path, 'cpu', mmap=True)


@contextmanager
def without_downloads() -> Iterator[None]:
    """Keeps the Hugging Face libraries to their cache; the package's tokenizer would otherwise be fetched."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reason(error: Exception) -> str:
    return f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}'
