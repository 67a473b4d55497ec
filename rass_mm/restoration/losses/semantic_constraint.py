"""Semantic-constrained loss L_SCL, which aligns the cross-attention of class names with the class masks.

The paper names the loss but does not publish its formula. This implementation uses the ratio of TokenCompose (arXiv
2312.03626) and CoMat (arXiv 2404.03653), which is the fraction of a word's attention inside its mask. A ratio does not
depend on the amount of attention that the start token absorbs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmagic.registry import MODELS
from torch import Tensor, nn

from rass_mm.config.arguments import NotNegative
from rass_mm.diffusion.attention import class_maps, map_size
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
        classes: (K,) ids of the classes that own a token and cover enough of the image.
        masks: (K, h, w) class masks; 1 inside the class, else 0.
        kept: (K,) 1 for a class with at least one cell in its mask, else 0. Only these classes are counted.
        counted: (h, w) mask of the cells that the loss includes; 1 for an included cell, else 0.
    """

    classes: Tensor
    masks: Tensor
    kept: Tensor
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
        targets = ClassTargets(labels, owners, self.min_area)
        means, any_kept = [], []
        for attention in maps.values():
            size = map_size(attention.shape[1], tuple(labels.shape[1:]))
            terms = [self._terms(*part, size) for part in zip(attention, owners, targets.at(size), strict=True)]
            terms, kept = torch.cat(terms), torch.cat([target.kept for target in targets.at(size)])
            means.append((terms * kept).sum() / kept.sum().clamp(min=1))
            any_kept.append(kept.sum().clamp(max=1))
        return total + self.loss_weight * torch.stack(means).sum() / torch.stack(any_kept).sum().clamp(min=1)

    def _terms(self, attention: Tensor, owners: Tensor, target: ClassTarget, size: tuple[int, int]) -> Tensor:
        """Computes the (K,) losses of the classes of one image in one layer, from (N, T) attention."""
        with torch.autocast(attention.device.type, enabled=False):
            maps = class_maps(attention.float(), owners, target.classes, size)
            return self._compare(maps, target.masks, target.counted)

    def _compare(self, maps: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        if self.form == 'ratio':
            missed = 1 - inside_share(maps, masks, counted)
            terms = missed.square() if self.squared else missed
        else:
            scaled = _min_max(maps, counted)
            if self.form == 'mse':
                terms = ((scaled - masks).square() * counted).sum((1, 2)) / counted.sum().clamp(min=1)
            else:
                overlap = (scaled * masks * counted).sum((1, 2))
                terms = 1 - 2 * overlap / ((scaled * counted).sum((1, 2)) + masks.sum((1, 2)) + EPS)
        if self.pixel_weight:
            inside = maps.clamp(EPS, 1 - 1e-6)
            pixels = F.binary_cross_entropy(inside, masks, reduction='none')
            terms = terms + self.pixel_weight * (pixels * counted).sum((1, 2)) / counted.sum().clamp(min=1)
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


class ClassTargets:
    """Targets of a batch of labels at any resolution.

    The class ids are read from the accelerator once per batch. A read per image and layer would make it wait hundreds
    of times in a training step.

    Args:
        labels: (B, H, W) class ids; 255 is unlabelled.
        owners: (B, T) class id of each context token, or `NOBODY`.
        min_area: minimum fraction of the labelled pixels that a class must cover to be counted.
    """

    def __init__(self, labels: Tensor, owners: Tensor, min_area: float = MIN_AREA) -> None:
        found = large_classes(labels, owners, min_area)
        ids = torch.as_tensor([index for part in found for index in part], dtype=torch.long, device=labels.device)
        self.labels, self.classes = labels, ids.split([len(part) for part in found])
        self._targets: dict[tuple[int, int], list[ClassTarget]] = {}

    def at(self, size: tuple[int, int]) -> list[ClassTarget]:
        """Returns the target of each image for maps of `size` (h, w), which must divide the size of the labels."""
        if size not in self._targets:
            pairs = zip(self.labels, self.classes, strict=True)
            self._targets[size] = [class_target(label, classes, size) for label, classes in pairs]
        return self._targets[size]


def large_classes(labels: Tensor, owners: Tensor, min_area: float) -> list[list[int]]:
    """Returns, for each image, the classes that own a token and cover at least `min_area` of the labelled pixels."""
    highest, *given = torch.cat([labels.max().reshape(1).long(), owners.flatten().to(labels.device)]).tolist()
    flat = labels.flatten(1).long()
    counts = flat.new_zeros((len(flat), highest + 1)).scatter_add_(1, flat, torch.ones_like(flat)).tolist()
    width, found = owners.shape[1], []
    for image, pixels in enumerate(counts):
        present = sorted(set(given[image * width : (image + 1) * width]) & set(range(len(pixels))) - {IGNORED})
        labelled = sum(pixels) - sum(pixels[IGNORED : IGNORED + 1])
        found.append([index for index in present if pixels[index] > 0 and pixels[index] >= min_area * labelled])
    return found


def class_target(label: Tensor, classes: Tensor, size: tuple[int, int]) -> ClassTarget:
    """Computes the masks of classes at the resolution of a layer.

    A cell is counted if at least half of it is labelled, and is part of a class mask if at least half of its labelled
    pixels have that class. A class is kept if it has at least one cell in its mask.

    Args:
        label: (H, W) class ids; H and W are multiples of h and w.
        classes: (K,) class ids.
        size: (h, w) of the maps.
    """
    labelled = (label != IGNORED).float()
    share = F.adaptive_avg_pool2d(labelled[None], size)[0]
    counted = (share >= 0.5).float()
    covered = F.adaptive_avg_pool2d((label[None] == classes.view(-1, 1, 1)).float(), size)
    masks = ((covered >= 0.5 * share.clamp(min=1e-6)) & (counted > 0)).float()
    return ClassTarget(classes, masks, masks.amax((1, 2)), counted)


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
    targets, shares, areas, kept = ClassTargets(labels, owners), [], [], []
    for attention in maps.values():
        size = map_size(attention.shape[1], tuple(labels.shape[1:]))
        for one, own, target in zip(attention, owners, targets.at(size), strict=True):
            found = class_maps(one.float(), own, target.classes, size)
            shares.append((inside_share(found, target.masks, target.counted) * target.kept).sum())
            areas.append(target.masks.sum() / target.counted.sum().clamp(min=1))  # masks of other classes are empty
            kept.append(target.kept.sum())
    counts = torch.stack(kept).view(-1, len(labels)).sum(0)
    ratios, chances = (torch.stack(part).view(-1, len(labels)).sum(0) / counts for part in (shares, areas))
    return ratios, chances
