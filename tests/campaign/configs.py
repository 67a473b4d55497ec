"""Config files that cannot be read, and wrong values of every part of a config."""

import functools
import shlex
from collections.abc import Iterator
from pathlib import Path

from campaign.cases import Case
from campaign.kit import SHORT, SMALL, data_options

DATA = ' '.join(data_options('$FX/data'))
TRAIN = ' '.join([*SHORT, *SMALL])
RASS, RESNET, SCR = 'rass/rass_scenes_tiny.py', 'baselines/resnet_scenes_tiny.py', 'scr/scr_scenes_tiny.py'
BASE = 'model.backbone.base=$FX/base'
DOORS = {
    'train': f'train {{}} --work-dir work --cfg-options {DATA} {TRAIN}',
    'test': f'test {{}} $FX/resnet.pth --work-dir work --cfg-options {DATA}',
    'check-data': f'check-data {{}} --workers 1 --cfg-options {DATA}',
    'robustness': f'robustness {{}} $FX/resnet.pth --out o --kinds jpeg --severities 1 --cfg-options {DATA}',
    'benchmark': 'benchmark {} --size 64x64 --iterations 1 --warmup 1',
    'segment': 'segment $FX/good.png o --checkpoint $FX/resnet.pth --config {}',
}
"""Commands that read a config."""


def _base(kit: Path) -> str:
    from rass_mm.config import config_path

    return str(config_path(RESNET))


FILES: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    'syntax': ('c.py', b'_base_ = BASE\nmodel = dict(a=1,\n', (r'c\.py:2', 'closed')),
    'indentation': ('c.py', b'_base_ = BASE\n  model = dict()\n', (r'c\.py:2',)),
    'byte order mark': ('c.py', b'\xef\xbb\xbf_base_ = BASE\n', (r'c\.py', 'byte order mark')),
    'latin-1': ('c.py', b'_base_ = BASE\n# gar\xe7on\n', (r'c\.py:2', 'UTF-8')),
    'utf-16': ('c.py', '_base_ = BASE\n'.encode('utf-16'), (r'c\.py', 'UTF-8')),
    'binary': ('c.py', bytes(range(256)), (r'c\.py',)),
    'null bytes': ('c.py', b'_base_ = BASE\n\0\0', (r'c\.py', 'null')),
    'raises': ('c.py', b'_base_ = BASE\nx = 1 / 0\n', (r'c\.py:2', 'ZeroDivisionError')),
    'raises in a function': (
        'c.py',
        b'_base_ = BASE\ndef f():\n    return {}["k"]\nx = f()\n',
        (r'c\.py:3', 'KeyError'),
    ),
    'unknown name': ('c.py', b'_base_ = BASE\nx = nope\n', (r'c\.py:2', 'nope')),
    'exits': ('c.py', b'_base_ = BASE\nraise SystemExit(0)\n', (r'c\.py:2', 'SystemExit')),
    'opens a missing file': ('c.py', b'_base_ = BASE\nx = open("no.txt")\n', (r'c\.py:2', r'no\.txt')),
    'import of a missing module': ('c.py', b'_base_ = BASE\nimport no_such_pkg\n', (r'c\.py', 'no_such_pkg')),
    'custom_imports of a missing module': (
        'c.py',
        b'_base_ = BASE\ncustom_imports = dict(imports=["rass_mm", "no_such_pkg"], allow_failed_imports=False)\n',
        (r'c\.py', 'no_such_pkg', 'custom_imports'),
    ),
    'custom_imports is a number': ('c.py', b'_base_ = BASE\ncustom_imports = 5\n', (r'c\.py', 'custom_imports')),
    'missing base': ('c.py', b'_base_ = "no_such.py"\n', (r'c\.py', r'no_such\.py', '_base_')),
    'base is a number': ('c.py', b'_base_ = 5\n', (r'c\.py',)),
    'base is code': ('c.py', b'_base_ = f"{1}"\n', (r'c\.py',)),
    'its own base': ('c.py', b'_base_ = "c.py"\n', (r'c\.py', 'itself')),
    'base with an error': ('c.py', b'_base_ = "bad.py"\n', (r'bad\.py:2', 'closed')),
    'base that raises': ('c.py', b'_base_ = "raises.py"\n', (r'raises\.py:1', 'ZeroDivisionError')),
    'bases with the same keys': ('c.py', b'_base_ = [BASE, "one.py"]\n', (r'c\.py', 'model', '_base_')),
    'reserved name filename': ('c.py', b'_base_ = BASE\nfilename = "x"\n', (r'c\.py', 'filename', 'reserved')),
    'reserved name text': ('c.py', b'_base_ = BASE\ntext = "x"\n', (r'c\.py', 'text', 'reserved')),
    'dict over a list': ('c.py', b'_base_ = BASE\ncustom_imports = dict(imports=dict(a=1))\n', (r'c\.py', 'imports')),
    'model is a list': ('c.py', b'_base_ = BASE\nmodel = [1]\n', (r'c\.py', 'model')),
    'model is a text': ('c.py', b'_base_ = BASE\nmodel = "x"\n', (r'c\.py', 'model')),
    'no model': ('c.py', b'x = 1\n', (r'c\.py', 'model')),
    'empty': ('c.py', b'', (r'c\.py', 'model')),
    'text file': ('c.txt', b'model = dict()\n', (r'c\.txt', r'\.py')),
    'no suffix': ('config', b'model = dict()\n', ('config', r'\.py')),
    'folder': ('c.py/x', b'', (r'c\.py',)),
    'missing file': ('d.py', b'', (r'c\.py',)),
    'bad JSON': ('c.json', b'{"model": {', (r'c\.json', 'JSON')),
    'empty JSON': ('c.json', b'', (r'c\.json', 'JSON')),
    'JSON list': ('c.json', b'[1]', (r'c\.json', 'list')),
    'JSON without a model': ('c.json', b'{"x": 1}', (r'c\.json', 'model')),
    'JSON latin-1': ('c.json', b'{"x": "\xe9"}', (r'c\.json', 'UTF-8')),
    'bad YAML': ('c.yaml', b'model: [1, 2\n', (r'c\.yaml', 'YAML')),
    'YAML list': ('c.yml', b'- 1\n', (r'c\.yml', 'list')),
    'YAML tag': ('c.yaml', b'x: !!python/object/apply:os.getcwd []\n', (r'c\.yaml', 'tag .* not allowed')),
    'YAML duplicate anchors': ('c.yaml', b'x: *nope\n', (r'c\.yaml', 'nope')),
    'YAML without a model': ('c.yaml', b'x: 1\n', (r'c\.yaml', 'model')),
}
"""Name of the file, its content, and what the message must name. BASE is the path of a shipped config."""
NEED_NO_MODEL = {
    'no model',
    'empty',
    'JSON without a model',
    'YAML without a model',
    'model is a list',
    'model is a text',
}
"""Files of which `check-data` names the missing data set instead."""
VALID = {
    'inherits': ('c.py', b'_base_ = BASE\n'),
    'comments in UTF-8': ('c.py', '_base_ = BASE\n# größe 画像\n'.encode()),
    'windows line ends': ('c.py', b'_base_ = BASE\r\nx = 1\r\n'),
    'a function': ('c.py', b'_base_ = BASE\ndef f():\n    return 1\nx = f()\n'),
    'name with a blank': ('a b.py', b'_base_ = BASE\n'),
}


def _file(name: str, content: bytes, folder: Path, kit: Path) -> None:
    base = _base(kit).encode()
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.replace(b'BASE', b'"' + base + b'"') if not name.endswith(('.json', '.yaml')) else content)
    (folder / 'bad.py').write_bytes(b'x = 1\ny = (\n')
    (folder / 'raises.py').write_bytes(b'x = 1 / 0\n')
    (folder / 'one.py').write_bytes(b'model = dict()\n')


def _files() -> Iterator[Case]:
    for kind, (name, content, named) in FILES.items():
        prepare = functools.partial(_file, name, content)
        given = 'c.py' if name in ('c.py/x', 'd.py') else name
        for door, line in DOORS.items():
            words = named
            if kind in NEED_NO_MODEL and door == 'check-data':
                if kind.startswith('model is'):
                    continue
                words = ('dataloader',)
            yield Case(f'configs/file {kind}/{door}', line.format(given), named=words, prepare=prepare)
    for kind, (name, content) in VALID.items():
        prepare = functools.partial(_file, name, content)
        for door, line in DOORS.items():
            yield Case(f'configs/file {kind}/{door}', line.format(shlex.quote(name)), ok=True, prepare=prepare)


TRAINING = [
    *('model.type=Nope', 'model.backbone.type=Nope', 'model.neck.type=Nope', 'model.decode_head.type=Nope'),
    *('model.prompt.type=Nope', 'model.data_preprocessor.type=Nope', 'model.decode_head.loss_decode.type=Nope'),
    *('model.type=RAS', 'model.backbone.type=DifusionBackbone', 'model.decode_head.type=UperHead'),
    *('model.colour=red', 'model.backbone.colour=red', 'model.neck.colour=red', 'model.decode_head.colour=red'),
    *('model.test_cfg.colour=red', 'model.prompt.colour=red', 'model.data_preprocessor.colour=red'),
    *('model.decode_head.loss_decode.colour=1', 'model.backbone.adapter.colour=1', 'model.backbone.expect.colour=1'),
    *('model.backbone.base=5', 'model.backbone.base=None', 'model.backbone.base=nowhere', 'model.backbone.base=[]'),
    *('model.backbone.expect=5', 'model.backbone.expect.cross_attention_dim=x', 'model.backbone.adapter=5'),
    *('model.backbone.adapter.rank=0', 'model.backbone.adapter.rank=-4', 'model.backbone.adapter.rank=x'),
    *('model.backbone.adapter.rank=1.5', 'model.backbone.adapter.rank=None', 'model.backbone.adapter.alpha=nan'),
    *('model.backbone.adapter.alpha=x', 'model.backbone.adapter.alpha=inf', 'model.backbone.adapter.targets=5'),
    *('model.backbone.features=5', 'model.backbone.features=[]', 'model.backbone.features=[nope]'),
    *('model.backbone.timestep=-1', 'model.backbone.timestep=1000', 'model.backbone.timestep=x'),
    *('model.backbone.timestep=1.5', 'model.backbone.timestep=None', 'model.backbone.train_parameters=nope'),
    *('model.backbone.scr_adapter=5', 'model.backbone.scr_adapter=no.safetensors', 'model.backbone.sample_latent=x'),
    *('model.backbone.gradient_checkpointing=5', 'model.backbone.resize_features=x', 'model.backbone.init_cfg=5'),
    *('model.backbone=None', 'model.backbone=5', 'model.decode_head=None', 'model=None', 'model=5'),
    *('model.neck.out_channels=0', 'model.neck.out_channels=32', 'model.neck.out_channels=x', 'model.neck.width=0'),
    *('model.neck.num_groups=7', 'model.neck.num_groups=0', 'model.neck.width=x', 'model.neck=None', 'model.neck=5'),
    *('model.decode_head.in_index=[0,1,2,9]', 'model.decode_head.in_index=x', 'model.decode_head.in_channels=[1]'),
    *('model.decode_head.in_channels=x', 'model.decode_head.channels=0', 'model.decode_head.channels=x'),
    *('model.decode_head.channels=-3', 'model.decode_head.num_classes=5', 'model.decode_head.num_classes=0'),
    *('model.decode_head.num_classes=x', 'model.decode_head.dropout_ratio=2', 'model.decode_head.dropout_ratio=nan'),
    *('model.decode_head.pool_scales=[0]', 'model.decode_head.norm_cfg.type=Nope', 'model.decode_head.norm_cfg=5'),
    *('model.decode_head.loss_decode.loss_weight=x', 'model.decode_head.loss_decode.loss_weight=nan'),
    *('model.decode_head.loss_decode=5', 'model.classes=[a,b]', 'model.classes=Nope', 'model.classes=5'),
    *('model.test_cfg.mode=nope', 'model.test_cfg=5', 'model.data_preprocessor.mean=[0,0,0]'),
    *('model.data_preprocessor.std=[0,0,0]', 'model.data_preprocessor.mean=x', 'model.data_preprocessor.size=(0,0)'),
    *('train_dataloader.batch_size=0', 'train_dataloader.batch_size=-1', 'train_dataloader.batch_size=x'),
    *('train_dataloader.batch_size=1.5', 'train_dataloader.batch_size=None', 'train_dataloader.batch_size=1000000000'),
    *('train_dataloader.num_workers=-1', 'train_dataloader.num_workers=x', 'train_dataloader.colour=1'),
    *('train_dataloader.dataset.type=Nope', 'train_dataloader.dataset.type=ScenesDatset', 'train_dataloader=None'),
    *('train_dataloader.sampler.type=Nope', 'train_dataloader.sampler.colour=1', 'train_dataloader.sampler=5'),
    *('train_dataloader.dataset.colour=1', 'train_dataloader.dataset=5', 'train_dataloader=5'),
    *('train_dataloader.dataset.data_root=nowhere', 'train_dataloader.dataset.data_prefix.img_path=nowhere'),
    *('train_dataloader.dataset.data_prefix=5', 'train_dataloader.dataset.img_suffix=.nope'),
    *('train_dataloader.dataset.pipeline=5', 'train_dataloader.dataset.pipeline.3.type=Nope'),
    *('train_dataloader.dataset.pipeline.3.crop_size=(0,0)', 'train_dataloader.dataset.pipeline.3.crop_size=x'),
    *('train_dataloader.dataset.pipeline.3.crop_size=(-9,9)', 'train_dataloader.dataset.pipeline.3.colour=1'),
    *('train_dataloader.dataset.pipeline.4.prob=2', 'train_dataloader.dataset.pipeline.4.prob=x'),
    *('train_dataloader.dataset.pipeline.5.colour=1', 'train_dataloader.dataset.pipeline.9.type=PackSegInputs'),
    *('optim_wrapper.type=Nope', 'optim_wrapper.optimizer.type=Nope', 'optim_wrapper.optimizer.type=AdamV'),
    *('optim_wrapper.optimizer.lr=-1', 'optim_wrapper.optimizer.lr=x', 'optim_wrapper.optimizer.lr=nan'),
    *('optim_wrapper.optimizer.lr=inf', 'optim_wrapper.optimizer.lr=None', 'optim_wrapper.optimizer.colour=1'),
    *('optim_wrapper.optimizer.weight_decay=x', 'optim_wrapper.optimizer.weight_decay=-1', 'optim_wrapper=None'),
    *('optim_wrapper.optimizer.betas=5', 'optim_wrapper.optimizer.betas=(2,3)', 'optim_wrapper.optimizer=5'),
    *('optim_wrapper.clip_grad.max_norm=x', 'optim_wrapper.clip_grad.max_norm=-1', 'optim_wrapper.clip_grad=5'),
    *('optim_wrapper.clip_grad.colour=1', 'optim_wrapper.accumulative_counts=0', 'optim_wrapper.colour=1'),
    *('optim_wrapper=5', 'optim_wrapper.constructor=Nope', 'train_cfg.type=Nope', 'train_cfg.max_iters=0'),
    *('train_cfg.max_iters=-1', 'train_cfg.max_iters=x', 'train_cfg.val_interval=0', 'train_cfg.val_interval=x'),
    *('train_cfg.colour=1', 'train_cfg=None', 'train_cfg=5', 'val_cfg=None', 'val_cfg.type=Nope'),
    *('param_scheduler.0.type=Nope', 'param_scheduler.0.type=LinearLr', 'param_scheduler.0.colour=1'),
    *('param_scheduler.1.end=0', 'param_scheduler.0.end=x', 'param_scheduler.0.start_factor=x'),
    *('param_scheduler.0.start_factor=7', 'param_scheduler.1.power=x', 'param_scheduler.9.end=5', 'param_scheduler=5'),
    *('param_scheduler.x.end=5', 'default_hooks.checkpoint.type=Nope', 'default_hooks.checkpoint.interval=x'),
    *('default_hooks.checkpoint.colour=1', 'default_hooks.logger.type=Nope', 'default_hooks.logger.interval=x'),
    *('default_hooks.nope.interval=1', 'default_hooks=5', 'custom_hooks.0.type=Nope', 'custom_hooks.0.colour=1'),
    *('custom_hooks=5', 'val_evaluator.type=Nope', 'val_evaluator.iou_metrics=[nope]', 'val_evaluator=None'),
    *('val_dataloader=None', 'val_dataloader.dataset.type=Nope', 'randomness.seed=-1', 'randomness.seed=x'),
    *('randomness.seed=1.5', 'randomness.seed=4294967296', 'randomness.colour=1', 'randomness=5'),
    *('default_scope=nope', 'default_scope=5', 'default_scope=mmsg', 'visualizer.type=Nope', 'log_level=NOPE'),
    *('log_processor.colour=1', 'log_processor=5', 'env_cfg=5', 'env_cfg.mp_cfg.mp_start_method=nope'),
    *('load_from=no.pth', 'load_from=5', 'resume=no.pth', 'modle.backbone.timestep=2', 'train_dataloder.batch_size=2'),
    *('optim_wraper.optimizer.lr=1', 'model..neck=1', 'model.classes.0=5', 'randomness.seed.x=1'),
]
"""Wrong values for `train` with a RASS config."""
NAMED = {
    'model.backbone.base=[]': ('base',),
    'model.backbone.scr_adapter=no.safetensors': ('no.safetensors',),
    'train_dataloader.dataset.data_root=nowhere': ('nowhere',),
    'train_dataloader.dataset.data_prefix.img_path=nowhere': ('nowhere',),
    'modle.backbone.timestep=2': ('modle', 'model'),
    'train_dataloder.batch_size=2': ('train_dataloader',),
    'optim_wraper.optimizer.lr=1': ('optim_wrapper',),
    'model.type=RAS': ('RASS',),
    'model.backbone.type=DifusionBackbone': ('DiffusionBackbone',),
    'model.decode_head.type=UperHead': ('UPerHead',),
    'train_dataloader.dataset.type=ScenesDatset': ('ScenesDataset',),
    'optim_wrapper.optimizer.type=AdamV': (r'Adam',),
    'param_scheduler.0.type=LinearLr': ('LinearLR',),
    'default_scope=mmsg': ('mmseg',),
    'model.neck.out_channels=32': ('model.neck|model.decode_head',),
    'model.neck=None': ('neck|model.decode_head',),
    'val_cfg=None': ('val_cfg',),
    'default_hooks.nope.interval=1': ('default_hooks.nope',),
    'load_from=no.pth': ('no.pth',),
    'resume=no.pth': ('no.pth',),
    'train_dataloader.batch_size=1000000000': ('batch_size',),
    'model..neck=1': ('model..neck',),
    'model.test_cfg.mode=slide model.test_cfg.crop_size=64 model.test_cfg.stride=32': ('crop_size',),
    'model.test_cfg.mode=slide model.test_cfg.stride=(31.5,32) model.test_cfg.crop_size=(64,64)': ('stride',),
    'model.test_cfg.mode=slide model.test_cfg.stride=(0,32) model.test_cfg.crop_size=(64,64)': ('stride',),
    'model.test_cfg.mode=slide model.test_cfg.crop_size=(-64,64) model.test_cfg.stride=(32,32)': ('crop_size',),
    'model.test_cfg.mode=slide model.test_cfg.crop_size=(64,x) model.test_cfg.stride=(32,32)': ('crop_size',),
    'model.test_cfg.mode=slide model.test_cfg.crop_size=(64,64,64) model.test_cfg.stride=(32,32)': ('crop_size',),
}
"""What else than the key a message must name."""
TESTING = [
    *('model.test_cfg.mode=nope', 'model.test_cfg.colour=1', 'model.test_cfg.mode=5', 'model.test_cfg=5'),
    'model.test_cfg.mode=slide model.test_cfg.crop_size=64 model.test_cfg.stride=32',
    'model.test_cfg.mode=slide model.test_cfg.crop_size=(64,64)',
    'model.test_cfg.mode=slide model.test_cfg.stride=(31.5,32) model.test_cfg.crop_size=(64,64)',
    'model.test_cfg.mode=slide model.test_cfg.stride=(0,32) model.test_cfg.crop_size=(64,64)',
    'model.test_cfg.mode=slide model.test_cfg.crop_size=(-64,64) model.test_cfg.stride=(32,32)',
    'model.test_cfg.mode=slide model.test_cfg.crop_size=(64,x) model.test_cfg.stride=(32,32)',
    'model.test_cfg.mode=slide model.test_cfg.crop_size=(64,64,64) model.test_cfg.stride=(32,32)',
    'model.test_cfg.window_batch=0 model.test_cfg.mode=stitched',
    'model.test_cfg.blend=nope',
    'model.test_cfg.keep_logits=5',
    *('test_evaluator.type=Nope', 'test_evaluator.type=IoUMetrics', 'test_evaluator.iou_metrics=[nope]'),
    *('test_evaluator=None', 'test_evaluator=5', 'test_dataloader=None', 'test_dataloader=5', 'test_cfg=None'),
    *('test_cfg.type=Nope', 'test_cfg.colour=1', 'test_dataloader.batch_size=0', 'test_dataloader.num_workers=-1'),
    *('test_dataloader.dataset.type=Nope', 'test_dataloader.dataset.colour=1', 'test_dataloader.sampler.type=Nope'),
    *('test_dataloader.dataset.data_root=nowhere', 'test_dataloader.dataset.pipeline.0.type=Nope'),
    *('test_dataloader.dataset.pipeline.1.colour=1', 'model.data_preprocessor.mean=[0,0,0]'),
    *('model.data_preprocessor.std=[1,1,1]', 'model.decode_head.type=Nope'),
    *('model.backbone.timestep=-1', 'model.backbone.timestep=1000', 'model.backbone.adapter.rank=0', 'model=None'),
    *('default_scope=nope', 'randomness.seed=-1', 'visualizer.type=Nope', 'default_hooks.visualization.type=Nope'),
]
"""Wrong values for `test` with a RASS config."""
RESTORING = [
    *('model.adapter.rank=0', 'model.adapter.rank=x', 'model.adapter.colour=1', 'model.adapter.alpha=nan'),
    *("model.start=''", 'model.start=5', 'model.start=no.safetensors', 'model.form=nope', 'model.timestep=-1'),
    *('model.timestep=1000', 'model.timestep=x', 'model.losses.pixel.loss_weight=x', 'model.losses.pixel.type=Nope'),
    *('model.losses.pixel.loss_weight=nan', 'model.losses.pixel=5', 'model.losses.nope.type=MSELoss', 'model.losses=5'),
    *('model.losses.constraint.colour=1', 'model.losses.constraint.loss_weight=-1', 'model.attention_layers=5'),
    *('model.attention_layers=[nope]', 'model.test_cfg.mode=nope', 'model.test_cfg.window=0', 'model.colour=1'),
    *('model.test_cfg.color_fix=nope', 'model.test_cfg.overlap=-1', 'model.prompt.type=Nope', 'model.base=5'),
    *('model.trainable=x', 'model.autoencoder=5', 'model.autoencoder.colour=1', 'model.classes=5', 'model.expect=5'),
    *('optim_wrapper.generator.optimizer.lr=x', 'optim_wrapper.generator.optimizer.type=Nope', 'optim_wrapper=5'),
    *('optim_wrapper.generator.colour=1', 'optim_wrapper.generator=None', 'optim_wrapper.constructor=Nope'),
    *('val_evaluator.scores=[NOPE]', 'val_evaluator.colour=1', 'val_evaluator.type=Nope', 'custom_hooks.1.interval=x'),
]
"""Wrong values for `train` with an SCR config."""
MODELS = [
    *('model.type=Nope', 'model.backbone.depth=7', 'model.backbone.colour=1', 'model.decode_head.channels=0'),
    *('model.decode_head.in_index=[0,1,2,9]', 'model.decode_head.type=UperHead', 'model=None', 'model.backbone=5'),
    *('model.test_cfg.strid=1', 'model.decode_head.colour=1', 'model.decode_head.norm_cfg.type=Nope'),
]
"""Wrong values of the model for commands that only use the model, with a ResNet config."""
DATASETS = [
    *('DATALOADER.dataset.type=Nope', 'DATALOADER.dataset.type=ScenesDatset', 'DATALOADER.dataset.colour=1'),
    *('DATALOADER.dataset=5', 'DATALOADER=5', 'DATALOADER.dataset.data_prefix=5', 'DATALOADER.dataset.pipeline=5'),
    *('DATALOADER.dataset.data_root=nowhere', 'DATALOADER.dataset.metainfo=5', 'DATALOADER.dataset.img_suffix=5'),
]
"""Wrong values of a data set for `check-data`."""
GOOD = {
    'train': [
        *('model.backbone.adapter.rank=2', 'model.backbone.timestep=0', 'model.backbone.timestep=999'),
        *('model.decode_head.dropout_ratio=0', 'train_dataloader.batch_size=1', 'optim_wrapper.optimizer.lr=0'),
        *('optim_wrapper.clip_grad=None', 'randomness.seed=None', 'randomness.seed=4294967295', 'param_scheduler=None'),
        *('model.neck.width=16', 'optim_wrapper.optimizer.type=SGD optim_wrapper.optimizer.momentum=0.9'),
        *(
            'default_hooks.checkpoint.interval=-1',
            'val_evaluator.iou_metrics=[mIoU,mDice]',
            'model.prompt.type=EmptyPrompt',
        ),
        'optim_wrapper.optimizer.betas=(0.8,0.9)',
        'val_dataloader=None val_cfg=None val_evaluator=None default_hooks.checkpoint.save_best=None',
    ],
    'test': [
        'model.test_cfg.mode=slide model.test_cfg.crop_size=(64,64) model.test_cfg.stride=(32,32)',
        'model.test_cfg.mode=slide model.test_cfg.crop_size=[64,64] model.test_cfg.stride=[32,32]',
        *('model.test_cfg.mode=stitched', 'model.test_cfg.keep_logits=True', 'test_dataloader.batch_size=1'),
    ],
    'scr': [
        'model.adapter.rank=2',
        'model.timestep=0',
        'model.losses.constraint=None',
        'model.losses.pixel.loss_weight=2',
    ],
    # mmseg ignores test settings that it does not know
    'benchmark': ['model.decode_head.dropout_ratio=0', 'model.test_cfg.mode=whole', 'model.test_cfg.colour=1'],
    'segment': ['model.test_cfg.colour=1'],
    'robustness': ['model.test_cfg.colour=1'],
    'check-data': ['train_dataloader=None', 'default_scope=mmseg'],
}


def _keys(option: str) -> tuple[str, ...]:
    """Returns patterns for the last key of an option, or for the first of several options with a wrong value."""
    if option in NAMED:
        return NAMED[option]
    key, _, value = option.partition('=') if ' ' not in option else ('model.test_cfg', '', '')
    last = key.rpartition('.')[2]
    return (key if last.isdigit() else last, *([value.strip('[]')] if value in ('Nope', 'nope', '[nope]') else []))


def _values() -> Iterator[Case]:
    rass = f'train {RASS} --work-dir work --cfg-options {DATA} {TRAIN} {BASE} '
    tested = f'test {RASS} $FX/rass.pth --work-dir work --cfg-options {DATA} {BASE} '
    scr = f'train {SCR} --work-dir work --cfg-options {DATA} {TRAIN} model.base=$FX/base '
    lines = {'train': rass, 'test': tested, 'scr': scr}
    bench = f'benchmark {RESNET} --size 64x64 --iterations 1 --warmup 1 --cfg-options '
    segment = f'segment $FX/good.png o --checkpoint $FX/resnet.pth --config {RESNET} --cfg-options '
    curve = f'robustness {RESNET} $FX/resnet.pth --out o --kinds jpeg --severities 1 --cfg-options {DATA} '
    check = f'check-data {RESNET} --workers 1 --cfg-options {DATA} '
    lines |= {'benchmark': bench, 'segment': segment, 'robustness': curve, 'check-data': check}
    groups = {'train': TRAINING, 'test': TESTING, 'scr': RESTORING}
    groups |= {door: MODELS for door in ('benchmark', 'segment', 'robustness')}
    groups['check-data'] = [
        option.replace('DATALOADER', f'{split}_dataloader') for option in DATASETS for split in ('train', 'val')
    ]
    for door, options in groups.items():
        for option in options:
            yield Case(f'configs/{option}/{door}', lines[door] + option, named=_keys(option))
    for door, options in GOOD.items():
        for option in options:
            yield Case(f'configs/{option}/{door}', lines[door] + option, ok=True)


def cases() -> Iterator[Case]:
    """Yields the cases of this group."""
    yield from _files()
    yield from _values()
