"Denoising latents: the loss that latent diffusion learns by"
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch

from ...core.device import evaluating
from ...core.errors import InputError
from ...core.ranks import rank, world
from ...models.latent_diffusion import LatentDiffusion, latent_diffusion
from ...models.load import load_model
from ...models.sampling import TIMESTEPS, noising
from ...models.upsampler import upsampler
from ..losses import Denoise
from .fit import FitCallback
from .freeze import FreezeSchedule


class Denoising(FitCallback):
    """Trains a `LatentDiffusion` to find noise, or velocity, in noisy latents of images (Ho et al. 2020).

    Of the weight `weight`, in place of all other terms; no training step decodes. `known` weighs latent
    pixels without a hole, those with one have 1. `min_snr` bounds the weight of timesteps by a
    signal-to-noise ratio (Hang et al. 2023); 0: all alike. Timesteps and noise depend on `seed` and the
    number of the step alone; in validation each batch has the same in every epoch. Latents are whitened by
    the first `images` training photographs, once for a model. Raises InputError for another network."""
    def __init__(self, weight=1., known=1., min_snr=5., seed=0, images=512):
        if known < 0 or min_snr < 0: raise InputError(f"denoising with {known=} and {min_snr=}: 0 or more")
        self.term, self.known, self.min_snr = Denoise(weight), known, min_snr
        self.seed, self.images = seed, images

    def change_terms(self, terms): return [self.term]

    @contextmanager
    def during_fit(self):
        if not isinstance(self.model, LatentDiffusion):
            raise InputError(f"{type(self.model).__name__} does not denoise: expected a latent_diffusion")
        self.noising = noising(self.model.prediction)
        yield

    def before_train(self):
        if not self.in_fit or self.model.measured: return
        batches = -(-self.images//(self.dls.train.bs*world()))
        with evaluating(net := self.model):  # which so far whitens nothing
            parts = [(net.encoder(net.pad(image)), net.condition_of(image, masked, mask))
                     for masked, mask, image, _ in islice(self.dls.train, batches)]
        latents, conditions = map(torch.cat, zip(*parts, strict=True))
        net.measure(latents, conditions[:, :-1], conditions[:, -1:])

    def before_batch(self):
        if not self.in_fit: return  # validation outside of a fit judges pixels
        step, net = self.learn.step, self.model
        with torch.no_grad():
            condition = net.condition_of(step.image, *self.xb)
            latent = net.clean(step.image, condition)
        timesteps, noise = self._drawn(latent)
        noisy = self.noising.add_noise(latent, noise, timesteps)
        velocity = self.noising.config.prediction_type == "v_prediction"
        step.target = self.noising.get_velocity(latent, noise, timesteps) if velocity else noise
        hole = condition[:, -1:]
        step.latent_weight = self._weights(timesteps, velocity)*(hole + self.known*(1 - hole))
        more = noisy, timesteps, condition
        if self.training: self.learn.xb = *self.xb, *more
        else: step.latent = net(*self.xb, *more)  # beside the fill, which metrics look at

    def after_pred(self):
        if self.in_fit and self.training: self.learn.step.latent = self.pred

    def _drawn(self, latent):
        "Timesteps `[B]` and noise like `latent`: this process's rows of those of the whole batch"
        at = [self.seed, self.training, self.train_iter if self.training else self.iter]
        rng, n = np.random.default_rng(at), len(latent)
        mine = slice(rank()*n, (rank() + 1)*n)
        timesteps = rng.integers(TIMESTEPS, size=world()*n)[mine]
        noise = rng.standard_normal((world()*n, *latent.shape[1:]), np.float32)[mine]
        return torch.from_numpy(timesteps).to(latent.device), torch.from_numpy(noise).to(latent)

    def _weights(self, timesteps, velocity):
        "`[B, 1, 1, 1]`"
        if not self.min_snr: return 1.
        signal = self.noising.alphas_cumprod.to(timesteps.device)[timesteps]
        ratio = signal/(1 - signal)
        # relative to the squared error of the image: times ratio for the noise, ratio + 1 for the velocity
        return (ratio.clamp(max=self.min_snr)/(ratio + velocity)).view(-1, 1, 1, 1)


def denoising_parts(s, stages, pixels=False, base=None):
    """What makes the network of a recipe with the `DiffusionSettings` `s`, and its callbacks.

    The U-Net has `stages`; it is frozen where a run goes on from a model by a ControlNet or mask control.
    With the file `base`, an upsampler of that model's fills. Raises as `load_model`."""
    control = None if s.control == "none" else s.control
    channels = [round(s.width_u*(1 + i/2)) for i in range(stages)]
    def model(width, linear, prefill, autoencoder, **_):
        if base is not None:
            return upsampler(load_model(base), channels, s.layers, s.prediction, s.sampler, s.sampling)
        return latent_diffusion(width, 3, linear, prefill, autoencoder, channels, s.layers, control,
                                s.prediction, s.sampler, s.sampling, s.delta and control is not None, pixels)
    frozen, images = dict(refiner__unet=(0, 1)) if s.init and control in ("controlnet", "mask") else {}, 512
    if base is not None: frozen, images = dict(base=(0, 1)), 64  # sixteen times as large, all held at once
    denoising = Denoising(known=s.known, min_snr=s.min_snr, seed=s.seed, images=images)
    return model, [FreezeSchedule(**frozen), denoising]
