"""Checks of label files that the loading transforms and `check-data` share."""

from PIL import Image

LOSSY = ('JPEG', 'MPO', 'JPEG2000', 'AVIF')
"""Formats of Pillow that do not keep the exact pixel values."""


def is_lossy(image: Image.Image, data: bytes) -> bool:
    """Checks whether an image file has lossy compression. For WebP, this depends on the file.

    Args:
        image: the opened file.
        data: the bytes of the file.
    """
    return image.format in LOSSY or (image.format == 'WEBP' and b'VP8 ' in data[:64])


def lossy_reason(image: Image.Image) -> str:
    """Returns a message that states why a lossy file cannot be used as a label map and how to fix it."""
    return f'{image.format} changes pixel values, so the class ids are not exact. Export the label maps as PNG.'


def mode_reason(image: Image.Image) -> str:
    """Returns a message that states why an image without integers or with several channels cannot be a label map."""
    return (
        f'the image has mode {image.mode}, but a label must have one channel of class ids. Convert it to a grey PNG of '
        'ids.'
    )


def background_hint(number: int) -> str:
    """Returns a hint for a data set of `number` classes whose label files contain the ids 0 to `number`."""
    if number == 1:
        return (
            "If id 0 is the background and id 1 is your class, name both: metainfo.classes=('background', ...) with "
            'reduce_zero_label=False. With a single class, all pixels that are not ignored have this class, so there '
            'is nothing to learn.'
        )
    return (
        f'If id 0 is the background, either name it as the first class so that it is predicted too, or set '
        f'reduce_zero_label=True in the data set to ignore it. In the second case, ids 1 to {number} are the classes.'
    )
