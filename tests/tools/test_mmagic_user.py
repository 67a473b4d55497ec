"""Use of the restorer in mmagic with only the wheel, and of segmentation without mmagic."""

from commands import python

PLAIN_CONFIG = """
custom_imports = dict(imports=['rass_mm.restoration'], allow_failed_imports=False)
default_scope = 'mmagic'
model = dict(
    type='SCRRestorer', base='{base}', classes=['road', 'car'], adapter=dict(rank=2, alpha=4),
    data_preprocessor=dict(
        type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, output_channel_order='RGB', stack_data_sample=False
    ),
    losses=dict(pixel=dict(type='MSELoss'), constraint=dict(type='SemanticConstraintLoss', loss_weight=0.5)),
)
"""
PLAIN_SCRIPT = """
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
config = Config.fromfile('mine.py')
from mmagic.registry import MODELS
import rass_mm
init_default_scope('mmagic')
model = MODELS.build(config.model).eval()
image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
sample = model.test_step({'inputs': [image], 'data_samples': None})[0]
print(type(model).__name__, tuple(sample.output.pred_img.shape), 'from', rass_mm.__file__)
"""
BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'mmagic':
            raise ModuleNotFoundError("No module named 'mmagic'", name='mmagic')
sys.meta_path.insert(0, Blocker())
import torch
import rass_mm
from mmseg.registry import MODELS
from rass_mm.config import load_config
from mmengine.registry import init_default_scope
init_default_scope('mmseg')
config = load_config('rass/rass_scenes_tiny.py')
config.model.backbone.base = sys.argv[1]
model = MODELS.build(config.model).eval()
print('logits', tuple(model.inference(torch.zeros(1, 3, 64, 64), [{}]).shape))
from rass_mm.diffusion.restorer import load_restorer
try:
    import rass_mm.restoration
except ImportError as error:
    print(type(error).__name__, error)
"""


def test_wheel_alone_gives_mmagic_the_restorer(wheel_site, tiny_base, tmp_path):
    (tmp_path / 'mine.py').write_text(PLAIN_CONFIG.format(base=tiny_base))
    (tmp_path / 'go.py').write_text(PLAIN_SCRIPT)
    done = python('-W', 'ignore', 'go.py', cwd=tmp_path, env={'PYTHONPATH': str(wheel_site)})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert f'SCRRestorer (3, 40, 50) from {wheel_site}' in done.stdout


def test_without_mmagic_segmentation_works_and_restoration_says_what_to_install(tiny_base, tmp_path):
    (tmp_path / 'go.py').write_text(BLOCKED)
    done = python('-W', 'ignore', tmp_path / 'go.py', tiny_base)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert 'logits (1, 12, 64, 64)' in done.stdout
    assert "InstallationError The restoration plugin cannot be imported: No module named 'mmagic'" in done.stdout
    assert 'pip install "rass_mm[restoration]"' in done.stdout
