"""Pictures of scenes for tests that write photos."""

from PIL import Image

from rass_mm.demo.scenes.generator import write_scenes


def pictures(tmp_path_factory):
    """Returns three scenes of 110x150 pixels as Pillow images."""
    made = tmp_path_factory.mktemp('scenes')
    write_scenes(made, {'train': 3}, seed=0, size=(110, 150), workers=1)
    return [Image.open(file).convert('RGB') for file in sorted((made / 'img_dir' / 'train').iterdir())]
