"""Package definition. The versions proved together are in requirements/; the ranges here are what users may have."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'rass_mm' / 'version.py').read_text())[1]
SEGMENTATION = [
    'torch>=2.10',  # below, a checkpoint can corrupt memory (CVE-2026-24747): rass_mm_cli.packages.FLOORS
    'numpy>=1.26',
    'scipy',
    'mmengine>=0.10.4,<1.0',
    'mmcv>=2.0.0,<2.2.0',
    'mmsegmentation>=1.2.2,<2.0',
    'mmdet>=3.3.0,<4.0',
    'ftfy',  # mmsegmentation needs these two and does not say so
    'regex',
    'diffusers>=0.35',
    'peft>=0.17',
    'transformers>=4.57',
    'accelerate',
    'safetensors>=0.4',
    'pillow',
    'rich',
]
RESTORATION = ['mmagic==1.2.0', 'torchvision', 'albumentations', 'lpips', 'pandas', 'einops', 'lmdb', 'resize-right']


class BuildWithConfigs(build_py):
    """Copies configs/ into the package, so that the wheel carries them and `rass_mm.config_path` finds them."""

    def run(self) -> None:
        super().run()
        target = Path(self.build_lib) / 'rass_mm' / 'configs'
        shutil.copytree(ROOT / 'configs', target, dirs_exist_ok=True, ignore=shutil.ignore_patterns('__pycache__'))


setup(
    name='rass_mm',
    version=VERSION,
    description='Restoration and segmentation of bad images with a diffusion UNet, for mmsegmentation and mmagic',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['rass_mm', 'rass_mm.*', 'rass_mm_cli']),
    package_data={'rass_mm': ['py.typed'], 'rass_mm.demo.base': ['weights/*/*', 'weights/*/*/*']},
    install_requires=SEGMENTATION,
    extras_require={'restoration': RESTORATION, 'test': ['pytest', 'ruff']},
    cmdclass={'build_py': BuildWithConfigs},
    entry_points={'console_scripts': ['rass-mm=rass_mm_cli.main:main']},
)
