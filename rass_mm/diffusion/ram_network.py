"""Loading of the network of RAM or DAPE with the installed package `ram`, without running code in the weight files."""

import hashlib
import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rass_mm.errors import CheckpointError, ConfigError, InstallationError
from rass_mm.files.hashing import update_sampled
from rass_mm.files.tensors import read_tensors, tensors_only

REMEDY = 'pip install git+https://github.com/xinyu1205/recognize-anything'
FORKS = 'the repository of SeeSR or OSEDiff, which contains the folder ram/,'


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
