"""Tagger with the Recognize Anything Model (RAM), or its variant for degraded images (DAPE), from the `ram` package.

RAM's code and weights are not part of this package and have to be installed by the user. The weight files
are read without running any code that they contain. Outside training, the tags of each image are cached.
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

from rass_mm.diffusion.base_weights import on_meta
from rass_mm.diffusion.prompts import cache_folder
from rass_mm.errors import CheckpointError, ConfigError, InstallationError
from rass_mm.files.atomic import write_text
from rass_mm.files.hashing import update_sampled
from rass_mm.files.regular import check_regular
from rass_mm.files.tensors import read_tensors, tensors_only

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of each RGB channel in [0, 1] on ImageNet."""
DTYPES = {'float32': torch.float32, 'float16': torch.float16}
SEPARATORS = re.compile(r'[|,]')
REMEDY = 'pip install git+https://github.com/xinyu1205/recognize-anything'
FORKS = 'the repository of SeeSR or OSEDiff, which contains the folder ram/,'


class RAMTagger(nn.Module):
    """A `Tagger` that uses RAM (arXiv 2306.03514), or DAPE (arXiv 2311.16518) if `condition` is given.

    In eval mode, the tags of an image are computed once and cached in memory and in files under `cache`. In training
    mode, nothing is cached, because each crop is used only once. If a training sample contains its clean crop, the
    clean crop is tagged instead of the degraded one.

    The network is loaded when it is needed for the first time. It is frozen and not registered as a submodule, so it is
    not part of checkpoints, optimizers or `parameters()`. It runs on the device of the images.

    The defaults are those of RAM. The released RASS uses `padding=True`, `antialias=False` and `dtype='float16'`.

    Args:
        classes: not used. It exists so that all taggers have the same signature.
        weights: path of the weights of RAM, `ram_swin_large_14m.pth`.
        condition: path of the weights of DAPE, `DAPE.pth`. None uses plain RAM.
        image_size: side in pixels to which images are resized, 384 or 224.
        padding: whether to keep the padding of an image. Otherwise, the padding is removed first.
        antialias: whether to use antialiasing when an image is reduced to `image_size`.
        dtype: 'float32' or 'float16'. On the CPU, float32 is always used.
        cache: folder for the cached tags. None uses `cache_folder()`.

    Raises:
        ConfigError: a weights file does not exist, or `dtype` is not valid.
        InstallationError: the package `ram` is not installed.
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
            raise ConfigError(f'tagger.dtype is {dtype!r}, but it must be one of {", ".join(DTYPES)}.')
        self.weights, self.condition = Path(weights), Path(condition) if condition else None
        self.image_size, self.padding, self.antialias, self.dtype = image_size, padding, antialias, DTYPES[dtype]
        # Bypasses nn.Module.__setattr__, which would register the network as a submodule.
        self.__dict__['network'] = None
        if on_meta():
            return
        if importlib.util.find_spec('ram') is None:
            raise InstallationError(
                f'RAMTagger needs the package ram (recognize-anything), which is not installed. Run: {REMEDY}'
            )
        identities = [file_identity(path) for path in (self.weights, self.condition) if path]
        # Another resize or precision may result in other tags, so it has another folder. The folder of the defaults is
        # that of tags stored before these options were introduced.
        switches = [*([] if antialias else ['aliased']), *([] if dtype == 'float32' else [dtype])]
        folder = '-'.join([*identities, str(image_size), *switches])
        self.store = TagStore((Path(cache) if cache else cache_folder()) / 'tags' / folder)

    @torch.no_grad()
    def tags(self, images: Tensor, data_samples: Sequence[Any] | None = None) -> list[list[str]]:
        """Returns the tags of each image, in RAM's order.

        Args:
            images: (B, 3, H, W) RGB in [-1, 1].
            data_samples: one sample per image. Its key `img_shape` is the size (h, w) of the image without the padding
                at the right and the bottom. In training mode, its key `gt`, a clean image of shape (h, w, 3) in BGR and
                uint8, is tagged instead of the image.

        Raises:
            InstallationError: the package `ram` cannot be used.
            CheckpointError: the weights are unsafe or damaged, or do not match the network.
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
        """Returns the image to be tagged, (3, h, w) RGB in [-1, 1]."""
        clean = sample.get('gt') if sample is not None and self.training else None
        if clean is not None:
            planes = torch.as_tensor(np.ascontiguousarray(np.asarray(clean)[..., ::-1]))
            return planes.permute(2, 0, 1).to(image.device, torch.float32) / 127.5 - 1
        known = None if sample is None or self.padding else sample.get('img_shape')
        height, width = known or image.shape[1:]
        return image[:, :height, :width].float()

    def _ask(self, images: Sequence[Tensor]) -> list[list[str]]:
        """Computes the tags of (3, h, w) RGB images in [-1, 1], which can differ in size."""
        batch = torch.stack([prepared(image, self.image_size, self.antialias) for image in images])
        dtype = self._dtype_on(batch.device)
        network = self._loaded().to(batch.device, dtype)
        with torch.autocast(batch.device.type, enabled=False):
            english = network.generate_tag(batch.to(dtype))[0]
        if len(english) != len(images) or not all(isinstance(text, str) for text in english):
            raise InstallationError(
                f'For {len(images)} images, the package ram returned {english!r}, but the first result of '
                f'generate_tag must be one text per image. Install recognize-anything, or put {FORKS} on PYTHONPATH.'
            )
        return [[tag for part in SEPARATORS.split(text) if (tag := part.strip())] for text in english]

    def _dtype_on(self, device: torch.device) -> torch.dtype:
        return torch.float32 if device.type == 'cpu' else self.dtype

    def _loaded(self) -> nn.Module:
        if self.network is None:
            # Drawing the initial values must not change the random numbers of a training run.
            with torch.random.fork_rng(devices=[]), without_downloads():
                self.__dict__['network'] = load_network(self.weights, self.condition, self.image_size)
        return self.network


class TagStore:
    """Cache of image tags in memory and in one JSON file per image. Several processes can share the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.memory: dict[str, list[str]] = {}

    def get(self, key: str) -> list[str] | None:
        """Returns the tags stored for `key` (see `image_key`), or None if none are stored or the file is damaged."""
        if key not in self.memory:
            with suppress(OSError, ValueError, TypeError):  # DataError is a ValueError
                check_regular(self._file(key))
                self.memory[key] = [str(tag) for tag in json.loads(self._file(key).read_text(encoding='utf-8'))]
        return self.memory.get(key)

    def put(self, key: str, tags: list[str]) -> None:
        """Stores the tags of the image with the given `image_key`. The file is written atomically."""
        self.memory[key] = tags
        write_text(self._file(key), json.dumps(tags, ensure_ascii=False))

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f'{key}.json'


def prepared(image: Tensor, size: int, antialias: bool = True) -> Tensor:
    """Converts a (3, h, w) RGB image in [-1, 1] to RAM's input, (3, size, size) with ImageNet normalization."""
    unit = (image[None] + 1) / 2
    square = F.interpolate(unit, (size, size), mode='bilinear', antialias=antialias, align_corners=False)
    mean, std = (torch.tensor(values, device=image.device).view(3, 1, 1) for values in (MEAN, STD))
    return (square[0] - mean) / std


def image_key(image: Tensor) -> str:
    """Computes a hash of a (3, h, w) image in [-1, 1] that does not depend on rounding errors of the device."""
    # In 16 bits, an 8-bit value is an integer, so no value is close to a tie when it is rounded.
    values = ((image.double() + 1) * 32767.5).round().clamp(0, 65535).cpu().numpy().astype(np.uint16)
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()[:32]


def file_identity(path: Path) -> str:
    """Computes a hash of the size, the beginning and the end of a weights file.

    The end of a `.pth` file lists the checksums of all its tensors, so the hash depends on all of them.

    Raises:
        ConfigError: the file does not exist.
    """
    if not path.is_file():
        raise ConfigError(
            f"{path} does not exist. Put RAM's weights there (ram_swin_large_14m.pth from the recognize-anything "
            f'project, DAPE.pth from SeeSR), or set tagger.weights or tagger.condition to the path of your file.'
        )
    digest = hashlib.sha256(str(path.stat().st_size).encode())
    update_sampled(digest, path)
    return digest.hexdigest()[:16]


def load_network(weights: Path, condition: Path | None, image_size: int) -> nn.Module:
    """Builds RAM or DAPE with the installed package, frozen and in eval mode.

    Args:
        weights: path of the weights of RAM.
        condition: path of the weights of DAPE. None builds RAM.
        image_size: side of the input in pixels, 384 or 224.

    Raises:
        InstallationError: the package `ram` cannot be used.
        CheckpointError: the weights are unsafe or damaged, or do not match the network.
    """
    build = network_builder('ram.models.ram_lora' if condition else 'ram.models.ram')
    read_ram_weights(weights)  # a check: the package reads the file itself, and older torch would run code in it
    try:
        network = build(pretrained=str(weights), image_size=image_size, vit='swin_l')
    except Exception as error:  # the package raises any error of its libraries
        raise CheckpointError(
            f'The package ram could not load {weights} at image_size={image_size} ({_reason(error)}). Check that the '
            f'file is ram_swin_large_14m.pth and that the tokenizer bert-base-uncased is in the Hugging Face cache, '
            f'because nothing is downloaded automatically.'
        ) from error
    if condition:
        add_condition(network, condition)
    return network.requires_grad_(False).float().eval()


def add_condition(network: nn.Module, condition: Path) -> None:
    """Loads the tensors of DAPE into RAM.

    The loader in the package `ram` is not used, because it requires the device from which the tensors were saved.

    Raises:
        CheckpointError: the file is unsafe or damaged, or contains none of the network's tensors.
    """
    state = read_ram_weights(condition)
    try:
        unknown = network.load_state_dict(state, strict=False).unexpected_keys
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f'{condition} does not match RAM ({_reason(error)}). Use DAPE.pth.') from error
    if len(unknown) == len(state):
        raise CheckpointError(f'{condition} contains none of the tensors of DAPE. Use DAPE.pth.')


def network_builder(name: str) -> Callable[..., nn.Module]:
    """Returns the function of the installed package that builds RAM.

    Args:
        name: `ram.models.ram`, or `ram.models.ram_lora` for DAPE.

    Raises:
        InstallationError: the function does not exist, or its import fails.
    """
    try:
        module = importlib.import_module(name)
    except Exception as error:  # with other library versions, errors other than ImportError are possible
        if isinstance(error, ModuleNotFoundError) and name.startswith(f'{error.name}'):
            lacking = f'The installed package ram has no {error.name}.'
            if name.endswith('lora'):
                raise InstallationError(
                    f'{lacking} DAPE (condition=...) needs it. Put {FORKS} on PYTHONPATH, or remove condition.'
                ) from None
            raise InstallationError(f'{lacking} It is another project with that name. Run: {REMEDY}') from None
        raise InstallationError(
            f'The package ram cannot be imported ({_reason(error)}) with the installed transformers '
            f'{importlib.metadata.version("transformers")}. The published code imports functions from '
            f'transformers.modeling_utils that have moved to transformers.pytorch_utils. Change that import in '
            f'ram/models/bert.py (see issue 219 of recognize-anything), or install the missing package.'
        ) from error
    build = getattr(module, name.rpartition('.')[2], None) or getattr(module, 'ram', None)
    if build is None:
        raise InstallationError(f'The module {name} of the installed package has no function ram. Run: {REMEDY}')
    return build


def read_ram_weights(path: Path) -> Any:
    """Reads a .pth file that was published by RAM's authors. It may contain only tensors and plain values.

    Raises:
        CheckpointError: the file is damaged or contains other objects.
    """
    with tensors_only():  # memory-mapped, because the file is three times as large as the network
        content = read_tensors(path, 'cpu', mmap=True)
    state = content.get('model', content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"{path} contains no dict of tensors. Use RAM's weights (ram_swin_large_14m.pth) or SeeSR's (DAPE.pth)."
        )
    return content


@contextmanager
def without_downloads() -> Iterator[None]:
    """Context manager. Inside the block, the Hugging Face libraries use only their cache.

    Otherwise, the package `ram` would download its tokenizer.
    """
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reason(error: Exception) -> str:
    return f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}'
