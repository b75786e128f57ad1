"How a diffusion U-Net is told of the hole"
import sys

import pytest
import torch

from fastinpaint.core.errors import InputError, MissingPackage
from fastinpaint.models.denoiser import Denoiser, with_control

diffusers = pytest.importorskip("diffusers")
CHANNELS = 8, 16


def make(control, seed=0):
    torch.manual_seed(seed)
    return Denoiser(4, CHANNELS, 1, control).eval()


@pytest.fixture
def given():
    "Noisy latents, timesteps, and two conditions"
    torch.manual_seed(1)
    return torch.randn(2, 4, 8, 12), torch.tensor([5, 900]), *torch.randn(2, 2, 5, 8, 12)


@torch.no_grad()
@pytest.mark.parametrize("control", ["controlnet", "mask"])
def test_control_changes_no_bit_at_first_and_then_reaches_every_stage(given, control):
    noisy, t, condition, other = given
    free = make(None)
    controlled = with_control(free, make(control, seed=1)).train(False)
    assert torch.equal(free(noisy, t, condition), free(noisy, t, other))
    assert torch.equal(controlled(noisy, t, condition), free(noisy, t, condition))
    zeros = [p for p in controlled.control.parameters() if not p.any() and p.ndim == 4]
    stages = [p for p in zeros if p.shape[-1] == 1]
    assert len(stages) == {"controlnet": 5, "mask": 2}[control]
    for p in stages:
        p.normal_()
        assert not torch.equal(controlled(noisy, t, condition), free(noisy, t, condition))
        p.zero_()
    for p in zeros: p.normal_()
    assert not torch.equal(controlled(noisy, t, condition), controlled(noisy, t, other))


@torch.no_grad()
def test_a_controlnet_is_diffusers_own(given):
    noisy, t, condition, _ = given
    free = make(None)
    controlled = with_control(free, make("controlnet", seed=1))
    theirs = diffusers.ControlNetModel.from_unet(free.unet, conditioning_channels=5,
                                                 conditioning_embedding_out_channels=(8,))
    for name, p in theirs.named_parameters():
        mine = controlled.control.get_parameter(name)
        if "cond_embedding" in name or not p.any(): p.copy_(mine.normal_(std=.1))
        assert torch.equal(p, mine), name
    down, mid = theirs(noisy, t, None, condition, return_dict=False)
    expected = free.unet(noisy, t, None, down_block_additional_residuals=down,
                         mid_block_additional_residual=mid).sample
    assert torch.equal(controlled(noisy, t, condition), expected)


@torch.no_grad()
def test_concatenation_is_more_channels_for_diffusers_unet(given):
    noisy, t, condition, _ = given
    net = make("concat")
    assert torch.equal(net(noisy, t, condition), net.unet(torch.cat([noisy, condition], 1), t, None).sample)


@torch.no_grad()
@pytest.mark.parametrize("control", ["concat", "controlnet", "mask", None])
def test_folded_it_is_the_same_and_a_copy(given, control):
    noisy, t, condition, _ = given
    net = make(control)
    folded, expected = net.folded(), net(noisy, t, condition)
    for p in net.parameters(): p.zero_()
    assert torch.equal(folded(noisy, t, condition), expected)
    assert not any(p.requires_grad for p in folded.parameters())


def test_a_controlled_net_takes_no_further_control():
    with pytest.raises(InputError, match="control='mask' is added to a U-Net with control=None.*'concat'"):
        with_control(make("concat"), make("mask"))


def test_without_diffusers_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)  # importing it fails
    with pytest.raises(MissingPackage, match='pip install "fastinpaint.diffusers."'): make("concat")
