"""The released segmentor at test as one straight pass, written from its description and its published tensor names.

Resize, padding, RAM's input, prompt, windows, head and labels with torch, diffusers, transformers, NumPy and Pillow.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from published_head import PublishedHead, projected
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SD = 'backbone.feature_extractor.sd.'
STRIDES = [4, 8, 32, 16, 8, 8]
"""Of the VAE encoder's second and fourth block and the UNet's four up blocks."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def prompt_text(tags):
    return str(list(tags)).strip('[] ,').replace("'", '').replace(',', ' ')


def short_side(image, side=512, limit=2048):
    """(h, w, 3) uint8 with its short side at `side`, its long side at most `limit`."""
    height, width = image.shape[:2]
    scale = min(side / min(height, width), limit / max(height, width))
    size = (int(width * scale + 0.5), int(height * scale + 0.5))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def padded(image, multiple=8):
    """(h, w, 3) uint8 with zeros added right and below."""
    below, right = (-side % multiple for side in image.shape[:2])
    return np.pad(image, ((0, below), (0, right), (0, 0)))


def ram_input(image, size=384):
    planes = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    square = F.interpolate(planes, (size, size), mode='bilinear', align_corners=False)
    return (square - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def at_size(x, height, width):
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, (height, width), mode='bilinear', align_corners=False)


class ReleasedPass:
    """Labels of one image.

    Args:
        tensors: the published checkpoint's `model`.
        base: folder with the configs and the tokenizer.
        tagger: (1, 3, 384, 384) to a list of tags.
        heads: attention heads of the decode head.
        groups: groups of the projections' norms.
    """

    def __init__(self, tensors, base, tagger, heads, groups):
        self.tensors, self.tagger, self.groups = tensors, tagger, groups
        base = Path(base)
        config = {
            part: json.loads((base / part / 'config.json').read_text()) for part in ('unet', 'vae', 'text_encoder')
        }
        self.unet = self.loaded(UNet2DConditionModel.from_config(config['unet']), self.merged(self.part('unet')))
        self.vae = self.loaded(AutoencoderKL.from_config(config['vae']), self.part('vae'))
        text = CLIPTextModel(CLIPTextConfig(**config['text_encoder']))
        own = text.state_dict()
        published = self.part('text_encoder')
        prefix = '' if next(iter(own)).startswith('text_model.') else 'text_model.'
        self.text = self.loaded(text, {key.removeprefix(prefix): value for key, value in published.items()})
        self.tokenizer = CLIPTokenizer.from_pretrained(str(base / 'tokenizer'))
        self.scale = config['vae']['scaling_factor']
        self.head = PublishedHead(tensors, heads=heads)

    def part(self, name):
        start = f'{SD}{name}.'
        return {key.removeprefix(start): value for key, value in self.tensors.items() if key.startswith(start)}

    @staticmethod
    def loaded(model, state):
        model.load_state_dict(state)
        return model.eval().requires_grad_(False)

    @staticmethod
    def merged(tensors):
        """W + (alpha / rank) B A, alpha 8."""
        state = {key.replace('.base_layer.', '.'): value for key, value in tensors.items() if '.lora_' not in key}
        for key, a in tensors.items():
            if '.lora_A.' in key:
                layer, b = key.split('.lora_A.')[0], tensors[key.replace('.lora_A.', '.lora_B.')]
                old = state[f'{layer}.weight'].double()
                update = (b.double().flatten(1) @ a.double().flatten(1)).reshape(old.shape)
                state[f'{layer}.weight'] = (old + 8 / len(a) * update).float()
        return state

    def context(self, tags):
        ids = self.tokenizer(
            prompt_text(tags), max_length=77, padding='max_length', truncation=True, return_tensors='pt'
        ).input_ids
        return self.text(ids).last_hidden_state

    def window(self, pixels, context, drawn):
        """The projected maps of one window, one per stride, finest first."""
        found = {}
        places = [self.vae.encoder.down_blocks[1], self.vae.encoder.down_blocks[3], *self.unet.up_blocks]
        hooks = [
            place.register_forward_hook(lambda _m, _i, output, index=index: found.update({index: output}))
            for index, place in enumerate(places)
        ]
        posterior = self.vae.encode(pixels).latent_dist
        latent = (posterior.sample() if drawn else posterior.mode()) * self.scale
        self.unet(latent, 1, encoder_hidden_states=context)
        for hook in hooks:
            hook.remove()
        height, width = pixels.shape[-2:]
        maps = [at_size(found[i], height // stride, width // stride) for i, stride in enumerate(STRIDES)]
        return projected(maps, self.tensors, 'backbone.feature_extractor.', STRIDES, STRIDES, self.groups)

    @torch.no_grad()
    def __call__(self, image, drawn=False):
        """(h, w, 3) uint8 RGB to its class ids (h, w); also the two largest scores of each pixel, (2, h, w)."""
        small = short_side(image)
        whole = padded(small)
        context = self.context(self.tagger(ram_input(whole)))
        pixels = torch.from_numpy(whole).permute(2, 0, 1)[None].float() / 127.5 - 1
        height, width = pixels.shape[-2:]
        side = min(height, width)
        levels = []
        for stride in (4, 8, 16, 32):
            levels.append([0, np.zeros((height // stride, width // stride), np.float32), stride])
        for top, left in ((top, left) for top in starts(height, side) for left in starts(width, side)):
            maps = self.window(pixels[..., top : top + side, left : left + side], context, drawn)
            for level, part in zip(levels, maps, strict=True):
                stride = level[2]
                rows = slice(top // stride, (top + side) // stride)
                columns = slice(left // stride, (left + side) // stride)
                canvas = torch.zeros(1, part.shape[1], *level[1].shape)
                canvas[..., rows, columns] = at_size(part, rows.stop - rows.start, columns.stop - columns.start)
                level[0] = level[0] + canvas
                level[1][rows, columns] += 1
        scores, masks, _ = self.head([total / torch.from_numpy(count) for total, count, _ in levels])[-1]
        masks = F.interpolate(masks, (height, width), mode='bilinear', align_corners=False).sigmoid()
        logits = torch.einsum('bqc,bqhw->bchw', scores.softmax(-1)[..., :-1], masks)
        logits = logits[..., : small.shape[0], : small.shape[1]]
        logits = F.interpolate(logits, image.shape[:2], mode='bilinear', align_corners=False)[0]
        best = logits.topk(2, 0).values
        return logits.argmax(0).numpy(), best.numpy()


def starts(length, side):
    """Where square windows begin along a side; the last ends at the border."""
    return [min(start, length - side) for start in range(0, length, side)]
