"From noise to latents"
import pytest
import torch

from fastinpaint.core.errors import InputError
from fastinpaint.models.sampling import SAMPLERS, Sampling, noising, renoised, sampled

diffusers = pytest.importorskip("diffusers")


@pytest.fixture
def latent():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4, 4)


@pytest.fixture
def known():
    found = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    found[..., :2] = True
    return found


def denoise(x, t): return .3*x.tanh() + t/2000


@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_are_those_of_diffusers(latent, known, name):
    "Its loop, written out"
    more = dict(original_inference_steps=1000) if name == "lcm" else {}
    if name != "dpm++": more["clip_sample"] = False
    theirs = getattr(diffusers, SAMPLERS[name])(
        num_train_timesteps=1000, beta_start=.00085, beta_end=.012, beta_schedule="scaled_linear",
        prediction_type="v_prediction", timestep_spacing="trailing", **more)
    theirs.set_timesteps(5)
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(1, 3, 4, 4, generator=generator)
    for t in theirs.timesteps: x = theirs.step(denoise(x, t), t, x, generator=generator).prev_sample
    ours = sampled(denoise, latent[:1], known[:1], Sampling(name, 5, seed=7), "v")
    assert torch.equal(ours, x)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_fill_depends_on_the_seed_and_not_on_the_batch(latent, known, name):
    def run(some, seed, given=None):
        return sampled(denoise, latent[some], known[some], Sampling(name, 4, seed=seed), "epsilon", given)
    both = run(slice(None), 1)
    assert torch.equal(both[1:], run(slice(1, None), 1)) and torch.equal(both, run(slice(None), 0, given=1))
    assert not torch.equal(both, run(slice(None), 2))


@pytest.mark.parametrize("name, repaint", [(name, 1) for name in SAMPLERS] + [("ddim", 3), ("ddpm", 3)])
def test_known_latents_are_imposed(latent, known, name, repaint):
    seen = []
    def watched(x, t):
        seen.append(x)
        return denoise(x, t)
    found = sampled(watched, latent, known, Sampling(name, 5, repaint=repaint), "v")
    where = known.expand_as(found)
    assert torch.equal(found[where], latent[where]) and not torch.equal(found[~where], latent[~where])
    assert len(seen) == 4*repaint + 1  # nothing follows the last step that could be gone through again
    # what is known comes nearer from step to step, whatever the denoiser makes of it
    errors = [(x - latent)[where].std() for x in seen[repaint::repaint]]
    assert all(a > b for a, b in zip(errors, errors[1:], strict=False))


def test_noise_is_added_again_as_from_the_beginning():
    "Signal and variance are those of the noisier step"
    torch.manual_seed(0)
    scheduler, noise = noising("v"), torch.randn(2, 1, 1, 500, 500)
    image, (little, much) = torch.ones(1, 1, 500, 500), torch.tensor([[100], [400]])
    x = scheduler.add_noise(image, noise[0], little)
    again = renoised(x, noise[1], *(scheduler.alphas_cumprod[t] for t in (400, 100)))
    direct = scheduler.add_noise(image, noise[1], much)
    for moment in torch.mean, torch.std: assert (moment(again) - moment(direct)).abs() < .005


@pytest.mark.parametrize("name", SAMPLERS)
def test_little_strength_stays_near_what_was_given(latent, known, name):
    scheduler, times = noising("v"), []
    def right(x, t):
        times.append(int(t))
        share = scheduler.alphas_cumprod[t.long()]
        return scheduler.get_velocity(latent, (x - share.sqrt()*latent)/(1 - share).sqrt(), t[None])
    found = sampled(right, latent, known, Sampling(name, 10, strength=.3), "v")
    assert len(times) == 3 and max(times) < 400
    assert (found - latent).abs().max() < .1


@pytest.mark.parametrize("wrong, words", [
    (dict(steps=0), "in 0 steps"), (dict(steps=1001), "1001"), (dict(sampler="magic"), "magic.*ddim, ddpm"),
    (dict(strength=0.), "strength 0"), (dict(strength=1.5), "strength 1.5"), (dict(repaint=-1), "repaint=-1"),
    (dict(repaint=2), "repaint=2 with the sampler 'dpm\\+\\+'")])
def test_what_no_sampler_takes_is_refused(wrong, words):
    with pytest.raises(InputError, match=words): Sampling(**wrong)
