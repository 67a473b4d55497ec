"""Published folders with old names of some weights are loaded completely."""

import shutil

import torch
from safetensors.torch import load_file, save_file

from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_vae
from rass_mm.diffusion.text import load_text_model

OLD_ATTENTION = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn'}


def equal(one, other):
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def renamed(file, rename, extra=None):
    tensors = {rename(key): value for key, value in load_file(file).items()}
    save_file({**tensors, **(extra or {})}, file, metadata={'format': 'pt'})


def test_text_encoder_with_the_published_prefix(tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base, tmp_path / 'base')
    renamed(
        folder / 'text_encoder' / 'model.safetensors',
        lambda key: key if key.startswith('text_model.') else f'text_model.{key}',
        {'text_model.embeddings.position_ids': torch.arange(77)[None]},
    )
    assert equal(load_text_model(read_base(folder)), load_text_model(read_base(tiny_base)))


def test_vae_with_the_old_attention_names(tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base, tmp_path / 'base')

    def old(key):
        for new, name in OLD_ATTENTION.items():
            key = key.replace(new, name) if 'attentions' in key else key
        return key

    renamed(folder / 'vae' / 'diffusion_pytorch_model.safetensors', old)
    assert equal(load_vae(read_base(folder)), load_vae(read_base(tiny_base)))
