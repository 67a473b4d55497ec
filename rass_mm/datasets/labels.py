"""Properties of label files that loading and `check-data` judge alike."""

from PIL import Image

LOSSY = ('JPEG', 'MPO', 'JPEG2000', 'AVIF')
"""Formats of Pillow that do not keep the exact pixel values."""


def is_lossy(image: Image.Image, data: bytes) -> bool:
    """Checks whether the format of an image file changes pixel values; a WebP file may be lossless.

    Args:
        image: the opened file.
        data: its bytes.
    """
    return image.format in LOSSY or (image.format == 'WEBP' and b'VP8 ' in data[:64])


def lossy_reason(image: Image.Image) -> str:
    """Returns the reason why a lossy file is no label map, and the fix."""
    return f'{image.format} changes pixel values, so the class ids are not exact. Export the label maps as PNG.'


def background_hint(number: int) -> str:
    """Returns the fix for ids 0 to `number` in a data set of `number` classes."""
    if number == 1:
        return (
            "If id 0 is the background and id 1 your class, name both: metainfo.classes=('background', ...). "
            'With one class there is nothing to tell it from.'
        )
    return (
        f'If id 0 is background, either name it as the first class, which is then predicted too, or set '
        f'reduce_zero_label=True in the data set, which ignores it: ids 1 to {number} are then the classes.'
    )
