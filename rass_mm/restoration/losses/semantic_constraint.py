"""Semantic-constrained loss L_SCL, which aligns the cross-attention of class names with the class masks.

The paper names the loss but does not publish its formula. This implementation uses the ratio of TokenCompose (arXiv
2312.03626) and CoMat (arXiv 2404.03653), which is the fraction of a word's attention inside its mask. A ratio does not
depend on the amount of attention that the start token absorbs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmagic.registry import MODELS
from torch import Tensor, nn

from rass_mm.config.arguments import NotNegative
from rass_mm.diffusion.attention import class_maps, map_size
from rass_mm.diffusion.prompts import NOBODY
from rass_mm.errors import ConfigError

FORMS = ('ratio', 'mse', 'dice')
IGNORED = 255
"""Label id of unlabelled pixels and padding in mmseg."""
MIN_AREA = 0.005
EPS = 1e-8
"""Added to denominators to avoid a division by 0."""


@dataclass(frozen=True)
class ClassTarget:
    """Target of the attention maps of one image in one layer, as returned by `class_target`.

    Args:
        classes: ids of the K classes that the loss includes.
        masks: (K, h, w) class masks; 1 inside the class, else 0.
        counted: (h, w) mask of the cells that the loss includes; 1 for an included cell, else 0.
    """

    classes: list[int]
    masks: Tensor
    counted: Tensor


@MODELS.register_module()
class SemanticConstraintLoss(nn.Module):
    """Loss of the attention outside the class masks, averaged over layers, images and classes.

    The paper does not publish L_SCL. Let A be the attention map of a class and M its mask. `ratio` is
    (1 - sum(A M) / (sum(A) + eps))^2 with sums over the labelled cells, which is the token loss of TokenCompose and
    CoMat (CODSR omits the square). `mse` is mean (A' - M)^2 and `dice` is 1 - 2 sum(A' M) / (sum(A') + sum(M)),
    where A' is A scaled to [0, 1] by its minimum and maximum. `pixel_weight` is the weight of an additional binary
    cross-entropy between A and M (TokenCompose's pixel loss).

    Args:
        loss_weight: weight of the loss, lambda_SCL.
        form: 'ratio', 'mse' or 'dice'.
        squared: whether to square the ratio.
        pixel_weight: weight of the binary cross-entropy.
        min_area: minimum fraction of the labelled pixels that a class must cover to be counted.

    Raises:
        ConfigError: the form is unknown.
    """

    def __init__(
        self,
        loss_weight: NotNegative = 0.1,
        form: str = 'ratio',
        squared: bool = True,
        pixel_weight: float = 0.0,
        min_area: float = MIN_AREA,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ConfigError(f'SemanticConstraintLoss: form is {form!r}. Set it to one of {", ".join(FORMS)}.')
        self.loss_weight, self.form, self.squared, self.pixel_weight = loss_weight, form, squared, pixel_weight
        self.min_area = min_area

    def forward(self, maps: Mapping[str, Tensor], owners: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss. If no class of any image is counted, it is exactly 0, with zero gradients.

        Args:
            maps: layer name -> (B, N, T) attention probabilities, N = h*w.
            owners: (B, T) class id of each context token, or `NOBODY`.
            labels: (B, H, W) class ids of the images; 255 is unlabelled.
        """
        # Sums of empty slices are 0 with zero gradients. A sum of float16 maps times 0 would be NaN on overflow.
        total = sum(attention[:0].float().sum() for attention in maps.values())
        layers = []
        for attention in maps.values():
            terms = [self._terms(one.float(), *pair) for one, *pair in zip(attention, owners, labels, strict=True)]
            terms = torch.cat(terms)
            if len(terms):
                layers.append(terms.mean())
        return total + self.loss_weight * torch.stack(layers).mean() if layers else total

    def _terms(self, attention: Tensor, owners: Tensor, label: Tensor) -> Tensor:
        """Computes the (K,) losses of the counted classes of one image in one layer."""
        size = map_size(attention.shape[0], tuple(label.shape))
        target = class_target(label, present_owners(owners), size, self.min_area)
        if not target.classes:
            return attention.new_zeros(0)
        with torch.autocast(attention.device.type, enabled=False):
            maps = class_maps(attention, owners, target.classes, size)
            return self._compare(maps, target.masks, target.counted)

    def _compare(self, maps: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        if self.form == 'ratio':
            missed = 1 - inside_share(maps, masks, counted)
            terms = missed.square() if self.squared else missed
        else:
            scaled = _min_max(maps, counted)
            if self.form == 'mse':
                terms = ((scaled - masks).square() * counted).sum((1, 2)) / counted.sum()
            else:
                overlap = (scaled * masks * counted).sum((1, 2))
                terms = 1 - 2 * overlap / ((scaled * counted).sum((1, 2)) + masks.sum((1, 2)) + EPS)
        if self.pixel_weight:
            inside = maps.clamp(EPS, 1 - 1e-6)
            pixels = F.binary_cross_entropy(inside, masks, reduction='none')
            terms = terms + self.pixel_weight * (pixels * counted).sum((1, 2)) / counted.sum()
        return terms


def _min_max(maps: Tensor, counted: Tensor) -> Tensor:
    """Scales each map to [0, 1] over the counted cells."""
    infinity = torch.finfo(maps.dtype).max
    low = maps.masked_fill(counted == 0, infinity).amin((1, 2), keepdim=True)
    high = maps.masked_fill(counted == 0, -infinity).amax((1, 2), keepdim=True)
    return ((maps - low) / (high - low + EPS)).clamp(0, 1)


def inside_share(maps: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
    """Computes the fraction of the attention of each class that is inside its mask.

    Args:
        maps: (K, h, w) attention of the classes.
        masks: (K, h, w) masks of the classes.
        counted: (h, w) mask of the counted cells, to which the sums are limited.

    Returns:
        (K,) fractions.
    """
    return (maps * masks).sum((1, 2)) / ((maps * counted).sum((1, 2)) + EPS)


def present_owners(owners: Tensor) -> list[int]:
    """Returns the ids of the classes that own a token, from the owner of each token (T,)."""
    return [i for i in torch.unique(owners).tolist() if i != NOBODY]


def class_target(
    label: Tensor, candidates: Sequence[int], size: tuple[int, int], min_area: float = MIN_AREA
) -> ClassTarget:
    """Computes the masks of the counted classes at the resolution of a layer.

    A cell is counted if at least half of it is labelled, and is part of a class mask if at least half of its labelled
    pixels have that class. A class is counted if it owns a token, covers `min_area` of the labelled pixels, and has at
    least one cell in its mask.

    Args:
        label: (H, W) class ids; H and W are multiples of h and w.
        candidates: class ids that own a token.
        size: (h, w) of the maps.
        min_area: minimum fraction of the labelled pixels.
    """
    labelled = (label != IGNORED).float()
    share = F.adaptive_avg_pool2d(labelled[None], size)[0]
    counted = (share >= 0.5).float()
    # A list, because comparing each class on the accelerator would synchronize about a thousand times per step.
    pixels = torch.bincount(label[label != IGNORED].long(), minlength=256).tolist()
    large = [i for i in candidates if pixels[i] > 0 and pixels[i] >= min_area * sum(pixels)]
    if not large:
        return ClassTarget([], label.new_zeros((0, *size), dtype=torch.float32), counted)
    wanted = torch.as_tensor(large, device=label.device).view(-1, 1, 1)
    covered = F.adaptive_avg_pool2d((label[None] == wanted).float(), size)
    masks = ((covered >= 0.5 * share.clamp(min=1e-6)) & (counted > 0)).float()
    kept = masks.sum((1, 2)) > 0
    return ClassTarget([i for i, keep in zip(large, kept.tolist(), strict=True) if keep], masks[kept], counted)


@torch.no_grad()
def attention_ratio(maps: Mapping[str, Tensor], owners: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the fraction of attention inside the class masks, and the fraction expected by chance.

    Let A be the attention map of a class and M its mask. The first is the mean of sum(A M) / sum(A) over layers and
    classes, and the second is the mean area of the masks relative to the counted cells.

    Args:
        maps: layer name -> (B, N, T) attention probabilities, N = h*w.
        owners: (B, T) class id of each context token, or `NOBODY`.
        labels: (B, H, W) class ids; 255 is unlabelled.

    Returns:
        The ratio and the value expected by chance, (B,) each. They are NaN for images without a counted class.
    """
    ratios, chances = [], []
    for index, (own, label) in enumerate(zip(owners, labels, strict=True)):
        shares, areas = [], []
        for attention in maps.values():
            size = map_size(attention.shape[1], tuple(label.shape))
            target = class_target(label, present_owners(own), size)
            found = class_maps(attention[index].float(), own, target.classes, size)
            shares.append(inside_share(found, target.masks, target.counted))
            areas.append(target.masks.sum((1, 2)) / target.counted.sum().clamp(min=1))
        ratios.append(torch.cat(shares).mean())
        chances.append(torch.cat(areas).mean())
    return torch.stack(ratios), torch.stack(chances)
