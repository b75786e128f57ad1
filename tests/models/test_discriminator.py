"Parity of the discriminator, its losses and their gradients with the public implementation"
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from fastinpaint.models.discriminator import PatchGAN, load_discriminator, r1_penalty
from fastinpaint.train.callback.adversarial import discriminator_losses
from fastinpaint.train.losses import Adversarial, FeatureMatching
from fastinpaint.train.step import Step

FIXTURE = Path(__file__).parent.parent/"fixtures/discriminator_ndf8.safetensors"


def relative_error(a, b): return ((a - b).abs().max()/b.abs().max()).item()


@pytest.fixture
def stored(): return load_file(FIXTURE)


@pytest.fixture
def model(): return load_discriminator(FIXTURE).train()


def test_logits_and_features(stored, model):
    logits, features = model(stored["real"])
    assert relative_error(logits, stored["real_logits"]) < 1e-4
    assert len(features) == 5
    for i, f in enumerate(features): assert relative_error(f, stored[f"real_feature_{i}"]) < 1e-4
    assert relative_error(model(stored["fake"])[0], stored["fake_logits"]) < 1e-4


def test_the_generators_losses_and_their_gradient(stored, model):
    fake = stored["fake"].requires_grad_()
    adversarial, matching = Adversarial(10.), FeatureMatching(100.)
    step = Step(stored["real"], stored["mask"], prediction=fake)
    _, step.real_features = model(step.image)
    step.fake_logits, step.fake_features = model(fake)
    a, m = adversarial(step), matching(step)
    assert relative_error(10*a, stored["generator_adversarial_loss"]) < 1e-4
    assert relative_error(m, stored["feature_matching_loss"]) < 1e-4
    grad, = torch.autograd.grad(10*a + 100*m, fake)
    assert relative_error(grad, stored["generator_image_grad"]) < 1e-4


def test_the_discriminators_loss_and_every_gradient(stored, model):
    real = stored["real"].requires_grad_()
    real_logits, _ = model(real)
    fake_logits, _ = model(stored["fake"])
    penalty = 1e-3*r1_penalty(real_logits, real)
    assert relative_error(penalty, stored["r1_penalty"]) < 1e-4
    hole = F.interpolate(stored["mask"], fake_logits.shape[-2:])
    losses = discriminator_losses(real_logits, fake_logits, hole)
    loss = sum(losses.values()) + penalty
    assert relative_error(loss, stored["discriminator_loss"]) < 1e-4
    loss.backward()
    for name, p in model.named_parameters():
        head = name.startswith("head")
        stage = "model5.0." + name.split(".")[1] if head else name.replace("stages.", "model")
        expected = stored[f"discriminator_grad.{stage}"]
        # a bias before BatchNorm has no gradient but rounding
        scale = max(expected.abs().max().item(), 1e-3)
        assert (p.grad - expected).abs().max().item()/scale < 1e-4, name


@pytest.mark.parametrize("layers, size", [(1, 33), (3, 64), (4, 65)])
def test_other_depths_and_sizes(layers, size):
    logits, features = PatchGAN(2, layers)(torch.rand(2, 3, size, size))
    assert logits.shape[:2] == (2, 1) and len(features) == layers + 1


@pytest.mark.parametrize("wrong", [dict(width=0), dict(layers=0)])
def test_impossible_discriminators_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=0"): PatchGAN(**wrong)


def test_a_checkpoint_of_another_shape_is_named(stored, tmp_path):
    weights = {k: v for k, v in stored.items() if k.startswith("discriminator.")}
    odd = weights | {"discriminator.model2.0.weight": torch.zeros(5, 16, 4, 4)}
    save_file(odd, tmp_path/"odd.safetensors")
    message = r"odd.safetensors is a discriminator of another shape.*model2.0.weight"
    with pytest.raises(ValueError, match=message):
        load_discriminator(tmp_path/"odd.safetensors")
    save_file({"generator.model.1.weight": torch.zeros(1)}, tmp_path/"none.safetensors")
    with pytest.raises(ValueError, match="holds no PatchGAN"):
        load_discriminator(tmp_path/"none.safetensors")
    with pytest.raises(FileNotFoundError): load_discriminator(tmp_path/"missing.ckpt")
