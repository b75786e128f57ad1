import torch
from fastai.torch_core import TensorImage, TensorMask

from fastinpaint.data.augment import lama_augment


def plain(o): return o.as_subclass(torch.Tensor)


def test_augmentation_moves_image_and_mask_alike_and_keeps_the_contract():
    torch.manual_seed(0)
    mask = torch.zeros(16, 64, 64, dtype=torch.long)
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
    for tfm in lama_augment(): assert tfm(b, split_idx=1) is b
    assert torch.equal(state, torch.get_rng_state())
