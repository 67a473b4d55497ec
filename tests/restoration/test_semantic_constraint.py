"""L_SCL and the attention ratio compared with the same formulas as loops in float64."""

import math

import pytest
import torch

pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')

from rass_mm.diffusion.prompts import NOBODY  # noqa: E402 - after the check for mmagic
from rass_mm.errors import ConfigError  # noqa: E402
from rass_mm.restoration.losses import SemanticConstraintLoss, attention_ratio  # noqa: E402 - registers

# isort: split
from mmagic.registry import MODELS  # noqa: E402

IGNORED = 255
SIZES = {'mid_block.attn2': (4, 8), 'up_blocks.1.attn2': (16, 32)}
THIN, ABSENT, SPECK = 3, 5, 6
OWNERS = [
    [NOBODY, 0, 0, NOBODY, 1, 2, THIN, THIN, THIN, ABSENT, SPECK],
    [NOBODY, 1, NOBODY, 0, 0, 0, ABSENT, THIN, 2, 2, SPECK],
    [NOBODY, 2, NOBODY, 2, 1, 1, THIN, NOBODY, 0, SPECK, ABSENT],
]
"""Returns three prompts with classes of one, two and three tokens; class 4 is in the labels but has no token."""


def labels():
    """Returns (3, 32, 64) labels: blobs of classes 0 to 2 and 4, a line, a speck below 0.5 % and ignored pixels."""
    generator = torch.Generator().manual_seed(1)
    blobs = torch.tensor([0, 1, 2, 4])[torch.randint(4, (3, 8, 16), generator=generator)]
    label = blobs.repeat_interleave(4, 1).repeat_interleave(4, 2)
    label[:, :, 13] = THIN  # half of a cell at stride 2, an eighth at stride 8
    label[:, 2, 40:43] = SPECK
    label[torch.rand(label.shape, generator=generator) < 0.3] = IGNORED
    label[0, 8:16] = IGNORED  # a whole row of cells at stride 8
    return label


def attention(seed=0, dtype=torch.float32):
    """Returns layer -> (3, N, 11) probabilities that require gradients."""
    generator = torch.Generator().manual_seed(seed)
    maps = {}
    for name, (height, width) in SIZES.items():
        scores = 2 * torch.randn(3, height * width, len(OWNERS[0]), generator=generator)
        maps[name] = scores.softmax(-1).to(dtype).requires_grad_()
    return maps


def cells(label, size):
    """Returns the labels of each cell as a list, row by row."""
    high, wide = label.shape[0] // size[0], label.shape[1] // size[1]
    return [
        label[y * high : (y + 1) * high, x * wide : (x + 1) * wide].flatten().tolist()
        for y in range(size[0])
        for x in range(size[1])
    ]


def counting(label, owners, size, min_area):
    """Returns the counted cells, and the tokens and cells of each counted class."""
    everything = [i for i in label.flatten().tolist() if i != IGNORED]
    tiles = [[i for i in cell if i != IGNORED] for cell in cells(label, size)]
    full = label.numel() // len(tiles)
    counted = [n for n, tile in enumerate(tiles) if 2 * len(tile) >= full]
    found = []
    for index in sorted(set(owners) - {NOBODY}):
        if index not in everything or everything.count(index) < min_area * len(everything):
            continue
        held = [n for n in counted if 2 * tiles[n].count(index) >= len(tiles[n])]
        if held:
            found.append(([t for t, owner in enumerate(owners) if owner == index], held))
    return counted, found


def reference(maps, label, form='ratio', squared=True, pixel_weight=0.0, weight=1.0, min_area=0.005):
    """Computes the loss of float64 maps, term by term."""
    layers = []
    for name, probabilities in maps.items():
        terms = []
        for image, owners in enumerate(OWNERS):
            counted, found = counting(label[image], owners, SIZES[name], min_area)
            for tokens, held in found:
                values = {n: sum(probabilities[image, n, t] for t in tokens) for n in counted}
                terms.append(term(values, set(held), form, squared, pixel_weight))
        if terms:
            layers.append(sum(terms) / len(terms))
    return weight * sum(layers) / len(layers)


def term(values, held, form, squared, pixel_weight):
    inside, everywhere = sum(values[n] for n in held), sum(values.values())
    if form == 'ratio':
        missed = 1 - inside / (everywhere + 1e-8)
        loss = missed * missed if squared else missed
    else:
        low, high = min(values.values()), max(values.values())
        scaled = {n: (value - low) / (high - low + 1e-8) for n, value in values.items()}
        if form == 'mse':
            loss = sum((scaled[n] - int(n in held)) ** 2 for n in scaled) / len(scaled)
        else:
            overlap = 2 * sum(scaled[n] for n in held)
            loss = 1 - overlap / (sum(scaled.values()) + len(held) + 1e-8)
    crossed = -sum(torch.log(v) if n in held else torch.log(1 - v) for n, v in values.items()) / len(values)
    return loss + pixel_weight * crossed


def test_the_fixture_has_all_the_cases():
    """Checks that the line counts in one layer only, and that absent, tiny and unnamed classes never count."""
    label = labels()
    for image, owners in enumerate(OWNERS):
        fine, coarse = (
            {owners[tokens[0]] for tokens, _ in counting(label[image], owners, size, 0.005)[1]}
            for size in (SIZES['up_blocks.1.attn2'], SIZES['mid_block.attn2'])
        )
        assert THIN in fine and THIN not in coarse and {0, 1, 2} <= fine
        assert not (fine | coarse) & {ABSENT, SPECK, 4}
    assert len(counting(label[0], OWNERS[0], SIZES['mid_block.attn2'], 0.005)[0]) < 32


@pytest.mark.parametrize(
    'options',
    [
        {'form': 'ratio'},
        {'form': 'ratio', 'squared': False},
        {'form': 'ratio', 'pixel_weight': 0.3},
        {'form': 'mse'},
        {'form': 'dice'},
        {'form': 'dice', 'pixel_weight': 0.05},
    ],
    ids=lambda options: '-'.join(map(str, options.values())),
)
def test_each_form_and_its_gradient_equal_the_loop(options):
    maps, label = attention(), labels()
    loss = MODELS.build({'type': 'mmagic.SemanticConstraintLoss', 'loss_weight': 0.7, **options})
    value = loss(maps, torch.tensor(OWNERS), label)
    value.backward()
    exact = {name: part.detach().double().requires_grad_() for name, part in maps.items()}
    expected = reference(exact, label, weight=0.7, **options)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5) and value.item() > 0.01
    for name, part in maps.items():
        torch.testing.assert_close(part.grad.double(), exact[name].grad, rtol=1e-4, atol=1e-7)


def test_gradients_reach_the_tokens_of_counting_classes_only():
    maps = attention()
    SemanticConstraintLoss()(maps, torch.tensor(OWNERS), labels()).backward()
    for name, part in maps.items():
        for image, owners in enumerate(OWNERS):
            counts = {owners[tokens[0]] for tokens, _ in counting(labels()[image], owners, SIZES[name], 0.005)[1]}
            reached = part.grad[image].abs().sum(0) > 0
            assert reached.tolist() == [owner in counts for owner in owners]


def test_ignored_cells_and_the_start_tokens_share_do_not_matter():
    maps, label, owners = attention(), labels(), torch.tensor(OWNERS)
    before = SemanticConstraintLoss()(maps, owners, label).item()
    with torch.no_grad():
        maps['mid_block.attn2'][0, 8:16] = 0.5  # the row of ignored cells
        for part in maps.values():
            part[:, :, 1:] *= 0.01
            part[:, :, 0] = 1 - part[:, :, 1:].sum(-1)
    assert SemanticConstraintLoss()(maps, owners, label).item() == pytest.approx(before, rel=1e-4)


def test_attention_on_the_mask_costs_nothing_and_outside_it_everything():
    label = torch.zeros(1, 32, 64, dtype=torch.long)
    label[:, :, 32:] = 1
    maps = torch.zeros(1, 4, 8, 3)
    maps[..., :4, 1], maps[..., 4:, 2] = 1, 1
    owners = torch.tensor([[NOBODY, 0, 1]])
    for form in ('ratio', 'mse', 'dice'):
        loss = SemanticConstraintLoss(loss_weight=1.0, form=form)
        assert loss({'a': maps.flatten(1, 2)}, owners, label).item() == pytest.approx(0, abs=1e-6)
        assert loss({'a': maps.flip(2).flatten(1, 2)}, owners, label).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize('case', ['all ignored', 'no class of the image is named', 'below min_area'])
def test_nothing_that_counts_gives_exactly_zero_and_zero_gradients(case):
    maps, label, loss = attention(), labels(), SemanticConstraintLoss(pixel_weight=1.0)
    if case == 'all ignored':
        label[:] = IGNORED
    elif case == 'below min_area':
        loss = SemanticConstraintLoss(min_area=0.9)
    else:
        label[:] = 4
    value = loss(maps, torch.tensor(OWNERS), label)
    assert value.item() == 0 and value.requires_grad
    value.backward()
    assert all(torch.equal(part.grad, torch.zeros_like(part)) for part in maps.values())


def test_one_image_without_a_class_leaves_the_others_as_they_are():
    maps, label = attention(), labels()
    label[1] = IGNORED
    exact = {name: part.detach().double() for name, part in maps.items()}
    value = SemanticConstraintLoss(loss_weight=1.0)(maps, torch.tensor(OWNERS), label)
    assert value.item() == pytest.approx(reference(exact, label).item(), rel=1e-5)
    value.backward()
    for part in maps.values():
        assert not part.grad[1].any() and torch.isfinite(part.grad).all()


@pytest.mark.parametrize(('pixels', 'counts'), [(10, True), (9, False)])
def test_a_class_counts_from_half_a_percent_of_the_labelled_pixels(pixels, counts):
    label = torch.zeros(1, 32, 64, dtype=torch.long)
    label[0, 0, :48], label[0, 9, :pixels] = IGNORED, 1  # 2000 pixels are labelled
    maps = torch.rand(1, 32 * 64, 2).softmax(-1).requires_grad_()
    SemanticConstraintLoss()({'a': maps}, torch.tensor([[NOBODY, 1]]), label).backward()
    assert bool(maps.grad.any()) == counts


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_maps_are_compared_in_float32(dtype):
    maps, label = attention(dtype=dtype), labels()
    exact = {name: part.detach().double() for name, part in maps.items()}
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = SemanticConstraintLoss(loss_weight=1.0)(maps, torch.tensor(OWNERS), label)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(reference(exact, label).item(), rel=1e-5)


def test_large_batches_do_not_overflow_in_float16():
    """Uses 16 images of 64x64 positions with rows that sum to 1, for which a float16 sum exceeds 65504."""
    maps = torch.full((17, 64 * 64, 4), 0.25, dtype=torch.float16, requires_grad=True)
    owners, label = torch.tensor([[NOBODY, 0, 1, 2]]).expand(17, -1), torch.zeros(17, 64, 64, dtype=torch.long)
    value = SemanticConstraintLoss(loss_weight=1.0)({'a': maps}, owners, label)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6) and torch.isfinite(maps.grad).all()


def test_ratio_and_chance_equal_a_loop():
    maps, label = attention(), labels()
    label[2] = IGNORED
    ratio, chance = attention_ratio(maps, torch.tensor(OWNERS), label)
    for image, owners in enumerate(OWNERS[:2]):
        shares, areas = [], []
        for name, part in maps.items():
            counted, found = counting(label[image], owners, SIZES[name], 0.005)
            for tokens, held in found:
                values = {n: sum(part[image, n, t].item() for t in tokens) for n in counted}
                shares.append(sum(values[n] for n in held) / sum(values.values()))
                areas.append(len(held) / len(counted))
        assert ratio[image].item() == pytest.approx(sum(shares) / len(shares), rel=1e-5)
        assert chance[image].item() == pytest.approx(sum(areas) / len(areas), rel=1e-5)
    assert math.isnan(ratio[2]) and math.isnan(chance[2])
    assert not ratio.requires_grad


def test_even_attention_has_the_ratio_of_chance():
    maps = {name: torch.full((3, h * w, 11), 1 / 11) for name, (h, w) in SIZES.items()}
    ratio, chance = attention_ratio(maps, torch.tensor(OWNERS), labels())
    torch.testing.assert_close(ratio, chance)
    assert (chance > 0.05).all() and (chance < 0.95).all()


def test_another_form_is_refused():
    with pytest.raises(ConfigError, match="'cosine'.*ratio, mse, dice"):
        SemanticConstraintLoss(form='cosine')


def test_maps_that_do_not_tile_the_labels_are_refused():
    with pytest.raises(ConfigError, match='60 attention positions'):
        SemanticConstraintLoss()({'a': torch.rand(3, 60, 11)}, torch.tensor(OWNERS), labels())
