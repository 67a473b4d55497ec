"""R2S, restore then segment: the baseline that puts any segmentor behind any restorer."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from rass_mm.diffusion.restorer import load_restorer
from rass_mm.diffusion.stages import StagePoint
from rass_mm.diffusion.tiling import blended
from rass_mm.engine.trained_state import TrainedStateMixin, check_tensors
from rass_mm.errors import AdapterError, ConfigError
from rass_mm.segmentation.stages import segmentor_heavy_modules, segmentor_stages

INNER = 'segmentor.'


@MODELS.register_module()
class FileRestorer(nn.Module):
    """A trained restorer from its adapter file, for images of any size.

    Args:
        adapter: file that the restorer's training wrote, `scr_*.safetensors`.
        base: the base folder it was trained on, or several in order of preference.
        window: side of a window in pixels, a multiple of the base's; None restores whole images.
        overlap: pixels that neighbouring windows share.
        window_batch: windows at a time.
        autoencoder: folder of a tiny autoencoder in place of the VAE's decoder; None keeps the VAE.
        dtype: 'float32', 'bfloat16' or 'float16'.

    Raises:
        AdapterError: there is no such file, or it cannot be used.
        BaseFolderError, ConfigError: the base, the autoencoder or the dtype cannot be used.
    """

    def __init__(
        self,
        adapter: str,
        base: str | Sequence[str],
        window: int | None = None,
        overlap: int = 0,
        window_batch: int = 1,
        autoencoder: str | None = None,
        dtype: str = 'float32',
    ) -> None:
        super().__init__()
        if not Path(adapter).is_file():
            raise AdapterError(
                f'The adapter file {adapter} does not exist. Train a restorer (rass-mm train scr/...), or name the '
                'file of one: --cfg-options model.restorer.adapter=FILE.'
            )
        self.restorer = load_restorer(adapter, base, autoencoder, dtype=dtype)
        self.window, self.overlap, self.window_batch = window, overlap, window_batch

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] to the same, restored; each image by itself.

        Raises:
            ConfigError: window and overlap do not fit the base or each other.
        """
        multiple = self.restorer.size_multiple
        window = self.window or -(-max(images.shape[-2:]) // multiple) * multiple
        tiling = (window, self.overlap if self.window else 0, self.window_batch, multiple)
        return torch.stack([blended(image, self.restorer, *tiling) for image in images])

    def stage_points(self) -> list[StagePoint]:
        """The restorer's stages."""
        return self.restorer.stage_points()

    def heavy_modules(self) -> list[nn.Module]:
        """The restorer's heavy modules."""
        return self.restorer.model.heavy_modules()


@MODELS.register_module()
class RestoreThenSegment(BaseSegmentor):
    """Restores images with a frozen network and segments what came out with any segmentor of mmseg.

    The results are those of restoring to image files (8 bits) and running the segmentor on the files. The state dict is
    the segmentor's own, key by key: its checkpoints load here, strictly, and those of this model load there.

    Args:
        restorer: config of a module that maps (B, 3, H, W) RGB in [-1, 1] to the same: a `FileRestorer`, or any
            registered one. Its weights come with it (a file it reads, an `init_cfg`) and not from this model's
            checkpoint. A network of mmagic also needs `_scope_='mmagic'` and `rass_mm.restoration` in the config's
            `custom_imports`.
        segmentor: config of any segmentor, with the `data_preprocessor` and the `test_cfg` it has without a restorer.
        data_preprocessor: the segmentor's, if its own config names none: mmengine passes on what stands at a config's
            top level.

    Raises:
        ConfigError: the segmentor has no data preprocessor.
    """

    def __init__(
        self, restorer: dict[str, Any], segmentor: dict[str, Any], data_preprocessor: dict[str, Any] | None = None
    ) -> None:
        super().__init__()  # its own data preprocessor moves images to the device and changes nothing
        data_preprocessor = segmentor.get('data_preprocessor') or data_preprocessor
        if data_preprocessor is None:
            raise ConfigError('model.segmentor has no data_preprocessor: give it the one it was trained with.')
        self.segmentor = MODELS.build({**segmentor, 'data_preprocessor': data_preprocessor})
        # Not registered: whoever lists, trains, saves or loads this model's parts has no business with a frozen one.
        object.__setattr__(self, 'restorer', build_frozen(restorer))
        self.register_state_dict_post_hook(_rename_to_plain)

    @property
    def out_channels(self) -> int:
        """Channels of the logits; test-time augmentation asks for them."""
        return self.segmentor.out_channels

    @property
    def decode_head(self) -> nn.Module:
        """The segmentor's head; test-time augmentation asks for its threshold."""
        return self.segmentor.decode_head

    def loss(self, inputs: Sequence[Tensor], data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """The segmentor's losses on the restored images, see `restore`; the restorer gets no gradient."""
        return self.segmentor.loss(**self._prepared(inputs, data_samples, training=True))

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """As the segmentor does it."""
        return self.segmentor.parse_losses(losses)

    def predict(self, inputs: Sequence[Tensor], data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """The segmentor's predictions on the restored images, see `restore`."""
        return self.segmentor.predict(**self._prepared(inputs, data_samples))

    def extract_feat(self, inputs: Sequence[Tensor]) -> Any:
        """The segmentor's features of the restored images."""
        return self.segmentor.extract_feat(self._prepared(inputs)['inputs'])

    def encode_decode(self, inputs: Sequence[Tensor], batch_img_metas: list[dict]) -> Tensor:
        """The segmentor's logits (B, K, H, W) of the restored images, padded as its data preprocessor does."""
        return self.segmentor.encode_decode(self._prepared(inputs)['inputs'], batch_img_metas)

    def _forward(self, inputs: Sequence[Tensor], data_samples: list[SegDataSample] | None = None) -> Any:
        """Raw output of the head, mmseg's 'tensor' mode."""
        return self.segmentor(**self._prepared(inputs, data_samples), mode='tensor')

    def _prepared(
        self, inputs: Sequence[Tensor], data_samples: list[SegDataSample] | None = None, training: bool = False
    ) -> dict[str, Any]:
        """Restored images and samples as the segmentor wants them: its data preprocessor starts from image files."""
        shapes = [tuple(image.shape[-2:]) for image in inputs]
        samples = data_samples or [SegDataSample(metainfo={'ori_shape': size, 'img_shape': size}) for size in shapes]
        return self.segmentor.data_preprocessor({'inputs': self.restore(inputs), 'data_samples': samples}, training)

    def restore(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Restores images, each at its own size.

        Args:
            images: (3, H, W) BGR in 0..255, on this model's device; sizes may differ.

        Returns:
            The restored images, (3, H, W) BGR uint8.

        Raises:
            ConfigError: the restorer changes the shape.
            AdapterError: it gives NaN or infinity.
        """
        return [self._restored(image) for image in images]

    @torch.no_grad()
    def _restored(self, image: Tensor) -> Tensor:
        rgb = image.flip(0).float().div(127.5).sub(1)[None]
        # Training in mixed precision must see what testing sees.
        with torch.autocast(image.device.type, enabled=False):
            restored = self.restorer(rgb)
        if not isinstance(restored, Tensor) or restored.shape != rgb.shape:
            given = tuple(restored.shape) if isinstance(restored, Tensor) else type(restored).__name__
            raise ConfigError(f'model.restorer made {given} of {tuple(rgb.shape)}: a restorer must keep the shape.')
        if not torch.isfinite(restored).all():
            raise AdapterError(
                'model.restorer gave NaN or infinity. Either its weights are damaged, or float16 is too narrow for '
                'them: use float32 or bfloat16.'
            )
        return restored[0].float().flip(0).clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'RestoreThenSegment':
        self.restorer._apply(fn, recurse)  # moves and casts with the model, though it is no registered part of it
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Called before the children's, by torch's and mmengine's loaders alike; torch allows changing the dict here.
        given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        if not isinstance(self.segmentor, TrainedStateMixin):  # which checks provenance first, then the same
            check_tensors(given, _needed(self.segmentor.state_dict(), given))
        for key, value in given.items():
            del state_dict[prefix + key]
            state_dict[prefix + INNER + key] = value
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def stage_points(self) -> list[StagePoint]:
        """The restorer's stages under 'restore: ...', because both may have a UNet; then the segmentor's."""
        described = getattr(self.restorer, 'stage_points', None)
        restoring = [point.below('restore') for point in described()] if described else None
        return [*(restoring or [StagePoint('restore', self.restorer)]), *segmentor_stages(self.segmentor)]

    def heavy_modules(self) -> list[nn.Module]:
        """The heavy modules of both."""
        described = getattr(self.restorer, 'heavy_modules', None)
        return [*(described() if described else [self.restorer]), *segmentor_heavy_modules(self.segmentor)]


def build_frozen(config: dict[str, Any]) -> nn.Module:
    """Builds a module of mmseg's registry or, by scope, of another, with the weights its config names; frozen."""
    module = MODELS.build(config)
    if hasattr(module, 'init_weights'):
        module.init_weights()  # mmengine's modules read the file of their init_cfg here
    return module.eval().requires_grad_(False)


def _needed(own: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a checkpoint must have: counters of batch normalisation, which old ones lack, are not missed."""
    return {key: value for key, value in own.items() if key in given or not key.endswith('num_batches_tracked')}


def _rename_to_plain(_module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: dict) -> None:
    for key in [key for key in state if key.startswith(prefix + INNER)]:
        state[prefix + key[len(prefix + INNER) :]] = state.pop(key)
