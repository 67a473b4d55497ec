"""R2S (restore, then segment): a baseline that runs any segmentor on the output of any restorer."""

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
from rass_mm.engine.ready import prepare_part
from rass_mm.engine.trained_state import TrainedStateMixin, check_tensors, tensors_of
from rass_mm.errors import AdapterError, ConfigError
from rass_mm.segmentation.logits import each_size, keeping_logits
from rass_mm.segmentation.stages import segmentor_heavy_modules, segmentor_stages

INNER = 'segmentor.'


@MODELS.register_module()
class FileRestorer(nn.Module):
    """Trained restorer, loaded from its adapter file, for images of any size.

    Args:
        adapter: adapter file written by the training of the restorer, `scr_*.safetensors`.
        base: base folder that the restorer was trained on, or several folders in order of preference.
        window: side of a window in pixels, a multiple of the restorer's `size_multiple`; None restores whole images.
        overlap: minimum overlap of neighbouring windows in pixels, also a multiple of `size_multiple`.
        window_batch: number of windows in a batch.
        autoencoder: folder of a tiny autoencoder that replaces the decoder of the VAE; None keeps the VAE.
        dtype: 'float32', 'bfloat16' or 'float16'.

    Raises:
        AdapterError: the adapter file does not exist or cannot be used.
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
                f'The adapter file {adapter} does not exist. Train a restorer (rass-mm train scr/...), or pass '
                'an existing file: --cfg-options model.restorer.adapter=FILE.'
            )
        self.restorer = load_restorer(adapter, base, autoencoder, dtype=dtype)
        self.window, self.overlap, self.window_batch = window, overlap, window_batch

    def forward(self, images: Tensor) -> Tensor:
        """Restores (B, 3, H, W) RGB images in [-1, 1], one after the other. The shape and the range are preserved.

        Raises:
            ConfigError: `window` or `overlap` is not a multiple of `size_multiple`, or `overlap` is not less than
                `window`.
        """
        multiple = self.restorer.size_multiple
        window = self.window or -(-max(images.shape[-2:]) // multiple) * multiple
        tiling = (window, self.overlap if self.window else 0, self.window_batch, multiple)
        return torch.stack([blended(image, self.restorer, *tiling) for image in images])

    def stage_points(self) -> list[StagePoint]:
        """Returns the stages of the restorer."""
        return self.restorer.stage_points()

    def heavy_modules(self) -> list[nn.Module]:
        """Returns the most expensive modules of the restorer, which are the ones to compile."""
        return self.restorer.heavy_modules()

    def prepare_prediction(self, dtype: torch.dtype) -> None:
        """Prepares the restorer for prediction, in place, see `rass_mm.engine.ready.prepare`.

        The restorer computes in `dtype` unless its config sets another one than float32.
        """
        own = next(self.restorer.parameters()).dtype
        self.restorer.prepare_prediction(dtype if own is torch.float32 else own)


@MODELS.register_module()
class RestoreThenSegment(BaseSegmentor):
    """Segmentor that restores images with a frozen network, then segments them with any mmseg segmentor.

    The results are the same as if the restored images were written to 8-bit files and the segmentor was run on the
    files. The state dict is that of the segmentor: checkpoints of the segmentor load into this model with strict=True,
    and vice versa. Methods that take images expect (3, H, W) BGR in 0..255, see `restore`.

    Args:
        restorer: config of a module that maps (B, 3, H, W) RGB in [-1, 1] to the same shape and range: a
            `FileRestorer` or any registered module. It loads its own weights (from a file or an `init_cfg`); they are
            not part of this model's checkpoint. A network of mmagic also needs `_scope_='mmagic'` and
            `rass_mm.restoration` in the `custom_imports` of the config.
        segmentor: config of any segmentor, with the same `data_preprocessor` and `test_cfg` as without a restorer.
        data_preprocessor: used if the config of the segmentor has none; mmengine passes the one at the top level of the
            config.
        pretrained, train_cfg: ignored; mmseg's `init_model` sets both to None.

    Raises:
        ConfigError: the segmentor has no data preprocessor.
    """

    def __init__(
        self,
        restorer: dict[str, Any],
        segmentor: dict[str, Any],
        data_preprocessor: dict[str, Any] | None = None,
        pretrained: None = None,
        train_cfg: None = None,
    ) -> None:
        super().__init__()  # the default data preprocessor moves images to the device and changes nothing
        data_preprocessor = segmentor.get('data_preprocessor') or data_preprocessor
        if data_preprocessor is None:
            raise ConfigError('model.segmentor has no data_preprocessor. Set it as in the training of the segmentor.')
        self.segmentor = MODELS.build({**segmentor, 'data_preprocessor': data_preprocessor})
        # Not a registered submodule, so that it is neither trained, saved nor loaded with this model.
        object.__setattr__(self, 'restorer', build_frozen(restorer))
        self.register_state_dict_post_hook(_rename_to_plain)

    @property
    def out_channels(self) -> int:
        """Number of channels of the logits, which test-time augmentation reads."""
        return self.segmentor.out_channels

    @property
    def decode_head(self) -> nn.Module:
        """Decode head of the segmentor, whose threshold test-time augmentation reads."""
        return self.segmentor.decode_head

    def loss(self, inputs: Sequence[Tensor], data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Computes the losses of the segmentor on the restored images; no gradient reaches the restorer."""
        return self.segmentor.loss(**self._prepared(inputs, data_samples, training=True))

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the total loss and the values to log with `parse_losses` of the segmentor."""
        return self.segmentor.parse_losses(losses)

    def test_step(self, data: dict[str, Any]) -> list[SegDataSample]:
        """Segments a batch of images, which can differ in size.

        A segmentor of type `RASS` keeps its logits under the same conditions as in `RASS.test_step`.
        """
        with keeping_logits(self.segmentor):
            return each_size(super().test_step, data)

    def predict(self, inputs: Sequence[Tensor], data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Restores images (see `restore`) and segments them with `predict` of the segmentor."""
        return self.segmentor.predict(**self._prepared(inputs, data_samples))

    def extract_feat(self, inputs: Sequence[Tensor]) -> Any:
        """Restores images and computes the features of the segmentor for them."""
        return self.segmentor.extract_feat(self._prepared(inputs)['inputs'])

    def encode_decode(self, inputs: Sequence[Tensor], batch_img_metas: list[dict]) -> Tensor:
        """Restores images, pads them with the segmentor's data preprocessor, and computes their logits (B, K, H, W)."""
        return self.segmentor.encode_decode(self._prepared(inputs)['inputs'], batch_img_metas)

    def _forward(self, inputs: Sequence[Tensor], data_samples: list[SegDataSample] | None = None) -> Any:
        """Restores images and computes the raw output of the segmentor's head (mmseg's mode 'tensor')."""
        return self.segmentor(**self._prepared(inputs, data_samples), mode='tensor')

    def _prepared(
        self, inputs: Sequence[Tensor], data_samples: list[SegDataSample] | None = None, training: bool = False
    ) -> dict[str, Any]:
        """Restores images and applies the segmentor's data preprocessor, which expects the pixels of image files."""
        shapes = [tuple(image.shape[-2:]) for image in inputs]
        samples = data_samples or [SegDataSample(metainfo={'ori_shape': size, 'img_shape': size}) for size in shapes]
        return self.segmentor.data_preprocessor({'inputs': self.restore(inputs), 'data_samples': samples}, training)

    def restore(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Restores images of any size.

        Args:
            images: (3, H, W) BGR in 0..255, on the device of the model; the images can differ in size.

        Returns:
            The restored images, (3, H, W) BGR uint8.

        Raises:
            ConfigError: the restorer changes the shape of an image.
            AdapterError: the restorer returns NaN or infinity.
        """
        return [self._restored(image) for image in images]

    @torch.no_grad()
    def _restored(self, image: Tensor) -> Tensor:
        rgb = image.flip(0).float().div(127.5).sub(1)[None]
        # Without autocast, so that training in mixed precision sees the same images as testing.
        with torch.autocast(image.device.type, enabled=False):
            restored = self.restorer(rgb)
        if not isinstance(restored, Tensor) or restored.shape != rgb.shape:
            given = tuple(restored.shape) if isinstance(restored, Tensor) else type(restored).__name__
            raise ConfigError(
                f'model.restorer returned {given} for an input of {tuple(rgb.shape)}. '
                'A restorer must preserve the input shape.'
            )
        if not torch.isfinite(restored).all():
            raise AdapterError(
                'model.restorer returned NaN or infinity. Its weights are damaged, or float16 overflows. Use float32 '
                'or bfloat16.'
            )
        return restored[0].float().flip(0).clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'RestoreThenSegment':
        self.restorer._apply(fn, recurse)  # moved and cast with the model, although it is not a registered submodule
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Called before the children's, by torch's and mmengine's loaders alike; torch allows changing the dict here.
        given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        if not isinstance(self.segmentor, TrainedStateMixin):  # those check provenance, names and shapes themselves
            check_tensors(tensors_of(given), _needed(tensors_of(self.segmentor.state_dict()), given))
        for key, value in given.items():
            del state_dict[prefix + key]
            state_dict[prefix + INNER + key] = value
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def prepare_prediction(self, dtype: torch.dtype) -> list[nn.Module]:
        """Prepares the restorer and the segmentor for prediction in `dtype`, in place; returns like `prepare_part`."""
        return [*prepare_part(self.restorer, dtype), *prepare_part(self.segmentor, dtype)]

    def stage_points(self) -> list[StagePoint]:
        """Returns the stages of the restorer, prefixed with 'restore: ', followed by those of the segmentor.

        The prefix distinguishes stages of the same name, such as two UNets.
        """
        described = getattr(self.restorer, 'stage_points', None)
        restoring = [point.below('restore') for point in described()] if described else None
        return [*(restoring or [StagePoint('restore', self.restorer)]), *segmentor_stages(self.segmentor)]

    def heavy_modules(self) -> list[nn.Module]:
        """Returns the most expensive modules of the restorer and the segmentor, which are the ones to compile."""
        described = getattr(self.restorer, 'heavy_modules', None)
        return [*(described() if described else [self.restorer]), *segmentor_heavy_modules(self.segmentor)]


def build_frozen(config: dict[str, Any]) -> nn.Module:
    """Builds a module from its config, calls its `init_weights` if it has one, and freezes the module in eval mode."""
    module = MODELS.build(config)
    if hasattr(module, 'init_weights'):
        module.init_weights()  # mmengine's modules read the file of their init_cfg here
    return module.eval().requires_grad_(False)


def _needed(own: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors that a checkpoint must have. Batch-norm counters are optional; old files lack them."""
    return {key: value for key, value in own.items() if key in given or not key.endswith('num_batches_tracked')}


def _rename_to_plain(_module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: dict) -> None:
    for key in [key for key in state if key.startswith(prefix + INNER)]:
        state[prefix + key[len(prefix + INNER) :]] = state.pop(key)
