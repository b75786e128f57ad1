"diffusers' autoencoders in the form of ours equal diffusers' own to the bit"
import pytest
import torch

from fastinpaint.core.errors import InputError
from fastinpaint.models.adapters import Scaling, adapted

STRIDES = {"AutoencoderKL": 4, "AutoencoderTiny": 8, "VQModel": 4, "AutoencoderDC": 2,
           "AsymmetricAutoencoderKL": 8}
SIZES = (32, 48), (64, 32), (16, 16)


def scaled(vae, raw):
    "What diffusers' pipelines do to latents: Stable Diffusion's, with a shift Flux's"
    config = vae.config
    if config.get("shift_factor"): return (raw - config.shift_factor)*config.scaling_factor
    return config.scaling_factor*raw


def unscaled(vae, latent):
    config = vae.config
    if config.get("shift_factor"): return latent/config.scaling_factor + config.shift_factor
    return latent/config.scaling_factor


def encoded(vae, image):
    found = vae.encode(2*image - 1)
    if hasattr(found, "latent_dist"): return found.latent_dist.mode()
    return found.latents if hasattr(found, "latents") else found.latent


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_codes_and_pictures_are_diffusers_own_to_the_bit(vae, size):
    encoder, decoder = adapted(vae)
    image = torch.rand(2, 3, *size)
    latent = encoder(image)
    assert torch.equal(latent, scaled(vae, encoded(vae, image))) and latent.std() > 0
    assert torch.equal(decoder(latent), vae.decode(unscaled(vae, latent)).sample/2 + .5)


def test_channels_and_strides_are_those_of_the_stages(vae):
    encoder, _ = adapted(vae)
    assert encoder.stride == STRIDES[type(vae).__name__]
    x = torch.rand(1, 3, 64, 32)
    for stage, channels, stride in zip(encoder.stages, encoder.channels, encoder.strides, strict=True):
        y = stage(x)
        assert y.shape == (1, channels, x.shape[2]//stride, x.shape[3]//stride)
        x = y


@torch.no_grad()
@pytest.mark.parametrize("kind, changes", [
    ("AutoencoderKL", dict(use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False)),
    ("AutoencoderKL", dict(latents_mean=[1., 2, 3, 4], latents_std=[1., 2, 3, 4], shift_factor=None)),
    ("VQModel", dict(norm_type="spatial", block_out_channels=[32]*3)),
    ("AutoencoderTiny", dict(encoder_block_out_channels=[4]*3, decoder_block_out_channels=[4]*3,
                             num_encoder_blocks=[1, 2, 1], num_decoder_blocks=[1, 2, 1])),
    ("AutoencoderDC", dict(encoder_out_shortcut=False, downsample_block_type="Conv")),
    ("AutoencoderDC", dict(encoder_block_out_channels=[4, 8, 8], encoder_block_types="ResBlock",
                           encoder_layers_per_block=[0, 1, 1], encoder_qkv_multiscales=[[]]*3,
                           decoder_block_out_channels=[4, 8, 8], decoder_block_types="ResBlock",
                           decoder_layers_per_block=[0, 1, 1], decoder_qkv_multiscales=[[]]*3))],
    ids=lambda x: x if isinstance(x, str) else ",".join(x)[:40])
def test_other_configurations_too(tiny_vae, kind, changes):
    vae = tiny_vae(kind, **changes)
    encoder, decoder = adapted(vae)
    image, config = torch.rand(1, 3, 32, 32), vae.config
    raw, latent = encoded(vae, image), encoder(image)
    if mean := config.get("latents_mean"):  # as Stable Diffusion XL
        mean, std = (torch.tensor(x).view(1, 4, 1, 1) for x in (mean, config.latents_std))
        assert torch.equal(latent, (raw - mean)*config.scaling_factor/std)
        back = latent*std/config.scaling_factor + mean
    else:
        assert torch.equal(latent, scaled(vae, raw))
        back = unscaled(vae, latent)
    assert torch.equal(decoder(latent), vae.decode(back).sample/2 + .5)


@torch.no_grad()
def test_known_pixels_help_the_mask_aware_decoder(tiny_vae):
    vae = tiny_vae("AsymmetricAutoencoderKL")
    encoder, decoder = adapted(vae)
    image, mask = torch.rand(1, 3, 32, 48), torch.zeros(1, 1, 32, 48)
    mask[..., 8:20, 10:30] = 1
    latent = encoder(image)
    theirs = vae.decode(unscaled(vae, latent), image=2*image - 1, mask=mask).sample/2 + .5
    helped = decoder(latent, image*(1 - mask), mask)
    assert torch.equal(helped, theirs) and not torch.equal(helped, decoder(latent))


def test_gradients_reach_images_and_latents(vae):
    encoder, decoder = adapted(vae)
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    latent = encoder(image)
    grad, = torch.autograd.grad(decoder(latent).square().sum(), image)
    assert grad.isfinite().all() and grad.any()


@torch.no_grad()
def test_scaling_is_undone():
    scaling = Scaling(dict(scaling_factor=.2, latents_mean=[1., 2], latents_std=[3., 4]))
    raw = torch.randn(2, 2, 5, 5)
    assert torch.allclose(scaling.undone(scaling(raw)), raw, atol=1e-6)


def test_an_encoder_that_is_no_pyramid_is_refused(tiny_vae):
    vae = tiny_vae("AutoencoderKL")
    vae.encoder.conv_in.padding = 0, 0
    with pytest.raises(InputError, match="64 pixels into .*62.*whole strides"): adapted(vae)
