"""Writes four images with labels in RealLQ's layouts."""

import cv2
import numpy as np

DETECTRON2, ADE = 'annotations_detectron2/validation', 'annotations/validation'
NAMES = ('a', 'b', 'c', 'd')


def write_images(root, size=(60, 80)):
    """Noise in colour as `images/validation/{a,b,c,d}.jpg`, blurred so that JPEG keeps it."""
    rng = np.random.default_rng(0)
    (root / 'images' / 'validation').mkdir(parents=True)
    for name in NAMES:
        picture = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), dtype=np.uint8), (0, 0), 3)
        cv2.imwrite(str(root / 'images' / 'validation' / f'{name}.jpg'), picture)


def class_maps(size=(60, 80), highest=149):
    """A label of class ids 0 to `highest` and 255 per image."""
    rng = np.random.default_rng(1)
    labels = {name: rng.integers(0, highest + 1, size).astype(np.uint8) for name in NAMES}
    for label in labels.values():
        label[:6] = 255
    return labels


def write_labels(root, prefix, labels, shifted):
    """Writes class ids as they are, or `shifted`: id k is class k - 1 and 0 is ignored."""
    (root / prefix).mkdir(parents=True)
    for name, label in labels.items():
        cv2.imwrite(str(root / prefix / f'{name}.png'), label + np.uint8(1) if shifted else label)
