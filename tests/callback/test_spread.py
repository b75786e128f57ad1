"The basis in which recipes compare latents"
import torch

from fastinpaint.callback.latent import spread_energy


def test_spreading_keeps_distances():
    a, b = torch.rand(2, 2, 12, 3, 5)
    torch.testing.assert_close((spread_energy(a) - spread_energy(b)).square().sum(), (a - b).square().sum())


def test_the_first_channel_reaches_every_coordinate_alike():
    latent = torch.zeros(1, 16, 1, 1)
    latent[:, 0] = 1
    torch.testing.assert_close(spread_energy(latent), torch.full_like(latent, .25))
