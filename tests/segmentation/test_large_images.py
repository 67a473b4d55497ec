"""How memory grows with the image, 150 classes: measured in a process of its own."""

import json

import pytest
from commands import python

SCRIPT = """
import json, sys
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
import rass_mm

base, mode, height, width, input_height, input_width = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.set_num_threads(1)
init_default_scope('mmseg')
config = Config.fromfile(str(rass_mm.config_path('rass/rass_scenes_tiny.py')))
config.model.backbone.base = base
config.model.classes = [f'class {i}' for i in range(150)]
config.model.decode_head.num_classes = 150
config.model.test_cfg = dict(mode=mode, crop_size=(128, 128), stride=(128, 128), window_batch=4)
model = MODELS.build(config.model).eval()
# Not ru_maxrss, which starts at the size of the parent process.
peak = lambda: next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) / 1024
small = torch.zeros(1, 3, 128, 128)
model.predict(small, [SegDataSample(metainfo=dict(ori_shape=(128, 128), img_shape=(128, 128)))])
before = peak()
inputs = torch.rand(1, 3, input_height, input_width) * 2 - 1
sample = SegDataSample(metainfo=dict(ori_shape=(height, width), img_shape=(input_height, input_width)))
labels = model.predict(inputs, [sample])[0].pred_sem_seg.data
assert labels.shape == (1, height, width) and labels.max() < 150
print(json.dumps(dict(before=before, peak=peak())))
"""
CASES = {
    # (height, width) of the result and of what the network sees; the released scheme sees short sides of 512.
    'slide, 1000x750': ('slide', 750, 1000, 768, 1024),
    'slide, 4000x3000': ('slide', 3000, 4000, 3008, 4000),
    'stitched, 1000x750': ('stitched', 750, 1000, 512, 704),
    'stitched, 4000x3000': ('stitched', 3000, 4000, 512, 704),
}


def peak_of(tmp_path, base, case):
    (tmp_path / 'run.py').write_text(SCRIPT)
    done = python('-W', 'ignore', tmp_path / 'run.py', base, *CASES[case], timeout=3000)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads(done.stdout.splitlines()[-1])
    print(f'{case}: {record["before"]:.0f} MiB before, peak {record["peak"]:.0f} MiB')
    return record['peak'] - record['before']


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['slide', 'stitched'])
def test_memory_of_a_large_image_stays_far_below_its_logits(tmp_path, tiny_base, mode):
    whole_map = 150 * 4000 * 3000 * 4 / 2**20
    small, large = (peak_of(tmp_path, tiny_base, f'{mode}, {size}') for size in ('1000x750', '4000x3000'))
    assert small < large < whole_map / 4
