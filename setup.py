"""Package definition. The tested versions are pinned in requirements/; the ranges here are those users may install."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'rass_mm' / 'version.py').read_text())[1]
LIGHT = [
    'torch>=2.10',  # below 2.10, a checkpoint can corrupt memory (CVE-2026-24747), see rass_mm_cli.packages.FLOORS
    'numpy>=1.26',
    'scipy>=1.12',
    'ftfy>=6.1',  # the tokenizers of CLIP use these two; mmsegmentation needs them without declaring them
    'regex>=2023.10',
    'opencv-python-headless>=4.9',
    'matplotlib>=3.8',  # the font of legends, and curves
    'diffusers>=0.35',
    'peft>=0.17',
    'transformers>=4.57',
    'accelerate>=1.1',
    'safetensors>=0.4',
    'filelock>=4.2',  # earlier releases empty the file of another holder
    'pillow>=10.3',
    'simplejpeg>=1.7',  # reports damaged JPEG data, which Pillow and OpenCV decode without an error
    'pydantic>=2.7',
    'psutil>=5.9',
    'rich>=13',
    'huggingface_hub>=0.34',
]
# The originals and their maintained forks have the same import names, so an environment has one family or the other.
OPENMMLAB = ['mmengine>=0.10.4,<1.0', 'mmcv>=2.0.0,<2.2.0', 'mmsegmentation>=1.2.2,<2.0', 'mmdet>=3.3.0,<4.0']
# The extra segmentation has the first family. Mask2Former heads of the second one also need onedl-mmdetection, which
# must be installed with --no-deps: it requires imaug, which needs an older numpy and a second OpenCV.
ONEDL = ['onedl-mmengine>=0.10.8', 'onedl-mmcv>=2.3', 'onedl-mmsegmentation>=1.4']
# mmagic has no fork.
RESTORATION = [
    *OPENMMLAB,
    'mmagic==1.2.0',
    'torchvision',
    'albumentations',
    'lpips',
    'pandas',
    'einops',
    'lmdb',
    'resize-right',
]
EXPORT = ['openvino>=2026.0', 'nncf>=3.0', 'onnx>=1.20', 'onnxscript>=0.5', 'onnxruntime>=1.31']
RAY = ['ray[data]>=2.50,<3', 'pyarrow>=20']  # jobs on many machines, and Parquet files
APP = ['gradio>=6.31,<7']
METRICS = ['pyiqa>=0.1.14', 'lpips>=0.1.4']  # perceptual metrics; pyiqa downloads their weights on first use


class BuildWithConfigs(build_py):
    """Build step that copies configs/ into the package, so that wheels include them for `rass_mm.config_path`."""

    def run(self) -> None:
        super().run()
        target = Path(self.build_lib) / 'rass_mm' / 'configs'
        shutil.copytree(ROOT / 'configs', target, dirs_exist_ok=True, ignore=shutil.ignore_patterns('__pycache__'))


setup(
    name='rass_mm',
    version=VERSION,
    description='Restoration and segmentation of low-quality images with a diffusion UNet (mmsegmentation, mmagic)',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=find_packages(include=['rass_mm', 'rass_mm.*', 'rass_mm_cli']),
    package_data={
        'rass_mm': ['py.typed'],
        'rass_mm_cli': ['help/*.txt'],
        'rass_mm.demo.base': ['weights/*/*', 'weights/*/*/*'],
    },
    install_requires=LIGHT,
    extras_require={
        'segmentation': OPENMMLAB,
        'openmmlab': OPENMMLAB,  # the earlier name
        'onedl': ONEDL,
        'restoration': RESTORATION,
        'export': EXPORT,
        'ray': RAY,
        'app': APP,
        'metrics': METRICS,
        'all': [*RESTORATION, *EXPORT, *RAY, *APP, *METRICS],
        'test': ['pytest', 'ruff'],
    },
    cmdclass={'build_py': BuildWithConfigs},
    entry_points={'console_scripts': ['rass-mm=rass_mm_cli.main:main']},
)
