"""Packing of pipeline results into inputs of the restorer."""

from typing import Any

import numpy as np
import torch
from mmagic.registry import TRANSFORMS
from mmagic.structures import DataSample
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData

META = ('img_path', 'gt_path', 'seg_map_path', 'ori_shape', 'img_shape', 'sample_idx')


@TRANSFORMS.register_module()
class PackSCRInputs(BaseTransform):
    """Packs the degraded image, the clean image and the labels into the inputs of a restorer.

    Required keys: `img` (H, W, 3) BGR in 0..255. Optional keys: `gt` (H, W, 3) BGR, `gt_seg_map` (H, W). The result has
    `inputs` (3, H, W) BGR and a data sample with `gt_img` (3, H, W) BGR and `gt_sem_seg` (1, H, W) class ids.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs one sample."""
        sample = DataSample(metainfo={key: results[key] for key in META if key in results})
        if 'gt' in results:
            sample.gt_img = _planes(results['gt'])
        if 'gt_seg_map' in results:
            label = np.ascontiguousarray(results['gt_seg_map']).astype(np.int64)
            sample.gt_sem_seg = PixelData(data=torch.from_numpy(label)[None])
        return {'inputs': _planes(results['img']), 'data_samples': sample}


def _planes(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
