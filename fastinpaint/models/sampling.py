"From noise to latents by diffusers' schedulers; known latents may be imposed on the way (RePaint)"
from dataclasses import dataclass

import torch

from ..core.errors import InputError
from .denoiser import of_diffusers

SAMPLERS = {"ddim": "DDIMScheduler", "ddpm": "DDPMScheduler", "dpm++": "DPMSolverMultistepScheduler",
            "lcm": "LCMScheduler"}
PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction"}
STEPLESS = "ddim", "ddpm"  # samplers that know nothing of the step before, and so may repeat one
TIMESTEPS = 1000
# Stable Diffusion's, in betas; the spacing is that of Lin et al. (2024), which begins at the noisiest
NOISE = dict(num_train_timesteps=TIMESTEPS, beta_schedule="scaled_linear", beta_start=.00085, beta_end=.012,
             clip_sample=False, timestep_spacing="trailing")


@dataclass(frozen=True)
class Sampling:
    """How a diffusion model fills. Raises InputError for values that no sampler takes.

    `strength` below 1 begins with as much less noise on what the encoder sees in the hole. `repaint` above 0
    imposes the known latents after every step (Lugmayr et al. 2022), and above 1 goes through each step so
    often, with noise in between."""
    sampler: str = "dpm++"
    steps: int = 20
    seed: int = 0
    strength: float = 1.
    repaint: int = 0

    def __post_init__(self):
        if self.sampler not in SAMPLERS:
            raise InputError(f"no sampler {self.sampler!r}: expected {', '.join(SAMPLERS)}")
        if not 1 <= self.steps <= TIMESTEPS:
            raise InputError(f"no sampling in {self.steps} steps: expected 1 to {TIMESTEPS}")
        if not 0 < self.strength <= 1: raise InputError(f"strength {self.strength}: it is in (0, 1]")
        if self.repaint < 0 or self.repaint > 1 and self.sampler not in STEPLESS:
            raise InputError(f"repaint={self.repaint} with the sampler {self.sampler!r}: expected 0, 1, or, "
                             f"with {' or '.join(STEPLESS)}, more")


def noising(prediction):
    "The scheduler that adds noise in training, of a model that predicts one of `PREDICTIONS`"
    return of_diffusers("DDPMScheduler")(**NOISE, prediction_type=PREDICTIONS[prediction])


def sampler(name, prediction):
    "The scheduler of `SAMPLERS` that undoes what `noising` does"
    more = dict(original_inference_steps=TIMESTEPS) if name == "lcm" else {}  # it takes as many at most
    return of_diffusers(SAMPLERS[name]).from_config(noising(prediction).config, **more)


def sampled(denoise, latent, known, sampling, prediction, seed=None):
    """Latents `[B, C, h, w]` of unit variance, from noise by `denoise(noisy, timesteps)`.

    `latent` is what is known of them, right where `known` `[B, 1, h, w]` is True. What becomes of an image
    depends on the `seed` (default: that of `sampling`) alone, not on its place in the batch or the device."""
    s, seed = sampling, sampling.seed if seed is None else seed
    of_image = [torch.Generator().manual_seed(seed) for _ in latent]
    def noise(): return torch.stack([torch.randn(latent[0].shape, generator=g) for g in of_image]).to(latent)
    scheduler = sampler(s.sampler, prediction)
    scheduler.set_timesteps(s.steps, device=latent.device)
    skipped = s.steps - max(round(s.steps*s.strength), 1)
    if hasattr(scheduler, "set_begin_index"): scheduler.set_begin_index(skipped)
    times = scheduler.timesteps[skipped:]
    x = scheduler.add_noise(latent, noise(), times[:1]) if skipped else noise()*scheduler.init_noise_sigma
    for i, t in enumerate(times):
        then = times[i + 1:i + 2]  # none after the last
        for repeat in range(max(s.repaint, 1)):
            if repeat: x = renoised(x, noise(), *(scheduler.alphas_cumprod[o] for o in (t, then[0])))
            pred = denoise(scheduler.scale_model_input(x, t), t).to(x)
            x = scheduler.step(pred, t, x, generator=of_image, return_dict=False)[0]
            if s.repaint:
                right = scheduler.add_noise(latent, noise(), then) if len(then) else latent
                x = torch.where(known, right, x)
            if not len(then): break
    return x


def renoised(x, noise, share, share_then):
    "`x`, whose signal has the share `share_then` of the variance, with the `noise` that leaves it `share`"
    kept = share/share_then
    return kept.sqrt().to(x)*x + (1 - kept).sqrt().to(x)*noise
