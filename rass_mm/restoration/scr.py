"""SCR, the semantic-constrained restorer, as an mmagic model."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from mmagic.registry import MODELS
from mmagic.structures import DataSample
from mmengine.dist import all_reduce_dict, get_world_size
from mmengine.model import BaseModel
from torch import Tensor, nn

from rass_mm.config.arguments import Name, Timestep
from rass_mm.datasets.names import class_names
from rass_mm.diffusion.adapters import AdapterSettings, AdapterSpec
from rass_mm.diffusion.attention import SECOND_HALF
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_weights import on_meta
from rass_mm.diffusion.latent_tiles import SCHEMES
from rass_mm.diffusion.one_step import cumulated_alphas
from rass_mm.diffusion.one_step_restorer import OneStepRestorer
from rass_mm.diffusion.prompts import PROMPTS, Prompt
from rass_mm.diffusion.shared_unet import CRITIC, GENERATOR
from rass_mm.diffusion.stages import StagePoint
from rass_mm.diffusion.text import TextEncoder
from rass_mm.engine.trained_state import TrainedStateMixin
from rass_mm.errors import ConfigError
from rass_mm.restoration.losses import attention_ratio
from rass_mm.restoration.losses.building import build_losses
from rass_mm.restoration.optimization import update
from rass_mm.restoration.prediction import TEST_MODES, PredictionMixin
from rass_mm.restoration.samples import labels_of


@MODELS.register_module()
class SCRRestorer(TrainedStateMixin, PredictionMixin, BaseModel):
    """One-step diffusion restorer with cross-attention aligned to segmentation masks (arXiv 2602.14042).

    The state dict contains only trained tensors and provenance, see `TrainedStateMixin`.

    Args:
        base: Stable Diffusion folder in diffusers layout, or several such folders in order of preference.
        classes: class names, or the name of a data set registered with mmseg that defines them in METAINFO.
        expect: requirements on the base, see `read_base`.
        prompt: config of the training prompt: `ClassTokens` (default), `EmptyPrompt` or `TagPrompt`.
        test_prompt: config of the prompt for tests, which must not need labels. None uses `prompt` if that is a
            `ClassTokens` or `EmptyPrompt`, else `ClassTokens`.
        form, timestep, start, trainable, autoencoder, attention_layers, gradient_checkpointing: see `OneStepRestorer`.
        adapter: dict with `rank` and `alpha` of the LoRA; None uses the defaults of `AdapterSpec`.
        losses: configs of up to four losses, each of which may be None or have weight 0: `pixel` (e.g. MSELoss),
            `perceptual` (LPIPSLoss), `score` (VSDLoss) and `constraint` (SemanticConstraintLoss).
        test_cfg: `mode` is 'restore' (default), 'ceiling' (encodes and decodes the clean image, which gives the best
            result that the autoencoder allows) or 'input' (returns the input unchanged). `window`, `overlap` and
            `window_batch` set up tiled restoration; without `window`, images are restored as a whole.
            `scheme='osediff'` restores whole images with the UNet in OSEDiff's latent tiles and ignores `window`.
            `attention=True` also measures the attention ratio of labelled images. `color_fix` 'adain' or 'wavelet'
            matches the colours of the input (`rass_mm.diffusion.color`).
        data_preprocessor: mmagic's data preprocessor, which must return RGB in [-1, 1] and data samples as a list.

    Raises:
        ConfigError: a loss, test mode or prompt is unknown.
    """

    def __init__(
        self,
        base: str | Sequence[str],
        classes: str | Sequence[str],
        expect: dict[str, Any] | None = None,
        prompt: dict[str, Any] | None = None,
        test_prompt: dict[str, Any] | None = None,
        form: str = 'residual',
        timestep: Timestep | None = None,
        adapter: AdapterSettings | None = None,
        start: Name | None = None,
        trainable: bool = True,
        autoencoder: dict[str, Any] | None = None,
        attention_layers: Sequence[str] = SECOND_HALF,
        gradient_checkpointing: bool = False,
        losses: dict[str, dict[str, Any] | None] | None = None,
        test_cfg: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.base = read_base(base, expect)
        self.identity = self.base.identity  # stored now, as there are no weights to identify on the meta device
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
        needed = f'Set it to one of {", ".join(PROMPTS)}, or to a TagPrompt with a tagger that needs no labels'
        if chosen['type'] not in PROMPTS and 'tagger' not in chosen:
            raise ConfigError(f'test_prompt is {chosen["type"]!r}. {needed}.')
        self.test_prompt = self._build_prompt(chosen)
        if getattr(self.test_prompt, 'needs_labels', False):
            raise ConfigError(f'test_prompt takes its tags from labels, which are not available in tests. {needed}.')
        # Prompt stored in the adapter file, which cannot include a tagger.
        self.test_prompt_type = chosen['type'] if chosen['type'] in PROMPTS else 'EmptyPrompt'
        self.test_cfg = {'mode': 'restore', **(test_cfg or {})}
        if self.test_cfg['mode'] not in TEST_MODES:
            raise ConfigError(f'test_cfg.mode is {self.test_cfg["mode"]!r}. Set it to one of {", ".join(TEST_MODES)}.')
        if self.test_cfg.get('scheme', 'windows') not in SCHEMES:
            raise ConfigError(f'test_cfg.scheme is {self.test_cfg["scheme"]!r}. Set it to one of {", ".join(SCHEMES)}.')
        alphas = cumulated_alphas(self.base.configs['scheduler'])
        self.register_buffer('alphas', alphas, persistent=False)
        if score is not None:
            self.register_buffer('negative', self._encoded(score.negative_prompt), persistent=False)

    @property
    def provenance(self) -> dict[str, Any]:
        """The base, the merged adapters and the class names that a checkpoint of this model depends on."""
        return {'base': self.identity, 'merged_adapters': self.generator.merged, 'classes': self.classes}

    def init_weights(self) -> None:
        """Does nothing, because the constructor loads the base and initializes the LoRA."""

    def prepare_prediction(self, dtype: torch.dtype) -> None:
        """Prepares the restorer for prediction in `dtype`, in place, see `rass_mm.engine.ready.prepare`."""
        self.losses, self.prompt = nn.ModuleDict(), self.test_prompt
        self.generator.prepare_prediction(dtype, self.test_prompt)

    def save_adapter(self, path: str, origin: dict[str, Any] | None = None) -> None:
        """Writes the adapter to a safetensors file for `rass-mm restore` and RASS configs.

        Args:
            path: the file.
            origin: further entries of its header, e.g. `terms` and `versions`.
        """
        self.generator.save(path, self.identity, self.test_prompt_type, self.classes, origin)

    def trained_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Returns the trained parameters by optimiser: `generator`, and `critic` if there is a VSD loss.

        Raises:
            ConfigError: the restorer is frozen.
        """
        shared = self.generator.shared
        if shared is None:
            raise ConfigError('This restorer is frozen and cannot be trained. Set model.trainable=True.')
        groups = {'generator': shared.parameters_of(GENERATOR)}
        return {**groups, 'critic': shared.parameters_of(CRITIC)} if shared.has_critic else groups

    def forward(self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor') -> Any:
        """Runs the model in one of mmagic's three modes.

        With gradient checkpointing, both the call in mode 'loss' and the backward pass must be inside
        `generator.capturing()`.

        Args:
            inputs: (B, 3, H, W) degraded RGB images in [-1, 1].
            data_samples: one per image; 'loss' requires `gt_img` (3, H, W) in [-1, 1], and `gt_sem_seg` for the
                constraint loss.
            mode: 'tensor' (restored images), 'predict' (samples with `output.pred_img`) or 'loss' (dict of losses).
        """
        if mode == 'loss':
            return self.generator_losses(inputs, data_samples)[0]
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return self.generator(inputs, self.prompt_of(inputs, data_samples).context)

    def prompt_of(self, inputs: Tensor, data_samples: list[DataSample] | None) -> Prompt:
        """Computes the training prompt in training mode, and the test prompt otherwise."""
        return (self.prompt if self.training else self.test_prompt)(inputs, data_samples)

    def generator_losses(
        self, inputs: Tensor, data_samples: list[DataSample]
    ) -> tuple[dict[str, Tensor], Tensor, Prompt]:
        """Runs the generator and computes its losses.

        Args:
            inputs: see `forward`.
            data_samples: see `forward`.

        Returns:
            The losses by name, the restored latents (B, C, h, w), and the prompt.

        Raises:
            ConfigError: the constraint loss is enabled, but a sample has no labels.
        """
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
                raise ConfigError('The constraint loss needs labels. Pack gt_seg_map, or set losses.constraint=None.')
            losses['loss_constraint'] = constraint(maps, prompt.owners, labels)
        if labels is not None:
            ratio = attention_ratio(maps, prompt.owners, labels)[0]
            losses['attention_ratio'] = ratio.nanmean().nan_to_num()  # 0 if no class of the batch is counted
        return losses, latent, prompt

    def train_step(self, data: dict[str, Any], optim_wrapper: Any) -> dict[str, Tensor]:
        """Runs a step of the generator and, with a VSD loss, a step of the critic on the generator's outputs.

        Args:
            data: a batch from the data loader.
            optim_wrapper: an `OptimWrapperDict` with `generator` and, with a VSD loss, `critic`.

        Returns:
            The values to log, averaged over all processes.
        """
        data = self.data_preprocessor(data, True)
        wrapper = optim_wrapper['generator']
        # Gradient checkpointing runs the layers again in the backward pass, where they must capture too. Without
        # checkpointing, the critic and the teacher can use fused attention.
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
        """Averages the log over all processes."""
        if get_world_size() > 1:
            log = type(log)((key, value.detach().clone()) for key, value in log.items())
            all_reduce_dict(log, op='mean')
        return log

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
            raise ConfigError(f'losses.score.negative_prompt cannot be used with this base. {error}') from None

    def stage_points(self) -> list[StagePoint]:
        """Returns the prompt, the encoder, the UNet and the decoder as stages, in the order in which they run."""
        return [StagePoint('prompt', self.test_prompt), *self.generator.stage_points()]

    def heavy_modules(self) -> list[nn.Module]:
        """Returns the UNet, the encoder and the decoder, which are the modules to compile."""
        return self.generator.heavy_modules()
