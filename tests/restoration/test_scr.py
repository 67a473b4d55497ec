"""SCR restorer from mmagic's registry: steps, losses, files and errors."""

import copy

import pytest
import torch
import torch.nn.functional as F
from commands import python

pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')

from diffusers import AutoencoderKL  # noqa: E402 - after the check for mmagic
from mmengine.runner.checkpoint import get_state_dict  # noqa: E402

from rass_mm.diffusion.adapter_files import read_adapter  # noqa: E402
from rass_mm.diffusion.attention import captured_attention  # noqa: E402
from rass_mm.diffusion.base import read_base  # noqa: E402
from rass_mm.diffusion.restorer import load_restorer  # noqa: E402
from rass_mm.diffusion.text import TextEncoder  # noqa: E402
from rass_mm.engine.trained_state import read_provenance  # noqa: E402
from rass_mm.errors import AdapterError, CheckpointError, ConfigError, DataError  # noqa: E402

SGD = {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 1.0}}
"""Optimiser with which a step equals the gradient."""
QUICK = {'losses.score.loss_weight': 0.0, 'adapter.targets': ('conv_shortcut',)}
"""Options without a critic and with few adapted layers, for speed (peft takes a second for all layers)."""
TAGS = {'prompt': {'type': 'TagPrompt', 'tagger': {'type': 'GroundTruthTagger'}}}


def values(model):
    """Returns all parameters and buffers, including those that are not in checkpoints."""
    return {key: value.detach().clone() for key, value in [*model.named_parameters(), *model.named_buffers()]}


def changed(model, before):
    return {key for key, value in values(model).items() if not torch.equal(value, before[key])}


def trained(model):
    return {key for key, parameter in model.named_parameters() if parameter.requires_grad}


def scaled(image):
    """Converts BGR in 0..255 to RGB in [-1, 1]."""
    return image.float().flip(-3) / 127.5 - 1


def test_a_step_changes_exactly_what_trains(build, batch):
    built = build().moved()
    before = values(built.model)
    log = built.train_step(batch)
    lora = {key for key in before if '.lora_' in key}
    conv_in = {f'generator.unet.conv_in.base_layer.{part}' for part in ('weight', 'bias')}
    assert any('.vsd.' in key for key in lora) and any('.scr.' in key for key in lora)
    assert changed(built.model, before) == lora | conv_in == trained(built.model)
    assert {'loss', 'loss_pixel', 'loss_constraint', 'loss_score', 'critic', 'attention_ratio'} <= set(log)


def test_without_a_vsd_loss_there_is_no_critic(build, batch):
    built = build(**QUICK)
    assert list(built.optimizers.optim_wrappers) == ['generator'] and not built.model.generator.shared.has_critic
    assert not any('.vsd.' in key for key in built.model.state_dict())
    assert 'critic' not in built.train_step(batch)


def test_logged_losses_are_those_of_the_formulas(build, batch, tiny_base):
    built = build().moved()
    other = copy.deepcopy(built.model)
    log = built.train_step(batch, seed=7)
    data, model = batch(), other.generator
    vae, base = AutoencoderKL.from_pretrained(tiny_base / 'vae').eval(), read_base(tiny_base)
    context = other.prompt.tokens.expand(2, -1, -1)
    owners = other.prompt.owners.expand(2, -1)
    with torch.no_grad():
        latent = vae.encode(scaled(torch.stack(data['inputs']))).latent_dist.mean * base.scaling_factor
        with captured_attention(model.unet, model.attention_layers) as maps:
            restored = latent - model.unet(latent, 1, encoder_hidden_states=context).sample
            maps = dict(maps)
        clean = scaled(torch.stack([sample.gt_img for sample in data['data_samples']]))
        pixel = 10 * F.mse_loss(vae.decode(restored / base.scaling_factor).sample, clean)
        labels = torch.cat([sample.gt_sem_seg.data for sample in data['data_samples']])
        constraint = other.losses['constraint'](maps, owners, labels)
        negative = TextEncoder(base).encode_texts([built.config.model.losses.score.negative_prompt])[0]
        torch.manual_seed(7)
        score = other.losses['score'](model.shared, other.alphas, restored, context, negative.expand(2, -1, -1))
        with model.shared.critic():
            critic = other.losses['score'].critic_loss(model.shared, other.alphas, restored, context)
    expected = {'loss_pixel': pixel, 'loss_constraint': constraint, 'loss_score': score, 'critic': critic}
    expected['loss'] = pixel + constraint + score
    for name, value in expected.items():
        assert log[name].item() == pytest.approx(value.item(), rel=1e-4), name
    assert pixel > 0.1 and constraint > 0.01 and 0 < log['attention_ratio'] < 1


def test_losses_mode_is_that_of_the_step_and_leaves_nothing_patched(build, batch):
    built = build().moved()
    before = {name: part.processor for name, part in built.model.named_modules() if hasattr(part, 'processor')}
    data = built.model.train().data_preprocessor(batch(), True)
    torch.manual_seed(3)
    losses = built.model(**data, mode='loss')
    log = built.train_step(batch, seed=3)
    assert all(log[name].item() == pytest.approx(losses[name].item(), rel=1e-5) for name in losses)
    for name, part in built.model.named_modules():
        assert name not in before or part.processor is before[name]


def test_repeated_steps_lower_the_loss(build, batch):
    built = build(**QUICK)
    losses = [built.train_step(batch)['loss_pixel'].item() for _ in range(8)]
    assert losses[-1] < 0.95 * losses[0]


def test_gradient_checkpointing_gives_the_same_step(build, batch):
    steps = []
    for checkpointing in (False, True):
        built = build(optimizer=SGD, gradient_checkpointing=checkpointing).moved()
        before = values(built.model)
        log = built.train_step(batch)
        after = values(built.model)
        losses = [log[name].item() for name in ('loss', 'critic')]
        steps.append(({key: after[key] - before[key] for key in trained(built.model)}, losses))
    (plain, losses), (again, others) = steps
    assert losses == pytest.approx(others, rel=1e-5)
    largest = max(step.abs().max().item() for step in plain.values())
    for key, step in plain.items():
        torch.testing.assert_close(again[key], step, rtol=1e-3, atol=1e-5 * largest, msg=key)


def test_losses_in_bfloat16_are_close_and_differentiable(build, batch):
    built = build().moved()
    data = built.model.train().data_preprocessor(batch(), True)
    losses = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            losses.append(built.model(**data, mode='loss'))
    exact, half = losses
    for name, value in exact.items():
        assert half[name].dtype == torch.float32 and half[name].item() == pytest.approx(value.item(), rel=0.05), name
    built.model.parse_losses(half)[0].backward()
    gradients = [p.grad for p in built.model.trained_parameters()['generator']]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_accumulated_halves_make_the_step_of_the_whole(build, batch):
    """Runs without the VSD loss, which draws noise per call."""
    options = {**QUICK, 'losses.constraint.loss_weight': 0.0}
    whole = build(optimizer=SGD, **options).moved()
    before = values(whole.model)
    whole.train_step(batch)
    halves = build(optimizer={**SGD, 'accumulative_counts': 2}, **options).moved()
    for index in range(2):
        assert not changed(halves.model, before)
        data = {key: value[index : index + 1] for key, value in batch().items()}
        halves.train_step(lambda data=data: data)
    found, expected = values(halves.model), values(whole.model)
    for key in trained(whole.model):
        moved = (expected[key] - before[key]).abs().max().item()
        assert moved > 0
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=1e-3 * moved)


def test_state_holds_trained_tensors_and_provenance_only(build, tiny_base):
    model = build().model
    for state in (model.state_dict(), get_state_dict(model)):
        assert set(state) == trained(model) | {'_extra_state'}
    record = read_provenance(model.state_dict()['_extra_state'])
    assert record['base'] == read_base(tiny_base).identity and record['classes'] == model.classes


def test_state_loads_on_the_same_base_and_gives_the_same_images(build, batch):
    one, other = build().moved().model.eval(), build().model.eval()
    images = one.data_preprocessor(batch(), False)['inputs']
    with torch.no_grad():
        expected = one(images)
        assert not torch.allclose(other(images), expected, atol=1e-2)
        other.load_state_dict(one.state_dict())
        torch.testing.assert_close(other(images), expected, rtol=0, atol=1e-5)


def test_state_of_another_base_or_class_list_is_refused(build, other_base):
    state = build().model.state_dict()
    other = build(base=other_base, **QUICK).model
    before = values(other)
    with pytest.raises(CheckpointError, match='another base'):
        other.load_state_dict(state)
    with pytest.raises(CheckpointError, match='class list of the checkpoint differs'):
        build(classes='CamVidDataset', **QUICK).model.load_state_dict(state)
    with pytest.raises(CheckpointError, match='nothing was loaded(?s:.*)unknown: generator'):
        build(**QUICK).model.load_state_dict(state)
    assert not changed(other, before)


@pytest.mark.parametrize(
    'options', [{}, {**QUICK, 'form': 'x0', 'timestep': 700}, {**QUICK, 'test_prompt': {'type': 'EmptyPrompt'}}]
)
def test_the_adapter_file_restores_as_the_model_does(build, batch, tiny_base, tmp_path, options):
    model = build(**options).moved().model.eval()
    model.save_adapter(tmp_path / 'scr.safetensors')
    restorer = load_restorer(tmp_path / 'scr.safetensors', tiny_base)
    data = model.data_preprocessor(batch(), False)
    found, expected = restorer(data['inputs']), model.predict(**data)
    for one, sample in zip(found, expected, strict=True):
        image = scaled(sample.output.pred_img)
        assert image.std() > 0.1
        torch.testing.assert_close(one, image, rtol=0, atol=1e-4)
    adapter = read_adapter(tmp_path / 'scr.safetensors')
    header, tensors = adapter.header, adapter.tensors
    assert header['recipe'] == {
        'form': options.get('form', 'residual'),
        'timestep': options.get('timestep', 1),
        'prompt': options.get('test_prompt', {'type': 'ClassTokens'})['type'],
        'classes': model.classes,
    }
    assert not any('vsd' in key for key in tensors) and 'conv_in.weight' in tensors


@pytest.fixture
def saved(build, tmp_path):
    """Model and its adapter file."""
    model = build().moved().model
    model.save_adapter(tmp_path / 'scr.safetensors')
    return model, tmp_path / 'scr.safetensors'


def test_training_starts_from_a_file(saved, build, batch):
    model, file = saved
    other = build(start=str(file))
    mine, theirs = values(model), values(other.model)
    assert all(torch.equal(theirs[key], mine[key]) for key in mine if '.scr.' in key or 'conv_in.base' in key)
    assert not any(theirs[key].any() for key in theirs if '.lora_B.vsd.' in key)  # the critic has new weights
    before = values(other.model)
    other.train_step(batch)
    assert {key for key in trained(other.model) if '.scr.' in key} <= changed(other.model, before)


def test_a_start_of_another_rank_or_base_is_refused(saved, build, other_base):
    _, file = saved
    with pytest.raises(AdapterError, match=r'Set\s+adapter.rank and adapter.alpha'):
        build(start=str(file), **QUICK, **{'adapter.rank': 3})
    with pytest.raises(AdapterError, match='another base'):
        build(base=other_base, start=str(file), **QUICK)
    with pytest.raises(AdapterError, match='another base'):
        load_restorer(file, other_base)


def test_an_adapter_with_nan_is_refused_everywhere(saved, build, tiny_base):
    model, file = saved
    with torch.no_grad():
        next(p for key, p in model.named_parameters() if '.lora_B.scr.' in key)[0, 0] = torch.nan
    model.save_adapter(file)
    for load in (lambda: load_restorer(file, tiny_base), lambda: build(start=str(file), **QUICK)):
        with pytest.raises(AdapterError, match='lora_B.weight contains NaN or infinity'):
            load()


def test_a_segmentation_adapter_is_not_a_restorer(saved, tiny_base, tmp_path):
    from rass_mm.diffusion.adapter_files import save_adapter

    model, _ = saved
    save_adapter(model.generator.unet, 'scr', tmp_path / 'seg.safetensors', model.identity)
    with pytest.raises(AdapterError, match='is an adapter but not a restorer'):
        load_restorer(tmp_path / 'seg.safetensors', tiny_base)


def test_tags_in_training_and_class_tokens_at_test(build, batch):
    built = build(**QUICK, **TAGS)
    log = built.train_step(batch)
    assert log['loss_constraint'] > 0 and not any('text' in key for key in built.model.state_dict())
    data = built.model.eval().data_preprocessor(batch(), False)
    assert built.model.test_prompt_type == 'ClassTokens'
    assert torch.equal(built.model.prompt_of(**data).context, built.model.test_prompt.tokens.expand(2, -1, -1))
    images = built.model.predict(data['inputs'])  # no labels are needed
    assert images[0].output.pred_img.shape == (3, 32, 64)
    prompt = built.model.train().prompt_of(**data)
    present = set(data['data_samples'][0].gt_sem_seg.data.unique().tolist()) - {255}
    assert set(prompt.owners[0].tolist()) - {-1} == present and prompt.context.shape[1] == 77


@pytest.mark.parametrize('options', [{}, {**QUICK, **TAGS}], ids=['class_tokens', 'tags'])
def test_a_crop_without_any_class_does_not_stop_training(build, batch, options):
    built = build(**options).moved()
    before = values(built.model)
    log = built.train_step(lambda: batch(label=torch.full((1, 32, 64), 255)))
    assert log['loss_constraint'] == 0 and log['attention_ratio'] == 0 and torch.isfinite(log['loss'])
    assert changed(built.model, before) == trained(built.model)
    assert all(torch.isfinite(value).all() for value in values(built.model).values())


def test_prompts_longer_than_the_context_say_what_to_do(build, batch):
    names = [f'{letter * 30}' for letter in 'abcdefghijkl']
    built = build(classes=names, **QUICK, **TAGS)
    with pytest.raises(ConfigError, match="does not fit the 75(?s:.*)'ClassTokens'"):
        built.train_step(batch)
    with pytest.raises(ConfigError, match='losses.score.negative_prompt(?s:.*)does not fit the 75'):
        build(**{'losses.score.negative_prompt': 'nowhere ' * 30})


@pytest.mark.parametrize('which', ['generator', 'critic'])
def test_a_loss_that_is_not_finite_changes_nothing_and_says_which(build, batch, which, monkeypatch):
    built = build().moved()
    before = values(built.model)
    if which == 'generator':
        clean = torch.full((2, 3, 32, 64), torch.nan)
        with pytest.raises(DataError, match='not finite.*loss_pixel nan'):
            built.train_step(lambda: batch(clean=clean))
        assert not changed(built.model, before)
    else:
        monkeypatch.setattr(type(built.model.losses['score']), 'critic_loss', lambda *_: torch.tensor(torch.inf))
        with pytest.raises(DataError, match='not finite.*critic inf'):
            built.train_step(batch)
        assert not {key for key in changed(built.model, before) if '.vsd.' in key}
    data = built.model.eval().data_preprocessor(batch(), False)
    assert torch.isfinite(built.model(data['inputs'])).all()  # the generator is active again


def test_predictions_are_bgr_beside_their_inputs(build, batch):
    model = build().moved().model.eval()
    data, raw = model.data_preprocessor(batch(), False), batch()
    samples = model.predict(**data)
    for image, sample, restored in zip(raw['inputs'], samples, model(data['inputs']), strict=True):
        torch.testing.assert_close(sample.input, image.float(), rtol=0, atol=1e-3)
        expected = (restored.detach().clamp(-1, 1).flip(0) + 1) * 127.5
        torch.testing.assert_close(sample.output.pred_img, expected, rtol=0, atol=0.02)
        assert 0 < sample.attention['chance'] < 1 and sample.attention['ratio'] > 0


def test_ceiling_and_input_modes_leave_the_restorer_out(build, batch, tiny_base):
    raw = batch()
    vae = AutoencoderKL.from_pretrained(tiny_base / 'vae').eval()
    for mode in ('ceiling', 'input'):
        model = build(**QUICK, **{'test_cfg.mode': mode}).moved().model.eval()
        samples = model.predict(**model.data_preprocessor(batch(), False))
        for image, sample, given in zip(raw['inputs'], samples, raw['data_samples'], strict=True):
            expected = scaled(image)
            if mode == 'ceiling':
                with torch.no_grad():
                    expected = (
                        vae.decode(vae.encode(scaled(given.gt_img)[None]).latent_dist.mean).sample[0].clamp(-1, 1)
                    )
            torch.testing.assert_close(scaled(sample.output.pred_img), expected, rtol=0, atol=1e-4)


def test_odd_sizes_and_windows_are_restored_in_full(build):
    image = torch.rand(3, 50, 75) * 2 - 1
    for options in ({}, {'test_cfg.window': 64, 'test_cfg.overlap': 32, 'test_cfg.attention': False}):
        model = build(**QUICK, **options).model.eval()
        with torch.no_grad():
            assert model.restore(image).shape == image.shape


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'losses.adversarial': {'type': 'GANLoss'}},
            "losses has the unknown key 'adversarial'. Choose from pixel, perceptual",
        ),
        ({'test_cfg.mode': 'roundtrip'}, "mode is 'roundtrip'. Set it to one of restore, ceiling, input"),
        (
            {'test_prompt': {'type': 'TagPrompt'}},
            "test_prompt is 'TagPrompt'. Set it to one of ClassTokens, EmptyPrompt",
        ),
        ({'form': 'epsilon'}, "form is 'epsilon', but it must be one of residual, x0"),
        ({'timestep': 1000}, 'timestep is 1000, but it must be in the range 0 to 999'),
        ({'attention_layers': ['up_blocks.0']}, "no cross-attention at 'up_blocks.0'"),
        ({'classes': 'NoSuchDataset'}, "'NoSuchDataset' is not a registered data set"),
    ],
)
def test_wrong_configs_are_refused(build, options, message):
    with pytest.raises(ConfigError, match=message):
        build(**QUICK, **options)


def test_sizes_that_do_not_fit_the_base_are_refused(build, batch):
    model = build(**QUICK).model
    data = model.data_preprocessor(batch(), True)
    with pytest.raises(DataError, match='The image has 32x48 pixels, but both sides must be multiples of 32'):
        model(data['inputs'][..., :48], data['data_samples'], mode='loss')


def test_missing_labels_or_windows_with_attention_are_refused(build, batch):
    model = build(**QUICK, **{'test_cfg.window': 64}).model
    data = model.data_preprocessor(batch(), True)
    for test_cfg in (model.test_cfg, {**model.test_cfg, 'window': None, 'scheme': 'osediff'}):
        model.test_cfg = test_cfg
        with pytest.raises(ConfigError, match='Remove test_cfg.window'):
            model.eval().predict(**data)
    for sample in data['data_samples']:
        del sample.gt_sem_seg
    with pytest.raises(ConfigError, match='constraint loss needs labels'):
        model.train()(**data, mode='loss')


def test_a_group_without_an_optimiser_is_refused(build):
    from mmengine.optim import build_optim_wrapper

    wrapper = {'constructor': 'mmagic.SCROptimWrapperConstructor', 'generator': SGD}
    message = "no 'critic': the model trains generator, critic, but the config has generator"
    with pytest.raises(ConfigError, match=message):
        build_optim_wrapper(build().model, wrapper)


def test_rules_by_parameter_are_refused(build):
    from mmengine.optim import build_optim_wrapper

    wrapper = {'constructor': 'mmagic.SCROptimWrapperConstructor', 'generator': SGD, 'critic': SGD}
    with pytest.raises(ConfigError, match='paramwise_cfg is not supported'):
        build_optim_wrapper(build().model, {**wrapper, 'paramwise_cfg': {'norm_decay_mult': 0.0}})


def test_two_processes_make_the_step_of_one_with_the_double_batch(tiny_base, tmp_path):
    """Runs real processes with gloo; noise is a function of its input, so that all draws are equal."""
    script = tmp_path / 'go.py'
    script.write_text(PROCESSES)
    done = python(script, tiny_base, tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    one, first, second = (torch.load(tmp_path / f'{name}.pt') for name in ('one', 'rank0', 'rank1'))
    assert one['logs'][0].keys() == first['logs'][0].keys() >= {'loss', 'critic', 'loss_score'}
    for step in range(2):
        for name, value in one['logs'][step].items():
            assert first['logs'][step][name] == pytest.approx(value, rel=10 ** (step - 5)), (step, name)
        assert first['logs'][step] == second['logs'][step]
    moved = []
    for key, start in one['start'].items():
        moved.append((one['end'][key] - start).abs().max().item())
        assert torch.equal(first['start'][key], start)
        assert torch.equal(first['end'][key], second['end'][key])  # the ranks stay synchronized
        torch.testing.assert_close(first['end'][key], one['end'][key], rtol=0, atol=1e-3 * moved[-1] + 1e-6, msg=key)
    assert sum(step > 1e-4 for step in moved) > 0.9 * len(moved)


PROCESSES = """
import sys
from pathlib import Path

import torch
import torch.multiprocessing

sys.path.insert(0, 'tests/restoration')
from conftest import Built

import rass_mm.restoration  # prepares mmagic
from mmagic.structures import DataSample
from mmengine.structures import PixelData

from rass_mm.restoration.optimization import WholeModelDistributed

base, out = sys.argv[1], Path(sys.argv[2])
torch.set_num_threads(1)


def batch(first, count):
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(2, 2, 3, 32, 32, generator=generator) * 256).byte()[first : first + count]
    samples = [DataSample(gt_img=image[1]) for image in images]
    for sample in samples:  # the same classes in each image: the constraint is a mean over classes
        sample.gt_sem_seg = PixelData(data=torch.arange(4).repeat_interleave(8).expand(1, 32, 32))
    return {'inputs': [image[0] for image in images], 'data_samples': samples}


def go(name, rank):
    if name != 'one':
        torch.distributed.init_process_group('gloo', init_method=f'file://{out}/gloo', rank=rank, world_size=2)
    targets = ('attn2.to_q', 'attn2.to_v', 'conv_in', 'conv_shortcut')  # of many, for speed
    sgd = {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 0.3}}
    built = Built(
        base, optimizer=sgd, **{'adapter.targets': targets, 'losses.score.adapter.targets': targets}
    ).moved()
    if rank:  # the first process's values must win
        for parameter in built.model.parameters():
            parameter.data += 0.1 * parameter.requires_grad
    model = built.model if name == 'one' else WholeModelDistributed(built.model, find_unused_parameters=False)
    parameters = {key: p for key, p in built.model.named_parameters() if p.requires_grad}
    record = {'start': {key: p.detach().clone() for key, p in parameters.items()}, 'logs': []}
    torch.randn_like = lambda x: torch.sin(3 * x.detach())
    torch.randint = lambda *arguments, device=None: torch.full(arguments[-1], 500)
    for _ in range(2):
        data = batch(0, 2) if name == 'one' else batch(rank, 1)
        log = model.train().train_step(data, built.optimizers)
        record['logs'].append({key: value.item() for key, value in log.items()})
    record['end'] = {key: p.detach() for key, p in parameters.items()}
    torch.save(record, out / f'{name}.pt')


if __name__ == '__main__':
    context = torch.multiprocessing.get_context('fork')
    for group in ([('one', 0)], [('rank0', 0), ('rank1', 1)]):
        processes = [context.Process(target=go, args=arguments) for arguments in group]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
"""
