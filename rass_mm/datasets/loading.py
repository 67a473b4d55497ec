"""Loading transforms that raise an error for damaged files and invalid labels, with the file name and the reason.

OpenCV silently fills the missing part of a truncated JPEG with grey, and a label id out of range triggers a CUDA assert
far from its cause. Both are detected here, where the file name is known.
"""

import io
import os
from pathlib import Path
from typing import Any

import mmcv
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS
from PIL import Image

from rass_mm.datasets.labels import background_hint, is_lossy, lossy_reason, mode_reason
from rass_mm.errors import ConfigError, DataError
from rass_mm.files.images import needs_scaling, picture_of, to_bgr
from rass_mm.files.integrity import MAX_PIXELS, check_complete, check_size, without_pillow_limit
from rass_mm.files.orientation import DRAWN_ON, orientation_of, turn_label, turned
from rass_mm.files.regular import check_regular
from rass_mm.files.resizing import resized

AS_STORED = ('unchanged', 'color_ignore_orientation', 'grayscale_ignore_orientation')
"""Values of `color_type` with which mmcv does not apply the EXIF orientation."""
PART = 2**24
"""Pixels of a label map that are counted at a time."""
UPRIGHT = (
    'Save the image upright (Pillow: ImageOps.exif_transpose) with a label map that matches it, or set '
    "LoadLabelStrict's drawn_on='displayed' or drawn_on='stored' for all label maps of the data set."
)


@TRANSFORMS.register_module()
class LoadImageStrict(LoadImageFromFile):
    """Loads an image like mmcv's `LoadImageFromFile`, and raises an error if the file is truncated.

    Required keys: `img_path`.
    Added keys: `img`, (H, W, 3) BGR uint8 (float32 with `to_float32`); `img_shape` and `ori_shape`, (H, W);
    `exif_orientation`, the EXIF orientation, 1 to 8, that was applied to `img`.

    Args:
        max_pixels: largest number of pixels of an image. A larger image raises an error and is not decoded.
        args, kwargs: arguments of mmcv's `LoadImageFromFile`.
    """

    def __init__(self, *args: Any, max_pixels: int = MAX_PIXELS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_pixels = max_pixels

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Loads the image at `results['img_path']`.

        Raises:
            DataError: the file is missing, truncated or not an image, or it has too many pixels.
        """
        path = results['img_path']
        check_regular(path)
        try:
            data = fileio.get(path, backend_args=self.backend_args)
        except FileNotFoundError:
            raise DataError(f'{path} does not exist. Check that the path is correct and the data complete.') from None
        check_size(data, path, self.max_pixels)
        check_complete(data, path)
        image, turn = self._decoded(data, path)
        image = image.astype(np.float32) if self.to_float32 else image
        size = image.shape[:2]
        return {**results, 'img': image, 'img_shape': size, 'ori_shape': size, 'exif_orientation': turn}

    def _decoded(self, data: bytes, path: str) -> tuple[np.ndarray, int]:
        """Returns the pixels and the EXIF orientation that was applied to them."""
        if self.color_type.startswith('color') and needs_scaling(data):
            return to_bgr(picture_of(data, path, self.max_pixels).pixels), 1
        image = mmcv.imfrombytes(data, flag=self.color_type, backend=self.imdecode_backend)
        if image is None:
            raise DataError(f'{path}: the image cannot be decoded. Save it as PNG or JPEG, or remove it.')
        return image, 1 if self.color_type in AS_STORED else orientation_of(data)


@TRANSFORMS.register_module()
class LoadLabelStrict(LoadAnnotations):
    """Loads a label map like mmseg's `LoadAnnotations`, and checks its format, size, orientation and ids.

    A sample without `seg_map_path`, as in prediction, is returned unchanged.

    Args:
        num_classes: number of classes. After `reduce_zero_label`, the valid ids are 0 to num_classes - 1.
        ignore_index: id of ignored pixels, which is also valid.
        drawn_on: how to treat the label maps of images with an EXIF orientation. Set 'displayed' if they were drawn on
            the upright images, or 'stored' if they were drawn on the pixels as stored and must be turned like the
            images. With None, an error is raised unless the size of the label map shows that it is upright.
        max_pixels: largest number of pixels of a label map. A larger label map raises an error and is not decoded.
        kwargs: other arguments of mmseg's `LoadAnnotations`.

    Raises:
        ConfigError: `drawn_on` is not 'displayed', 'stored' or None.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = 255,
        drawn_on: str | None = None,
        max_pixels: int = MAX_PIXELS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if drawn_on not in (None, *DRAWN_ON):
            raise ConfigError(f"LoadLabelStrict.drawn_on is {drawn_on!r}. Set it to 'displayed', 'stored' or None.")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.drawn_on = drawn_on
        self.max_pixels = max_pixels

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Loads the label map as `gt_seg_map`, (H, W) uint8.

        Raises:
            DataError: the label map is missing, damaged or too large, has a lossy format or several channels, differs
                in size or orientation from its image, or has ids out of range.
        """
        path = results.get('seg_map_path')
        if path is None:
            return results
        check_regular(path)
        try:
            data = fileio.get(path, backend_args=self.backend_args)
        except FileNotFoundError:
            raise DataError(f'{path} does not exist. Add the label of {results.get("img_path")}.') from None
        check_size(data, path, self.max_pixels)
        check_complete(data, path)
        with without_pillow_limit():
            width, height = self._check_depth(data, path)
            results = super().transform(results)
        label = results['gt_seg_map'].reshape(height, width)  # mmseg removes sides of one pixel
        label = results['gt_seg_map'] = self._upright(label, results)
        self._check_size(label, results)
        self._check_ids(label, results)
        return results

    def _check_depth(self, data: bytes, path: str) -> tuple[int, int]:
        """Checks that a label file is lossless, has one channel, and has no ids that overflow mmseg's cast to uint8.

        Returns:
            The width and the height of the label map.
        """
        image = Image.open(io.BytesIO(data))
        if is_lossy(image, data):
            raise DataError(f'{path}: {lossy_reason(image)}')
        if image.mode in ('1', 'L', 'P'):
            return image.size
        label = np.asarray(image)
        if label.ndim > 2:
            raise DataError(
                f'{path} is a colour image ({image.mode}), but a label must have one channel of class ids. Convert the '
                'colours to ids and save them as a grey PNG.'
            )
        if label.dtype.kind not in 'bui':
            raise DataError(f'{path}: {mode_reason(image)}')
        if label.min() < 0 or label.max() > 255:
            wrong = np.unique(label[(label < 0) | (label > 255)])[:8].tolist()
            raise DataError(f'{path} contains label ids {wrong}. The supported ids are 0 to 255. Renumber the ids.')
        return image.size

    def _upright(self, label: np.ndarray, results: dict[str, Any]) -> np.ndarray:
        """Returns the label map, turned upright if it was drawn on the stored pixels of its image."""
        orientation, size = results.get('exif_orientation', 1), results.get('ori_shape')
        if size is None:
            return label
        try:
            turn = turn_label(orientation, tuple(size), label.shape[:2], self.drawn_on)
        except ValueError as error:
            raise DataError(f'{results["seg_map_path"]} (image {results["img_path"]}): {error}. {UPRIGHT}') from None
        return np.ascontiguousarray(turned(label, orientation)) if turn else label

    def _check_size(self, label: np.ndarray, results: dict[str, Any]) -> None:
        size = results.get('ori_shape')
        if size is not None and label.shape[:2] != tuple(size):
            raise DataError(
                f'{results["seg_map_path"]} is {label.shape[1]}x{label.shape[0]} (width x height), but its image '
                f'{results["img_path"]} is {size[1]}x{size[0]}. Image and label must have the same size.'
            )

    def _check_ids(self, label: np.ndarray, results: dict[str, Any]) -> None:
        # In parts, because NumPy counts a copy with 8 bytes per pixel.
        parts = np.array_split(label, 1 + label.size // PART)
        ids = np.flatnonzero(sum(np.bincount(part.ravel(), minlength=256) for part in parts))
        wrong = [int(i) for i in ids if i >= self.num_classes and i != self.ignore_index]
        if not wrong:
            return
        hint = 'Check num_classes, and check that the file contains class ids instead of colours.'
        if wrong == [self.num_classes] and not results.get('reduce_zero_label'):
            hint = background_hint(self.num_classes)
        raise DataError(
            f'{results["seg_map_path"]} contains label ids {wrong[:8]}, but only 0 to {self.num_classes - 1} and '
            f'{self.ignore_index} (ignored) are valid with '
            f'reduce_zero_label={bool(results.get("reduce_zero_label"))}. {hint}'
        )


@TRANSFORMS.register_module()
class KeepCleanImage(BaseTransform):
    """Stores a copy of `img` as `gt`. Place it after crops, flips and colour changes and before the degradation."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds `gt`, a copy of `img`, (H, W, 3) BGR."""
        return {**results, 'gt': results['img'].copy()}


@TRANSFORMS.register_module()
class LoadCleanImage(BaseTransform):
    """Loads the clean partner of a degraded image as `gt`.

    The partner is the file `gt_path`. If a sample does not have this key, the path of the partner is that of the
    degraded image with another folder name and suffix.

    Args:
        lq: name of the folder of degraded images in `img_path`.
        clean: name of the folder of clean images, which replaces `lq`.
        suffix: suffix of the clean files; None keeps the suffix of the degraded file. In validation and test
            pipelines, `clean_val.img_suffix` of the config replaces a suffix given here.
        upscale: whether to enlarge `img` to the size of the clean image, with a bicubic filter, if `img` is smaller.
        max_pixels: largest number of pixels of a clean image. A larger image raises an error and is not decoded.
        backend: library that enlarges `img`: 'pillow', as in the published restorers (see `rass_mm.files.resizing`),
            or 'cv2', as for the published bicubic scores.

    Raises:
        ConfigError: the backend is unknown.
    """

    def __init__(
        self,
        lq: str = '',
        clean: str = '',
        suffix: str | None = None,
        upscale: bool = False,
        backend: str = 'cv2',
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if backend not in ('cv2', 'pillow'):
            raise ConfigError(f"LoadCleanImage.backend is {backend!r}. Set it to 'cv2' or 'pillow'.")
        self.lq, self.clean, self.suffix, self.upscale, self.backend = lq, clean, suffix, upscale, backend
        self.load = LoadImageStrict(max_pixels=max_pixels)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds `gt`, (H, W, 3) BGR uint8, and `gt_path`, and enlarges `img` if necessary.

        Raises:
            DataError: the clean image is missing or damaged, or differs in size from `img`.
        """
        path = results.get('gt_path') or self.partner(results['img_path'])
        clean, image = self.load({'img_path': str(path)})['img'], results['img']
        smaller = all(own <= other for own, other in zip(image.shape, clean.shape, strict=True))
        if self.upscale and smaller and image.shape != clean.shape:
            image = self._enlarged(image, clean.shape[:2])
        if image.shape != clean.shape:
            raise DataError(
                f'{results["img_path"]} is {image.shape[1]}x{image.shape[0]} (width x height), but its clean partner '
                f'{path} is {clean.shape[1]}x{clean.shape[0]}. Both must have the same size; upscale=True enlarges '
                'smaller images.'
            )
        return {**results, 'img': image, 'img_shape': image.shape[:2], 'gt': clean, 'gt_path': str(path)}

    def _enlarged(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if self.backend == 'pillow':
            return resized(image, size)
        return mmcv.imresize(image, size[::-1], interpolation='bicubic', backend='cv2')

    def partner(self, path: str | os.PathLike) -> Path:
        """Returns the path of the clean partner of a degraded image.

        Raises:
            DataError: the degraded image is not in a folder named `lq`.
        """
        parts = list(Path(path).parts)
        if self.lq not in parts:
            raise DataError(
                f'{path} contains no folder {self.lq!r}, which would be replaced by {self.clean!r}. Set '
                'LoadCleanImage.lq to the name of the folder of degraded images.'
            )
        last = len(parts) - 1 - parts[::-1].index(self.lq)
        parts[last] = self.clean
        partner = Path(*parts)
        return partner.with_suffix(self.suffix) if self.suffix else partner
