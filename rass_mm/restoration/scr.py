"""SCR, the semantic-constrained restorer, as a model of mmagic."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from mmagic.registry import MODELS
from mmagic.structures import DataSample
from mmengine.dist import all_reduce_dict, get_world_size
from mmengine.model import BaseModel
from torch import Tensor, nn

from rass_mm.datasets.names import class_names
from rass_mm.diffusion.adapters import AdapterSpec
from rass_mm.diffusion.attention import SECOND_HALF
from rass_mm.diffusion.base import on_meta, read_base
from rass_mm.diffusion.color import fix_colors
from rass_mm.diffusion.latent_tiles import SCHEMES
from rass_mm.diffusion.one_step import cumulated_alphas
from rass_mm.diffusion.prompts import PROMPTS, Prompt
from rass_mm.diffusion.restorer import OneStepRestorer, clamped
from rass_mm.diffusion.shared_unet import CRITIC, GENERATOR
from rass_mm.diffusion.stages import StagePoint
from rass_mm.diffusion.text import TextEncoder
from rass_mm.diffusion.tiling import blended
from rass_mm.engine.trained_state import TrainedStateMixin
from rass_mm.errors import ConfigError
from rass_mm.restoration.losses import attention_ratio
from rass_mm.restoration.optimization import update

TEST_MODES = ('restore', 'ceiling', 'input')
LOSSES = ('pixel', 'perceptual', 'score', 'constraint')


@MODELS.register_module()
class SCRRestorer(TrainedStateMixin, BaseModel):
    """One-step diffusion restorer whose cross-attention is aligned with segmentation masks (arXiv 2602.14042).

    The state dict holds trained tensors and provenance only; see `TrainedStateMixin`.

    Args:
        base: Stable Diffusion folder in diffusers layout, or several in order of preference.
        classes: class names, or the name of a data set registered in mmseg whose METAINFO has them.
        expect: what the base must be, see `read_base`.
        prompt: config of the prompt in training: `ClassTokens` (default), `EmptyPrompt` or `TagPrompt`.
        test_prompt: the prompt where there are no labels; None takes `prompt` if that needs none, else `ClassTokens`.
        form, timestep, start, trainable, autoencoder, attention_layers, gradient_checkpointing: see `OneStepRestorer`.
        adapter: `rank` and `alpha` of the LoRA.
        losses: configs of up to four losses, any of which may be None or weigh 0: `pixel` (images, e.g. MSELoss),
            `perceptual` (LPIPSLoss), `score` (VSDLoss) and `constraint` (SemanticConstraintLoss).
        test_cfg: `mode` 'restore', 'ceiling' (the clean image through the autoencoder) or 'input' (left as it is);
            `window`, `overlap` and `window_batch` for tiled restoration (no window: whole images); `scheme='osediff'`
            restores whole images with the UNet in OSEDiff's latent tiles, whatever the window; `attention=True`
            also measures the attention ratio where there are labels; `color_fix` 'adain' or 'wavelet' gives the result
            its input's colours (`rass_mm.diffusion.color`).
        data_preprocessor: mmagic's, giving RGB in [-1, 1] and data samples as a list.

    Raises:
        ConfigError: an unknown loss, test mode or prompt.
    """

    def __init__(
        self,
        base: str | Sequence[str],
        classes: str | Sequence[str],
        expect: dict[str, Any] | None = None,
        prompt: dict[str, Any] | None = None,
        test_prompt: dict[str, Any] | None = None,
        form: str = 'residual',
        timestep: int | None = None,
        adapter: dict[str, Any] | None = None,
        start: str | None = None,
        trainable: bool = True,
        autoencoder: dict[str, Any] | None = None,
        attention_layers: Sequence[str] = SECOND_HALF,
        gradient_checkpointing: bool = False,
        losses: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.base = read_base(base, expect)
        self.identity = self.base.identity  # now: under the meta device there are no weights to identify
        self.classes = class_names(classes)
        self.losses = build_losses(losses or {})
        score = dict(self.losses).get('score')
        self.generator = OneStepRestorer(
            self.base,
            form=form,
            timestep=timestep,
            adapter=AdapterSpec(**(adapter or {})),
            critic=score.adapter if score is not None else None,
            start=start,
            trainable=trainable,
            autoencoder=autoencoder,
            attention_layers=attention_layers,
            gradient_checkpointing=gradient_checkpointing,
        )
        prompt = prompt or {'type': 'ClassTokens'}
        self.prompt = self._build_prompt(prompt)
        fallback = prompt if prompt['type'] in PROMPTS else {'type': 'ClassTokens'}
        chosen = test_prompt or fallback
        needed = f'one of {", ".join(PROMPTS)} is needed, or a TagPrompt whose tagger reads no labels'
        if chosen['type'] not in PROMPTS and 'tagger' not in chosen:
            raise ConfigError(f'test_prompt is {chosen["type"]!r}; {needed}.')
        self.test_prompt = self._build_prompt(chosen)
        if getattr(self.test_prompt, 'needs_labels', False):
            raise ConfigError(f'test_prompt takes its tags from labels, which there are none of; {needed}.')
        # What others can use the adapter with: no tagger comes with it.
        self.test_prompt_type = chosen['type'] if chosen['type'] in PROMPTS else 'EmptyPrompt'
        self.test_cfg = {'mode': 'restore', **(test_cfg or {})}
        if self.test_cfg['mode'] not in TEST_MODES:
            raise ConfigError(f'test_cfg.mode is {self.test_cfg["mode"]!r}; one of {", ".join(TEST_MODES)} is needed.')
        if self.test_cfg.get('scheme', 'windows') not in SCHEMES:
            raise ConfigError(f'test_cfg.scheme is {self.test_cfg["scheme"]!r}; one of {", ".join(SCHEMES)} is needed.')
        alphas = cumulated_alphas(self.base.configs['scheduler'])
        self.register_buffer('alphas', alphas, persistent=False)
        if score is not None:
            self.register_buffer('negative', self._encoded(score.negative_prompt), persistent=False)

    @property
    def provenance(self) -> dict[str, Any]:
        """What a checkpoint of this model depends on."""
        return {'base': self.identity, 'merged_adapters': self.generator.merged, 'classes': self.classes}

    def init_weights(self) -> None:
        """Does nothing: the weights come from the base folder, and the LoRA was drawn when it was added."""

    def save_adapter(self, path: str) -> None:
        """Writes the restorer's adapter to one safetensors file, for `rass-mm restore` and a RASS config."""
        self.generator.save(path, self.identity, self.test_prompt_type, self.classes)

    def trained_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by optimiser: `generator`, and `critic` if there is a VSD loss."""
        shared = self.generator.shared
        if shared is None:
            raise ConfigError('This restorer is frozen (model.trainable=False): it can be tested, not trained.')
        groups = {'generator': shared.parameters_of(GENERATOR)}
        return {**groups, 'critic': shared.parameters_of(CRITIC)} if shared.has_critic else groups

    def forward(self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor') -> Any:
        """mmagic's three modes.

        With gradient checkpointing, the backward pass of a loss belongs inside `generator.capturing()` with its call.

        Args:
            inputs: (B, 3, H, W) RGB in [-1, 1], degraded.
            data_samples: per image; 'loss' needs `gt_img` (3, H, W) in [-1, 1] and for the constraint `gt_sem_seg`.
            mode: 'tensor' (restored images), 'predict' (samples with `output.pred_img`) or 'loss' (dict of losses).
        """
        if mode == 'loss':
            return self.generator_losses(inputs, data_samples)[0]
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return self.generator(inputs, self.prompt_of(inputs, data_samples).context)

    def prompt_of(self, inputs: Tensor, data_samples: list[DataSample] | None) -> Prompt:
        """The training prompt in training mode, the test prompt otherwise."""
        return (self.prompt if self.training else self.test_prompt)(inputs, data_samples)

    def generator_losses(
        self, inputs: Tensor, data_samples: list[DataSample]
    ) -> tuple[dict[str, Tensor], Tensor, Prompt]:
        """The generator's losses, the restored latents and the prompt they were made with."""
        model, losses = self.generator, {}
        prompt = self.prompt_of(inputs, data_samples)
        constraint = dict(self.losses).get('constraint')
        with model.capturing() as maps:
            latent = model.restore_latent(model.encode(inputs), prompt.context)
            maps = dict(maps)
        if 'pixel' in self.losses or 'perceptual' in self.losses:
            restored, clean = model.decode(latent), torch.stack([sample.gt_img for sample in data_samples])
            for name in ('pixel', 'perceptual'):
                if name in self.losses:
                    losses[f'loss_{name}'] = self.losses[name](restored.float(), clean.float())
        if 'score' in self.losses:
            negative = self.negative.expand(len(inputs), -1, -1)
            arguments = (model.shared, self.alphas, latent, prompt.context, negative)
            losses['loss_score'] = self.losses['score'](*arguments)
        labels = labels_of(data_samples, inputs.device)
        if constraint is not None:
            if labels is None:
                raise ConfigError('The constraint loss needs labels: pack gt_seg_map, or set losses.constraint=None.')
            losses['loss_constraint'] = constraint(maps, prompt.owners, labels)
        if labels is not None:
            ratio = attention_ratio(maps, prompt.owners, labels)[0]
            losses['attention_ratio'] = ratio.nanmean().nan_to_num()  # 0: no class of the batch counts
        return losses, latent, prompt

    def train_step(self, data: dict[str, Any], optim_wrapper: Any) -> dict[str, Tensor]:
        """One step of the generator, then one of the critic on what the generator gave.

        Args:
            data: a batch from the data loader.
            optim_wrapper: an `OptimWrapperDict` with `generator` and, with a VSD loss, `critic`.

        Returns:
            Values for the log.
        """
        data = self.data_preprocessor(data, True)
        wrapper = optim_wrapper['generator']
        # Gradient checkpointing runs the layers again in the backward pass, which must find them capturing. Without it
        # the critic and the teacher keep the fused attention.
        again = self.generator.unet.is_gradient_checkpointing
        with self.generator.capturing() if again else nullcontext():
            with wrapper.optim_context(self):
                losses, latent, prompt = self.generator_losses(data['inputs'], data['data_samples'])
            total, log = self.parse_losses(losses)
            update(wrapper, total, log)
        if self.generator.shared.has_critic:
            critic = optim_wrapper['critic']
            with self.generator.shared.critic():
                with critic.optim_context(self):
                    loss = self.losses['score'].critic_loss(self.generator.shared, self.alphas, latent, prompt.context)
                update(critic, loss, {'critic': loss})
            log['critic'] = loss.detach()
        return self._averaged(log)

    @staticmethod
    def _averaged(log: dict[str, Tensor]) -> dict[str, Tensor]:
        """The log of all processes."""
        if get_world_size() > 1:
            log = type(log)((key, value.detach().clone()) for key, value in log.items())
            all_reduce_dict(log, op='mean')
        return log

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Samples with `output.pred_img` and `input` (3, H, W) BGR in 0..255, and `attention` if it is asked for."""
        samples = data_samples if data_samples is not None else [DataSample() for _ in inputs]
        for image, sample in zip(inputs, samples, strict=True):
            with self._measuring(image, sample):
                restored = self.restore(self._source(image, sample), sample)
            sample.output = DataSample(pred_img=to_bgr(restored))
            sample.set_field(to_bgr(image), 'input')
        return samples

    def _source(self, image: Tensor, sample: DataSample) -> Tensor:
        """What goes in: the degraded image, or for the ceiling the clean one.

        Raises:
            ConfigError: there is no clean one.
        """
        if self.test_cfg['mode'] != 'ceiling':
            return image
        if 'gt_img' not in sample:
            raise ConfigError("test_cfg.mode='ceiling' needs clean images: pack `gt`.")
        return (sample.gt_img.to(image).flip(0) / 127.5) - 1

    def restore(self, image: Tensor, sample: DataSample | None = None) -> Tensor:
        """One image (3, H, W) RGB in [-1, 1] of any size, by `test_cfg`: whole or in blended windows.

        The prompt is that of the whole image; a tagger may look at `sample`.
        """
        model, mode, multiple = self.generator, self.test_cfg['mode'], self.generator.size_multiple
        tiled = mode == 'restore' and self._in_latent_tiles
        if mode == 'input':
            return image

        prompt = self.test_prompt(image[None], None if sample is None else [sample]) if mode == 'restore' else None

        def apply(images: Tensor) -> Tensor:
            if prompt is None:
                return model.decode(model.encode(images))
            return clamped(model(images, prompt.repeated(len(images)).context, tiled))

        if tiled:
            multiple = model.autoencoder.stride
        window = None if tiled else self.test_cfg.get('window')
        tiles = (-(-max(image.shape[1:]) // multiple) * multiple, 0, 1)
        if window is not None:
            tiles = (window, self.test_cfg.get('overlap', 0), self.test_cfg.get('window_batch', 1))
        return self._color_fixed(blended(image, apply, *tiles, multiple), image)

    @property
    def _in_latent_tiles(self) -> bool:
        return self.test_cfg.get('scheme') == 'osediff'

    def _color_fixed(self, restored: Tensor, source: Tensor) -> Tensor:
        method = self.test_cfg.get('color_fix', 'none')
        if method == 'none':
            return restored
        ours, given = (image.permute(1, 2, 0).float().cpu() / 2 + 0.5 for image in (restored, source))
        return torch.from_numpy(fix_colors(ours.numpy(), given.numpy(), method)).permute(2, 0, 1).to(restored) * 2 - 1

    @contextmanager
    def _measuring(self, image: Tensor, sample: DataSample) -> Iterator[None]:
        """Adds the attention ratio of the restoration inside to a labelled sample, if `test_cfg` asks for it.

        Raises:
            ConfigError: restoration in windows or tiles, whose maps do not cover the image.
        """
        labels = labels_of([sample], image.device)
        if not self.test_cfg.get('attention') or labels is None or self.test_cfg['mode'] != 'restore':
            yield
            return
        if self.test_cfg.get('window') is not None or self._in_latent_tiles:
            raise ConfigError(
                'test_cfg.attention=True needs whole images: leave test_cfg.window out, and test_cfg.scheme.'
            )
        with self.generator.capturing() as maps:
            yield
        multiple = self.generator.size_multiple
        height, width = (-side % multiple for side in image.shape[1:])
        labels = F.pad(labels, (0, width, 0, height), value=255)
        ratio, chance = attention_ratio(maps, self.test_prompt(image[None], [sample]).owners, labels)
        sample.set_field({'ratio': ratio.item(), 'chance': chance.item()}, 'attention')

    def _build_prompt(self, config: dict[str, Any]) -> nn.Module:
        config = {**config, 'base': self.base, 'classes': self.classes}
        if isinstance(config.get('tagger'), dict):
            config['tagger'] = MODELS.build({'classes': self.classes, **config['tagger'], '_scope_': 'mmagic'})
        return MODELS.build({**config, '_scope_': 'mmagic'})

    def _encoded(self, text: str) -> Tensor:
        if on_meta():
            return torch.empty(1, 77, self.base.context_width)
        try:
            return TextEncoder(self.base).encode_texts([text])[0]
        except ConfigError as error:
            raise ConfigError(f'losses.score.negative_prompt does not suit this base. {error}') from None

    def stage_points(self) -> list[StagePoint]:
        """Prompt, encoder, UNet and decoder, in the order in which they run."""
        return [StagePoint('prompt', self.test_prompt), *self.generator.stage_points()]

    def heavy_modules(self) -> list[nn.Module]:
        """UNet, encoder and decoder: the modules that are compiled."""
        return self.generator.heavy_modules()


def build_losses(configs: dict[str, Any]) -> nn.ModuleDict:
    """The losses that are switched on.

    Raises:
        ConfigError: an unknown name.
    """
    unknown = sorted(configs.keys() - set(LOSSES))
    if unknown:
        raise ConfigError(f'losses has no {unknown[0]!r}; there are {", ".join(LOSSES)}.')
    # The scope is named, because a config of mmseg's default scope would send the types to mmseg's registry.
    switched_on = {name: {**configs[name], '_scope_': 'mmagic'} for name in LOSSES if _is_on(configs.get(name))}
    return nn.ModuleDict({name: MODELS.build(config) for name, config in switched_on.items()})


def _is_on(config: dict[str, Any] | None) -> bool:
    return config is not None and config.get('loss_weight', 1.0) != 0


def labels_of(data_samples: Sequence[DataSample] | None, device: torch.device) -> Tensor | None:
    """(B, H, W) class ids, or None where a sample has none."""
    if not data_samples or any('gt_sem_seg' not in sample for sample in data_samples):
        return None
    return torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in data_samples]).to(device)


def to_bgr(image: Tensor) -> Tensor:
    """(3, H, W) RGB in [-1, 1] to BGR in 0..255, clamped, on the CPU: mmagic's form of an image."""
    return ((image.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).flip(0)
