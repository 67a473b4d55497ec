"""VSD with one shared UNet compared with three separate UNets in float64 with an explicit LoRA."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from peft.tuners.tuners_utils import BaseTunerLayer

pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')

from rass_mm.diffusion.adapters import AdapterSpec  # noqa: E402 - after the check for mmagic
from rass_mm.diffusion.base import read_base  # noqa: E402
from rass_mm.diffusion.base_loading import load_unet  # noqa: E402
from rass_mm.diffusion.one_step import cumulated_alphas  # noqa: E402
from rass_mm.diffusion.shared_unet import SharedUNet  # noqa: E402
from rass_mm.errors import AdapterError  # noqa: E402
from rass_mm.restoration.losses.vsd import VSDLoss, add_noise  # noqa: E402

LORA = {'scr': AdapterSpec(rank=4, alpha=8), 'vsd': AdapterSpec(rank=2, alpha=6)}
"""Shared UNet with different scales of generator (2) and critic (3), so that confusing them is detected."""


@pytest.fixture(scope='module')
def base(tiny_base):
    return read_base(tiny_base)


@pytest.fixture(scope='module')
def alphas(base):
    return cumulated_alphas(base.configs['scheduler'])


@pytest.fixture(scope='module')
def shared(base, alphas):
    """Shared UNet after some steps of both adapters."""
    torch.manual_seed(0)
    shared = SharedUNet(load_unet(base), LORA['scr'], LORA['vsd'])
    optimizers = {name: torch.optim.AdamW(shared.parameters_of(name), lr=5e-3) for name in LORA}
    latent, context, negative = inputs(base)
    for _ in range(3):
        restored = generate(shared.unet, latent, context)
        (VSDLoss()(shared, alphas, restored, context, negative) + restored.square().mean()).backward()
        step(optimizers['scr'])
        with shared.critic():
            VSDLoss().critic_loss(shared, alphas, restored, context).backward()
        step(optimizers['vsd'])
    return shared


@pytest.fixture(autouse=True)
def no_gradients_left(shared):
    shared.unet.zero_grad(set_to_none=True)
    shared.plain_conv_in.zero_grad(set_to_none=True)


def step(optimizer):
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def inputs(base, dtype=torch.float32):
    """Returns latent, prompt and negative prompt of three images."""
    generator = torch.Generator().manual_seed(3)
    width = base.context_width
    latent = torch.randn(3, base.configs['unet']['in_channels'], 8, 16, generator=generator)
    context, negative = torch.randn(3, 5, width, generator=generator), torch.randn(3, 7, width, generator=generator)
    return latent.to(dtype), context.to(dtype), negative.to(dtype)


def generate(unet, latent, context):
    return latent - unet(latent, 1, encoder_hidden_states=context).sample


class SeparateUNet:
    """Returns a float64 copy of the base UNet with LoRA (W + alpha/rank B A) and `conv_in`, without peft."""

    def __init__(self, base, shared=None, name=None):
        self.unet = load_unet(base).double()
        self.weights = dict(self.unet.named_parameters())
        self.trained = {}
        if name is None:
            return
        state = {key: value.detach().double() for key, value in shared.unet.state_dict().items()}
        for key, value in state.items():
            if f'.lora_A.{name}.' in key or f'.lora_B.{name}.' in key:
                self.trained[key] = value.clone().requires_grad_()
        if name == 'scr':
            for part in ('weight', 'bias'):
                self.trained[f'conv_in.base_layer.{part}'] = state[f'conv_in.base_layer.{part}'].requires_grad_()
                self.weights[f'conv_in.{part}'] = self.trained[f'conv_in.base_layer.{part}']
        scale = LORA[name].alpha / LORA[name].rank
        for key, a in self.trained.items():
            if '.lora_A.' in key:
                layer, b = key.split('.lora_A.')[0], self.trained[key.replace('.lora_A.', '.lora_B.')]
                update = torch.einsum('or,rihw->oihw', b[:, :, 0, 0], a) if a.ndim == 4 else b @ a
                self.weights[f'{layer}.weight'] = self.weights[f'{layer}.weight'] + scale * update

    def __call__(self, latent, timesteps, context):
        arguments = {'encoder_hidden_states': context, 'return_dict': False}
        return torch.func.functional_call(self.unet, self.weights, (latent, timesteps), arguments)[0]


@contextlib.contextmanager
def recorded_calls(unet):
    """Context manager. Records the arguments of UNet calls: (noisy latents, timesteps, context)."""
    calls = []

    def hook(_module, positional, named):
        calls.append((positional[0].detach(), positional[1], named['encoder_hidden_states']))

    handle = unet.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def trained_gradients(shared, name):
    """Returns name -> gradient of the trained parameters; all others must have none."""
    wanted = {id(parameter) for parameter in shared.parameters_of(name)}
    found = {key: p.grad for key, p in shared.unet.named_parameters() if p.grad is not None}
    assert {id(p) for p in shared.unet.parameters() if p.grad is not None} == wanted
    assert all(parameter.grad is None for parameter in shared.plain_conv_in.parameters())
    return found


def assert_same_gradients(found, expected):
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values()).item()
    assert largest > 1e-3
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key].double(), gradient, rtol=1e-4, atol=1e-5 * largest, msg=key)


def test_the_adapters_and_conv_in_have_moved(shared, base):
    assert (shared.unet.conv_in.base_layer.weight - load_unet(base).conv_in.weight).abs().max() > 1e-3
    for name in LORA:
        moved = [p for key, p in shared.unet.named_parameters() if f'.lora_B.{name}.' in key]
        assert all(parameter.abs().max() > 1e-3 for parameter in moved)


def test_loss_and_gradients_equal_three_separate_unets(shared, base, alphas):
    latent, context, negative = inputs(base)
    restored = generate(shared.unet, latent, context)
    restored.retain_grad()
    torch.manual_seed(5)
    with recorded_calls(shared.unet) as calls:
        loss = VSDLoss(loss_weight=0.5)(shared, alphas, restored, context, negative)
    loss.backward()
    (noisy, steps, _), *others = calls
    assert len(calls) == 3 and all(torch.equal(other[0], noisy) and torch.equal(other[1], steps) for other in others)
    noise = (noisy - alphas[steps].sqrt().view(-1, 1, 1, 1) * restored) / (1 - alphas[steps]).sqrt().view(-1, 1, 1, 1)
    assert abs(noise.mean().item()) < 0.1 and abs(noise.std().item() - 1) < 0.1

    generator, critic, teacher = (
        SeparateUNet(base, shared, 'scr'),
        SeparateUNet(base, shared, 'vsd'),
        SeparateUNet(base),
    )
    latent, context, negative, noisy, a = (
        part.double() for part in (latent, context, negative, noisy, alphas[steps].view(-1, 1, 1, 1))
    )
    mine = latent - generator(latent, torch.tensor(1), context)
    mine.retain_grad()
    with torch.no_grad():
        x_reg = (noisy - (1 - a).sqrt() * critic(noisy, steps, context)) / a.sqrt()
        away, towards = teacher(noisy, steps, negative), teacher(noisy, steps, context)
        x_fix = (noisy - (1 - a).sqrt() * (away + 7.5 * (towards - away))) / a.sqrt()
        w = torch.stack([(z - x).abs().mean() for z, x in zip(mine, x_fix, strict=True)]).view(-1, 1, 1, 1)
        target = mine - (x_reg - x_fix) / w
    expected = 0.5 * (mine - target).square().mean()
    expected.backward()
    assert expected.item() > 1e-3
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(restored.grad.double(), mine.grad, rtol=1e-4, atol=1e-5 * mine.grad.abs().max().item())
    assert_same_gradients(trained_gradients(shared, 'scr'), {key: p.grad for key, p in generator.trained.items()})


def test_critic_loss_and_gradients_equal_a_separate_unet(shared, base, alphas):
    latent, context, _ = inputs(base)
    restored = generate(shared.unet, latent, context)
    torch.manual_seed(6)
    with shared.critic(), recorded_calls(shared.unet) as calls:
        loss = VSDLoss().critic_loss(shared, alphas, restored, context)
        loss.backward()
    [(noisy, steps, seen)] = calls
    assert torch.equal(seen, context)
    critic = SeparateUNet(base, shared, 'vsd')
    noisy, a, restored = (p.detach().double() for p in (noisy, alphas[steps].view(-1, 1, 1, 1), restored))
    noise = (noisy - a.sqrt() * restored) / (1 - a).sqrt()
    expected = (critic(noisy, steps, context.double()) - noise).square().mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradients(trained_gradients(shared, 'vsd'), {key: p.grad for key, p in critic.trained.items()})


def test_teacher_and_critic_have_the_bases_conv_in(shared, base):
    latent, context, _ = inputs(base)
    steps = torch.tensor([20, 500, 979])
    with torch.no_grad():
        with shared.teacher():
            teacher = shared.unet(latent, steps, encoder_hidden_states=context).sample
        with shared.critic():
            critic = shared.unet(latent, steps, encoder_hidden_states=context).sample
        alone = load_unet(base)(latent, steps, encoder_hidden_states=context).sample
        other = SeparateUNet(base, shared, 'vsd')(latent.double(), steps, context.double())
    torch.testing.assert_close(teacher, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(critic.double(), other, rtol=0, atol=1e-5)
    assert (critic - teacher).abs().max() > 1e-2


def test_training_the_critic_leaves_the_generator_bit_equal(base, alphas):
    torch.manual_seed(0)
    shared = SharedUNet(load_unet(base), LORA['scr'], LORA['vsd'])
    latent, context, _ = inputs(base)
    optimizer = torch.optim.AdamW(shared.parameters_of('scr'), lr=1e-3)
    generate(shared.unet, latent, context).square().mean().backward()
    step(optimizer)
    with torch.no_grad():
        before = generate(shared.unet, latent, context)
    optimizer = torch.optim.AdamW(shared.parameters_of('vsd'), lr=1e-2)
    losses = []
    for _ in range(6):
        torch.manual_seed(1)
        with shared.critic():
            loss = VSDLoss().critic_loss(shared, alphas, before, context)
            loss.backward()
            step(optimizer)
        losses.append(loss.item())
    with torch.no_grad():
        assert torch.equal(generate(shared.unet, latent, context), before)
    assert losses[-1] < losses[0] - 0.02


def state_of(shared):
    """Returns everything that a switch changes."""
    layers = [module for module in shared.unet.modules() if isinstance(module, BaseTunerLayer)]
    return (
        [(name, parameter.requires_grad) for name, parameter in shared.unet.named_parameters()],
        [(tuple(layer.active_adapters), layer.disable_adapters) for layer in layers],
        id(shared.unet.conv_in.base_layer),
        sorted(shared.unet.state_dict()),
    )


@pytest.mark.parametrize('context', ['critic', 'teacher'])
@pytest.mark.parametrize('broken', [False, True])
def test_a_switch_leaves_everything_as_it_was(shared, context, broken):
    before = state_of(shared)
    with contextlib.suppress(KeyError), getattr(shared, context)():
        assert state_of(shared) != before
        if broken:
            raise KeyError('inside')
    assert state_of(shared) == before
    shared.parameters_of('scr')[0].requires_grad_(False)  # set by a caller
    frozen = state_of(shared)
    with contextlib.suppress(KeyError), getattr(shared, context)():
        if broken:
            raise KeyError('inside')
    assert state_of(shared) == frozen
    shared.parameters_of('scr')[0].requires_grad_(True)


def test_only_the_adapters_and_the_generators_conv_in_train(shared):
    trained = {id(p) for name in LORA for p in shared.parameters_of(name)}
    assert {id(p) for p in shared.unet.parameters() if p.requires_grad} == trained
    assert not set(map(id, shared.parameters_of('scr'))) & set(map(id, shared.parameters_of('vsd')))
    assert not any(parameter.requires_grad for parameter in shared.plain_conv_in.parameters())


def test_without_a_critic_there_is_a_teacher_but_no_critic(base):
    shared = SharedUNet(load_unet(base))
    latent, context, _ = inputs(base)
    with torch.no_grad(), shared.teacher():
        teacher = shared.unet(latent, 1, encoder_hidden_states=context).sample
    torch.testing.assert_close(teacher, load_unet(base)(latent, 1, encoder_hidden_states=context).sample)
    with pytest.raises(AdapterError, match='This UNet has no critic'), shared.critic():
        pass


class Silent(torch.nn.Module):
    """Fake UNet that predicts zeros and records its arguments."""

    dtype = torch.float32

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, latent, timesteps, encoder_hidden_states, return_dict):
        self.calls.append((latent, timesteps))
        return (torch.zeros_like(latent),)


def silent():
    nothing = contextlib.nullcontext
    return SimpleNamespace(unet=Silent(), critic=nothing, teacher=nothing)


def test_timesteps_are_drawn_from_the_published_ranges(alphas):
    latent, context = torch.ones(20_000, 1, 1, 1), torch.zeros(20_000, 1, 1)
    shared = silent()
    VSDLoss()(shared, alphas, latent, context, context)
    steps = shared.unet.calls[0][1]
    assert (steps.min(), steps.max()) == (20, 979)
    VSDLoss().critic_loss(shared, alphas, latent, context)
    steps = shared.unet.calls[-1][1]
    assert (steps.min(), steps.max()) == (0, 999)


def test_noise_levels_equal_the_schedulers(base, alphas):
    scheduler = DDPMScheduler.from_config(base.configs['scheduler'])
    latent, noise, steps = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3), torch.tensor([0, 20, 500, 999])
    torch.testing.assert_close(add_noise(latent, noise, steps, alphas), scheduler.add_noise(latent, noise, steps))


def test_half_precision_latents_keep_the_noise_of_early_timesteps(alphas, monkeypatch):
    """The first 10 cumulative alphas round to 1 in bfloat16."""
    monkeypatch.setattr(torch, 'randint', lambda *args, device: torch.arange(10))
    latent, context, shared = torch.zeros(10, 4, 32, 32, dtype=torch.bfloat16), torch.zeros(10, 1, 1), silent()
    loss = VSDLoss().critic_loss(shared, alphas, latent, context)
    assert alphas[:2].bfloat16().eq(1).all()
    noisy = shared.unet.calls[0][0]
    torch.testing.assert_close(noisy.std((1, 2, 3)), (1 - alphas[:10]).sqrt(), rtol=0.05, atol=0)
    assert loss.dtype == torch.float32


def test_a_pure_half_precision_unet_is_called_in_its_own_type(alphas):
    shared = silent()
    shared.unet.dtype = torch.bfloat16
    latent, context = torch.randn(2, 4, 8, 8).bfloat16(), torch.zeros(2, 1, 1).bfloat16()
    assert torch.isfinite(VSDLoss()(shared, alphas, latent, context, context))
    assert all(call[0].dtype == torch.bfloat16 for call in shared.unet.calls)


def test_a_latent_equal_to_the_teachers_estimate_gives_no_infinity(alphas):
    """x_fix equals z, so the denominator of the weight is 0."""
    latent = torch.zeros(2, 1, 1, 1, requires_grad=True)
    shared = silent()
    shared.unet.forward = lambda latent, steps, **_: (latent / (1 - alphas[steps]).sqrt().view(-1, 1, 1, 1),)
    loss = VSDLoss()(shared, alphas, latent, torch.zeros(2, 1, 1), torch.zeros(2, 1, 1))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(latent.grad).all()


def test_times_are_drawn_from_the_given_range(shared, base, alphas, monkeypatch):
    drawn = []
    noisy = 'rass_mm.restoration.losses.vsd.add_noise'
    monkeypatch.setattr(noisy, lambda latent, noise, times, alphas: drawn.extend(times.tolist()) or latent)
    latent, context, negative = inputs(base)
    torch.manual_seed(0)
    for _ in range(4):
        VSDLoss(timesteps=(7, 9))(shared, alphas, latent, context, negative)
    assert len(drawn) == 12 and set(drawn) == {7, 8}
