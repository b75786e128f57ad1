import colorsys

import pytest
import torch
from fastai.torch_core import TensorImage, TensorMask

from fastinpaint.data.augment import (
    affine_mat,
    brightness_contrast,
    hue_saturation_value,
    lama_augment,
    perspective_mat,
    warp_grid,
)


def plain(o): return o.as_subclass(torch.Tensor)


def test_augmentation_moves_image_and_mask_alike_and_keeps_the_contract():
    torch.manual_seed(0)
    mask = torch.zeros(64, 64, 64, dtype=torch.long)
    mask[:, 20:40, 20:40] = 1
    image = mask[:, None].float().repeat(1, 3, 1, 1) * 0.8 + 0.1
    space, light = lama_augment()
    y, m = space((TensorImage(image), TensorMask(mask)), split_idx=0)
    assert isinstance(y, TensorImage) and isinstance(m, TensorMask) and m.dtype == torch.long
    assert ((plain(y)[:, 0] > 0.5) ^ (plain(m) == 1)).float().mean() < 0.01
    assert (m != mask).flatten(1).any(1).float().mean() > 0.8
    z, m2 = light((y, m), split_idx=0)
    assert torch.equal(m, m2) and not torch.equal(y, z) and 0 <= z.min() and z.max() <= 1


def test_a_pair_keeps_its_hole():
    torch.manual_seed(0)
    mask = torch.zeros(64, 32, 32, dtype=torch.long)
    mask[:, 0, 0] = 1  # a corner, which most turns lose
    _, m = lama_augment()[0]((TensorImage(torch.rand(64, 3, 32, 32)), TensorMask(mask)),
                             split_idx=0)
    assert m.flatten(1).any(1).all()


def test_validation_batches_are_not_augmented():
    b = TensorImage(torch.rand(2, 3, 8, 8)), TensorMask(torch.ones(2, 8, 8))
    state = torch.get_rng_state()
    for tfm in lama_augment(): assert all(map(torch.equal, tfm(b, split_idx=1), b))
    assert torch.equal(state, torch.get_rng_state())


def test_drawn_holes_stay_where_they_are():
    b = TensorImage(torch.rand(4, 3, 16, 16)), TensorMask(torch.rand(4, 16, 16) > 0.5).long()
    y, m = lama_augment(moves_masks=False)[0](b, split_idx=0)
    assert torch.equal(plain(m), plain(b[1])) and not torch.equal(y, b[0])


# LaMa's ranges

batch = torch.zeros(4000, 3, 1, 1)


def half_unchanged(changed): return changed.float().mean() == pytest.approx(0.5, abs=0.05)


def test_half_of_the_images_are_scaled_along_each_axis_and_turned():
    torch.manual_seed(0)
    mats = affine_mat(batch)
    changed = (mats != torch.eye(3)).flatten(1).any(1)
    assert half_unchanged(changed) and (mats[:, 2] == torch.tensor([0., 0, 1])).all()
    rows = mats[changed, :2, :2]  # of a point of the result: turned back, then divided by the scales
    scales = 1 / rows.norm(dim=2)
    assert 0.7 <= scales.min() < 0.71 and 1.29 < scales.max() <= 1.3
    assert scales.T.corrcoef()[0, 1].abs() < 0.1
    assert (rows[:, 0] * rows[:, 1]).sum(1).abs().max() < 1e-5  # no shear
    degrees = torch.atan2(rows[:, 0, 1], rows[:, 0, 0]).rad2deg()
    assert -40 <= degrees.min() < -39 and 39 < degrees.max() <= 40


def test_perspective_cuts_corners_off_half_of_the_images():
    torch.manual_seed(0)
    corners = torch.tensor([[-1., -1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, 1]]).T
    seen = perspective_mat(batch) @ corners
    moved = 1 - (seen[:, :2] / seen[:, 2:]) * corners[:2]
    assert half_unchanged((moved.abs() > 1e-4).flatten(1).any(1)) and moved.min() > -1e-4
    # in sides: of |N(0, s)| with s of 0 to 0.06, half of the time, the mean is 0.03 * sqrt(2 / pi) / 2
    assert moved.mean() / 2 == pytest.approx(0.012, abs=0.001)


def test_distortion_is_opencvs():
    cv2 = pytest.importorskip("cv2")
    k, size, distortion = 0.05, 64, torch.tensor([0.05, 0.05, 0, 0]).numpy()
    camera = torch.tensor([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1]]).double().numpy()
    x, y = cv2.initUndistortRectifyMap(camera, distortion, None, camera, (size, size), cv2.CV_32FC1)
    grid = warp_grid(torch.eye(3)[None], torch.tensor([k]), size + 1, size + 1)[0, :-1, :-1]
    expected = torch.stack((torch.from_numpy(x), torch.from_numpy(y)), -1) / (size / 2) - 1
    assert (grid - expected).abs().max() < 1e-5


def test_brightness_and_contrast_of_half_of_the_images():
    torch.manual_seed(0)
    for grey, low, high in (0.5, 0.2, 0.8), (0.1, 0, 0.32), (0.9, 0.52, 1):
        y = brightness_contrast(batch + grey)
        assert (y == y[:, :1]).all() and half_unchanged(y[:, 0] != batch[:, 0] + grey)
        assert low <= y.min() < low + 0.02 and high - 0.02 < y.max() <= high


def test_hue_saturation_and_value_of_half_of_the_images():
    torch.manual_seed(0)
    colour = torch.tensor((0.6, 0.4, 0.3))
    y = hue_saturation_value(batch + colour[:, None, None])[..., 0, 0]
    assert half_unchanged((y - colour).abs().amax(1) > 1e-5)
    before, *after = (torch.tensor(colorsys.rgb_to_hsv(*o)) for o in [colour.tolist(), *y.tolist()])
    shifts, most = torch.stack(after) - before, torch.tensor((10 / 360, 30 / 255, 5 / 255))
    for found in -shifts.amin(0), shifts.amax(0):  # hue to a degree or so
        assert (found <= most * torch.tensor((1.15, 1.0001, 1.0001))).all() and (found > 0.9 * most).all()


def test_grey_stays_grey():
    x = torch.linspace(0, 1, 4000).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    y = hue_saturation_value(x)
    assert (y.amax(1) - y.amin(1)).max() < 1e-4 and (y - x).abs().max() <= 5 / 255 + 1e-5
