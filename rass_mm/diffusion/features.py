"""Named intermediate features of the VAE encoder and the UNet, collected by hooks on their public submodules.

A feature is named after its module, e.g. `vae.down_blocks.1` (in the VAE encoder), `unet.mid_block` or
`unet.up_blocks.0`.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from rass_mm.diffusion.base import DiffusionBase
from rass_mm.errors import ConfigError

RASS_FEATURES = (
    'vae.down_blocks.1',
    'vae.down_blocks.3',
    *(f'unet.up_blocks.{index}' for index in range(4)),
)
"""Features of the released segmentor.

In Stable Diffusion, they have 256, 512, 1280, 1280, 640 and 320 channels at strides of 4, 8, 32, 16, 8 and 8.
"""


@dataclass(frozen=True)
class FeatureInfo:
    """Name, number of channels and stride (image pixels per feature pixel) of a feature."""

    name: str
    channels: int
    stride: int


def describe_features(base: DiffusionBase, names: Sequence[str]) -> list[FeatureInfo]:
    """Computes the numbers of channels and the strides of features from the configs of the base.

    Raises:
        ConfigError: the base has no feature with one of the names. The message lists all features of the base.
    """
    known = _all_features(base)
    for name in names:
        if name not in known:
            raise ConfigError(f'The base {base.folder} has no feature {name!r}. Choose from: {", ".join(known)}.')
    return [known[name] for name in names]


def _all_features(base: DiffusionBase) -> dict[str, FeatureInfo]:
    vae, unet = (base.configs[part]['block_out_channels'] for part in ('vae', 'unet'))
    latent, vae_last, unet_last = base.vae_stride, len(vae) - 1, len(unet) - 1
    infos = [FeatureInfo(f'vae.down_blocks.{i}', vae[i], 2 ** min(i + 1, vae_last)) for i in range(len(vae))]
    # A down block ends by halving the size and an up block by doubling it, except for the last block of each kind.
    infos += [
        FeatureInfo(f'unet.down_blocks.{i}', unet[i], latent * 2 ** min(i + 1, unet_last)) for i in range(len(unet))
    ]
    infos += [FeatureInfo('unet.mid_block', unet[-1], latent * 2**unet_last)]
    infos += [
        FeatureInfo(f'unet.up_blocks.{i}', unet[unet_last - i], latent * 2 ** max(unet_last - 1 - i, 0))
        for i in range(len(unet))
    ]
    return {info.name: info for info in infos}


@contextmanager
def collected(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Context manager. Yields a dict to which the outputs of `modules` (name -> module) are written inside the block.

    A second call of a module overwrites its first output. For a module that returns a tuple, such as a down block of
    the UNet, the first tensor is stored. The hooks are removed after the block exits.
    """
    store: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor | tuple[Tensor, ...]) -> None:
        store[name] = output[0] if isinstance(output, tuple) else output

    with ExitStack() as stack:
        for name, module in modules.items():
            handle = module.register_forward_hook(lambda _module, _args, output, name=name: keep(name, output))
            stack.callback(handle.remove)
        yield store
