"""Builds the shipped tiny restorer, all losses but LPIPS on, on the random base."""

import copy

import pytest
import torch


class Built:
    """A restorer with its optimisers, as the runner makes them."""

    def __init__(self, base, **options):
        from mmagic.registry import MODELS
        from mmengine.config import Config
        from mmengine.optim import build_optim_wrapper
        from mmengine.registry import init_default_scope

        import rass_mm
        import rass_mm.restoration  # noqa: F401  (registers)
        from rass_mm.apis import fitted_precision

        init_default_scope('mmseg')  # what the shipped configs run under
        config = Config.fromfile(str(rass_mm.config_path('scr/scr_scenes_tiny.py')))
        optimizer = options.pop('optimizer', None)
        changes = {'base': str(base), 'losses.score.loss_weight': 1.0, **options}
        config.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
        torch.manual_seed(0)
        self.model = MODELS.build(config.model)
        wrapper = fitted_precision(dict(config.optim_wrapper))
        if optimizer is not None:
            wrapper = {**wrapper, 'generator': optimizer, 'critic': optimizer}
        self.optimizers = build_optim_wrapper(self.model, wrapper)
        self.config = config

    def moved(self):
        """With B away from 0, where a fresh LoRA has no gradient for A."""
        torch.manual_seed(1)
        for key, parameter in self.model.named_parameters():
            if 'lora_B' in key:
                torch.nn.init.normal_(parameter, std=0.05)
        return self

    def train_step(self, batch, seed=0):
        """One step on a fresh copy of the batch, with the model's draws seeded."""
        torch.manual_seed(seed)
        return self.model.train().train_step(batch(), self.optimizers)


@pytest.fixture(scope='module')
def build(tiny_base):
    """build(base=None, **options) -> a `Built`; a copy where the same one was built before."""
    built = {}

    def make(base=None, **options):
        key = repr((base, options))
        if key not in built:
            built[key] = Built(base or tiny_base, **options)
        return copy.deepcopy(built[key])

    return make


@pytest.fixture
def batch():
    """batch() -> two degraded images of 32x64 with clean ones and labels, as the data loader gives them."""
    from mmengine.structures import PixelData

    def make(**changes):
        from mmagic.structures import DataSample

        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (2, 2, 3, 32, 64), generator=generator).byte()
        labels = torch.tensor([0, 3, 5, 255])[torch.randint(4, (2, 1, 4, 8), generator=generator)]
        labels = labels.repeat_interleave(8, -1).repeat_interleave(8, -2)
        samples = [DataSample() for _ in range(2)]
        for sample, image, label in zip(samples, changes.get('clean', images[1]), labels, strict=True):
            sample.gt_img = image
            sample.gt_sem_seg = PixelData(data=changes.get('label', label))
        return {'inputs': list(images[0]), 'data_samples': samples}

    return make
