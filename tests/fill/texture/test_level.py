"Which patches are sources and targets, and what a source becomes at twice the size"
import pytest
import torch

from fastinpaint.fill.texture.level import Level, blindness, depth, pyramid


def level(h=23, w=30, holes=((8, 12), (22, 0))):
    "A `Level` of random colours with holes of 3×3 pixels, and its hole"
    hole = torch.zeros(1, 1, h, w)
    for y, x in holes: hole[..., y:y + 3, x:x + 3] = 1
    image = torch.rand(1, 3, h, w, generator=torch.Generator().manual_seed(h))
    return Level(image, hole, image), hole[0, 0]


def test_patches_lie_within_the_image_and_are_targets_where_they_touch_the_hole():
    found, hole = level()
    patches = {(y, x): hole[y - 3:y + 4, x - 3:x + 4] for y in range(3, 20) for x in range(3, 27)}
    assert all(patch.shape == (7, 7) for patch in patches.values())
    for kind, touching in ("targets", True), ("sources", False):
        expected = [y*30 + x for (y, x), patch in patches.items() if patch.any() == touching]
        assert getattr(found, kind).tolist() == expected
    assert found.pixels.tolist() == hole.flatten().nonzero()[:, 0].tolist()


def test_a_match_leads_to_the_same_place_at_twice_the_size():
    small, _ = level(23, 30, [(10, 12)])
    large, _ = level(45, 60, [(20, 24), (21, 25)])  # an odd side was rounded up
    match = small.targets - 5*30 - 6  # up and to the left
    kept = small.is_source[match]
    found = small.doubled(torch.where(kept, match, -1), large)
    there = found >= 0
    assert there.float().mean() > .3 and large.is_source[found[there]].all()
    assert ((large.targets - found)[there] == 10*60 + 12).all()


def test_without_a_match_nothing_is_found():
    small, _ = level(23, 30, [(10, 12)])
    large, _ = level(46, 60, [(20, 24)])
    assert (small.doubled(torch.full_like(small.targets, -1), large) == -1).all()


def test_enlarging_changes_no_colour_of_a_flat_image():
    flat, hole = torch.full((1, 3, 20, 24), .4), torch.zeros(1, 1, 20, 24)
    hole[..., 5:9, 5:9] = 1
    small = Level(flat, hole, flat)
    large = Level(*(torch.nn.functional.interpolate(x, (39, 48)) for x in (flat, hole, flat)))
    assert torch.allclose(small.enlarged(large), torch.tensor(.4)) and len(large.pixels) == 64


@pytest.mark.parametrize("h, w", [(32, 40), (65, 301), (128, 128), (7, 500)])
def test_sizes_are_halved_and_keep_every_hole(h, w):
    image, hole = torch.rand(1, 3, h, w), torch.zeros(1, 1, h, w)
    hole[..., h//2, w//2] = 1
    sizes = pyramid(image, hole, blind=1)
    assert len(sizes) == depth((h, w)) and sizes[0][0] is image
    for image, hole, guide in sizes:
        assert hole.sum() == 1 and image.shape[2:] == guide.shape[2:] == hole.shape[2:]
    assert min(image.shape[2:]) < 64


def test_a_network_sees_less_of_a_larger_hole():
    hole = torch.zeros(300, 300, dtype=torch.bool).numpy()
    seen = []
    for side in 5, 60, 120, 240:
        hole[20:20 + side, 20:20 + side] = True
        seen.append(blindness(hole))
    assert seen[0] == 0 and seen == sorted(seen) and seen[3] == seen[2] + 1


def test_the_guide_expects_in_a_hole_the_contrast_around_it():
    image, hole = torch.full((1, 3, 48, 96), .5), torch.zeros(1, 1, 48, 96)
    image[..., 48:] += .4*(torch.arange(48) % 2*2 - 1)  # the right half is striped
    for x in 15, 70: hole[..., 18:30, x:x + 12] = 1
    image = torch.where(hole > 0, .5, image)
    _, _, guide = pyramid(image, hole, blind=0)[0]
    flat, striped = guide[0, 3, 24, 21], guide[0, 3, 24, 76]
    assert flat < .1*striped and torch.allclose(striped, guide[0, 3, 6, 90], rtol=.2)
