"""Fixtures that build the shipped tiny restorer on the random base, with all losses except LPIPS."""

import copy

import pytest
import torch


class Built:
    """Restorer with its optimisers, as built by the runner."""

    def __init__(self, base, **options):
        from mmagic.registry import MODELS
        from mmengine.config import Config
        from mmengine.optim import build_optim_wrapper
        from mmengine.registry import init_default_scope

        import rass_mm
        import rass_mm.restoration  # noqa: F401  (registers)
        from rass_mm.engine.mixed_precision import fitted_precision

        init_default_scope('mmseg')  # as in the shipped configs
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
        """Sets B to nonzero values, because a new LoRA (B = 0) has no gradient for A."""
        torch.manual_seed(1)
        for key, parameter in self.model.named_parameters():
            if 'lora_B' in key:
                torch.nn.init.normal_(parameter, std=0.05)
        return self

    def train_step(self, batch, seed=0):
        """Runs a step on a copy of the batch, with seeded random numbers."""
        torch.manual_seed(seed)
        return self.model.train().train_step(batch(), self.optimizers)


@pytest.fixture(scope='module')
def build(tiny_base):
    """Function (base=None, **options) that returns a `Built`; repeated calls return copies."""
    built = {}

    def make(base=None, **options):
        key = repr((base, options))
        if key not in built:
            built[key] = Built(base or tiny_base, **options)
        return copy.deepcopy(built[key])

    return make


@pytest.fixture
def batch():
    """Function that returns two degraded 32x64 images with clean images and labels, as from the data loader."""
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
