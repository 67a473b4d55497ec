"""The RASS segmentor as a module: gradients, determinism, windows, precision, what its checkpoints hold."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.models.segmentors import EncoderDecoder

from rass_mm.diffusion.adapters import merge_adapter
from rass_mm.diffusion.text import TextEncoder
from rass_mm.errors import ConfigError, DataError


def total(model, batch):
    loss, _ = model.parse_losses(model.loss(*batch))
    return loss


@pytest.mark.parametrize('name', ['upernet', 'mask2former'])
def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one(build, batch, name):
    model = build(name)
    # B = 0 gives A a gradient of exactly 0; away from the start every gradient must be alive.
    for key, parameter in model.named_parameters():
        if 'lora_B' in key:
            torch.nn.init.normal_(parameter, std=0.02)
    total(model, batch).backward()
    trained = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) > 400
    assert [key for key, parameter in trained.items() if parameter.grad is None] == []
    dead = [key for key, parameter in trained.items() if not parameter.grad.abs().sum() > 0]
    # What acts before a norm over all positions or a softmax is shifted away by it: biases only.
    assert [key for key in dead if 'lora' in key or 'neck' in key or 'conv_in' in key] == []
    assert [
        key for key, parameter in model.named_parameters() if not parameter.requires_grad and parameter.grad is not None
    ] == []


def test_one_step_lowers_the_loss(build, batch):
    model = build()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(8):
        torch.manual_seed(0)
        loss = total(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_eval_is_bit_repeatable_and_batch_independent(build, batch):
    model = build().eval()
    with torch.no_grad():
        first, again = (model.encode_decode(batch[0], [{}] * 2) for _ in range(2))
        alone = model.encode_decode(batch[0][:1], [{}])
    assert torch.equal(first, again)
    torch.testing.assert_close(first[:1], alone, rtol=1e-4, atol=1e-4)


def test_merging_the_trained_adapter_leaves_the_segmentation_unchanged(build, batch):
    model = build().eval()
    for key, parameter in model.named_parameters():
        if 'lora_B' in key:
            torch.nn.init.normal_(parameter, std=0.02)
    with torch.no_grad():
        before = model.encode_decode(batch[0], [{}] * 2)
        merge_adapter(model.backbone.extractor.unet, 'seg')
        after = model.encode_decode(batch[0], [{}] * 2)
    assert (before - after).abs().max() < 1e-4


def test_gradient_checkpointing_changes_nothing_but_memory(build, batch):
    gradients = []
    for checkpointing in (False, True):
        model = build(**{'backbone.gradient_checkpointing': checkpointing, 'decode_head.dropout_ratio': 0.0}).train()
        total(model, batch).backward()
        gradients.append({key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('size', [(96, 160), (64, 64), (128, 96)])
def test_batched_windows_equal_mmsegs_sliding_inference(build, size):
    model = build().eval()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    model.test_cfg = ConfigDict(mode='slide', crop_size=(64, 64), stride=(32, 48), window_batch=3)
    with torch.no_grad():
        ours = model.inference(images, [{}] * 2)
        reference = EncoderDecoder.slide_inference(model, images, [{'img_shape': size} for _ in images])
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)


def test_mask2former_windows_have_the_windows_size(build):
    model = build('mask2former').eval()
    model.test_cfg = ConfigDict(mode='slide', crop_size=(64, 64), stride=(64, 64))
    with torch.no_grad():
        logits = model.inference(torch.randn(1, 3, 96, 128), [{'pad_shape': (96, 128), 'img_shape': (96, 128)}])
    assert logits.shape == (1, 12, 96, 128)
    assert logits.min() >= 0


def test_unknown_test_mode_is_refused(build):
    model = build().eval()
    model.test_cfg = ConfigDict(mode='tiles')
    with pytest.raises(ConfigError, match="'tiles'; expected 'whole', 'slide' or 'stitched'"):
        model.inference(torch.randn(1, 3, 64, 64), [{}])


def test_image_of_odd_size_names_the_fix(build):
    with pytest.raises(DataError, match='100x90.*multiples of 32.*size_divisor=32'):
        build().eval().extract_feat(torch.randn(1, 3, 100, 90))


@pytest.mark.parametrize('name', ['upernet', 'mask2former'])
def test_bfloat16_autocast_trains_close_to_float32(build, batch, name):
    model = build(name, **({'decode_head.dropout_ratio': 0.0} if name == 'upernet' else {}))
    torch.manual_seed(1)
    exact = total(model, batch).item()
    torch.manual_seed(1)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = total(model, batch)
    mixed.backward()
    assert abs(mixed.item() - exact) < 0.05 * exact
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    'prompt', [{'type': 'EmptyPrompt'}, {'type': 'TagPrompt', 'tagger': {'type': 'GroundTruthTagger'}}]
)
def test_other_prompts_train(build, batch, prompt):
    model = build(prompt=prompt)
    assert total(model, batch) > 0
    assert not any(key.startswith('prompt') for key in model.state_dict())


@pytest.mark.parametrize('prompt', ['ClassTokens', 'EmptyPrompt'])
def test_fixed_prompts_need_no_text_encoder_in_training(build, batch, prompt, monkeypatch):
    model = build(prompt={'type': prompt})
    assert not any(isinstance(module, TextEncoder) for module in model.modules())
    monkeypatch.setattr(TextEncoder, 'encode', None)
    assert total(model, batch) > 0


def test_training_the_whole_unet_frees_all_that_is_used(build, batch):
    model = build(**{'backbone.train_parameters': 'unet'})
    total(model, batch).backward()
    assert [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert model.backbone.extractor.unet.mid_block.resnets[0].conv1.weight.grad is not None


def test_frozen_parts_keep_no_graph(build, batch):
    model = build()
    vae_features = []
    model.backbone.extractor.vae.encoder.down_blocks[1].register_forward_hook(
        lambda *args: vae_features.append(args[2])
    )
    total(model, batch)
    assert vae_features and not vae_features[0].requires_grad


def test_class_list_that_does_not_fit_the_head_is_refused(build):
    with pytest.raises(ConfigError, match='num_classes is 7.*12 names'):
        build(**{'decode_head.num_classes': 7})


def test_unknown_data_set_as_class_list_is_refused(build):
    with pytest.raises(ConfigError, match="'NoSuchDataset' is not a registered data set"):
        build(classes='NoSuchDataset')
