import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastinpaint.models.lama import lama
from fastinpaint.models.pca import start_at_pca
from fastinpaint.train import decoder_distance
from fastinpaint.train.decoder_distance import decoder_gram, decoder_response, matrix_root, respond


def foreseen(gram, difference):
    "Mean over pixels of `eᵀ·G·e`, of each latent difference `[B, C, h, w]`"
    return torch.einsum("bchw,cd,bdhw->bhw", difference, gram, difference).mean((1, 2))


def seen(decode, latent, difference):
    "Mean squared change of pixels, of each latent"
    with torch.no_grad(): return (decode(latent + difference) - decode(latent)).square().mean((1, 2, 3))


def stack(kernel, channels=4):
    "A linear decoder of two transposed convolutions of stride 2, each twice as large"
    torch.manual_seed(0)
    def up(n_in, n_out): return nn.ConvTranspose2d(n_in, n_out, kernel, stride=2, padding=(kernel - 2)//2)
    return nn.Sequential(up(channels, 5), up(5, 3))


def exact_gram(decode, channels, size=8, block=16):
    "From the images of unit impulses at a pixel in the middle"
    impulses = torch.zeros(channels, channels, size, size)
    impulses[range(channels), range(channels), size//2, size//2] = 1
    with torch.no_grad(): images = (decode(impulses) - decode(torch.zeros_like(impulses))).flatten(1)
    return images @ images.T/(3*block)


@pytest.fixture
def white():
    torch.manual_seed(1)
    return torch.randn(16, 4, 16, 16)


def test_it_is_the_pixel_error_of_a_linear_decoder_whose_blocks_do_not_overlap(white):
    decode = stack(2)
    smooth = F.avg_pool2d(white, 5, 1, 2)
    gram = exact_gram(decode, 4)
    for difference in white, smooth:
        torch.testing.assert_close(foreseen(gram, difference), seen(decode, white, difference))
    estimate = decoder_gram(decode, white, probes=64)
    torch.testing.assert_close(foreseen(estimate, smooth), seen(decode, white, smooth), rtol=.03, atol=0)


def test_where_blocks_overlap_it_is_so_for_neighbours_that_err_apart():
    decode, difference = stack(4), torch.randn(32, 4, 32, 32)
    found = seen(decode, torch.zeros_like(difference), difference).mean().item()
    assert foreseen(exact_gram(decode, 4), difference).mean().item() == pytest.approx(found, rel=.05)


def test_it_is_the_pixel_error_of_a_lama_reduced_to_its_linear_paths():
    torch.manual_seed(0)
    model = lama(width=4, blocks=1, autoencoder=None).eval()
    images = F.interpolate(torch.rand(8, 3, 16, 16), size=64, mode="bilinear")
    start_at_pca(model, images)
    for stage in model.decoder.stages: nn.init.zeros_(stage.bn.weight)
    with torch.no_grad(): latents = model.encode(images)
    difference = latents.roll(1, 0) - latents
    gram = decoder_gram(model.decode, latents, probes=64)
    torch.testing.assert_close(foreseen(gram, difference), seen(model.decode, latents, difference), rtol=.05,
                               atol=0)


def test_the_estimate_converges_to_the_exact_matrix(white):
    decode = stack(2)
    exact = exact_gram(decode, 4)
    errors = [(decoder_gram(decode, white, probes) - exact).norm()/exact.norm() for probes in (1, 256)]
    assert errors[1] < .01 and errors[1] < errors[0]/4


def test_small_errors_of_the_bundled_autoencoder_are_foreseen_better_than_by_plain_squares():
    "Differences of random length and smoothness, whose channels differ in strength"
    model = lama(width=8, blocks=1).eval().requires_grad_(False)
    torch.manual_seed(0)
    latents = model.encode(F.interpolate(torch.rand(24, 3, 16, 16), size=64, mode="bicubic"))
    difference = torch.randn(24, 64, 8, 8)
    difference[::2] = F.avg_pool2d(difference[::2], 3, 1, 1)
    difference = difference*torch.randn(24, 64, 1, 1).mul(1.5).exp()
    length = .02*torch.rand(24, 1, 1, 1).add(.5)
    difference = difference*length/difference.square().mean((1, 2, 3), keepdim=True).sqrt()
    pixels = seen(model.decode, latents, difference)
    def correlation(guess): return torch.corrcoef(torch.stack([guess, pixels]))[0, 1].item()
    gram_says = foreseen(decoder_gram(model.decode, latents), difference)
    ours, plain = correlation(gram_says), correlation(difference.square().mean((1, 2, 3)))
    assert ours > .99 and 1 - ours < (1 - plain)/5
    assert (gram_says/pixels).median().item() == pytest.approx(1, abs=.1)


def test_the_estimate_depends_on_its_seed_alone_and_disturbs_nothing(white):
    decode = nn.Sequential(stack(2), nn.Sigmoid())
    before = torch.get_rng_state()
    with torch.no_grad(): first = decoder_gram(decode, white)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(decoder_gram(decode, white), first)
    assert not torch.equal(decoder_gram(decode, white, seed=1), first)
    assert all(p.grad is None for p in decode.parameters()) and not white.requires_grad


def test_how_much_of_a_decoder_its_response_foresees(white):
    decode = stack(2)
    kernel = decoder_response(decode, white, 4)
    assert decoder_distance.foreseen(kernel, decode, white, 4) == pytest.approx(1, abs=1e-4)
    assert decoder_distance.foreseen(0*kernel, decode, white, 4) == 0
    def bent(latent): return decode(latent).mul(3).sin()
    kernel = decoder_response(bent, white, 4)
    assert .05 < decoder_distance.foreseen(kernel, bent, white, 4) < .95


@pytest.mark.parametrize("rank", [2, 6])
def test_the_root_squared_is_the_matrix_even_a_singular_one(rank):
    columns = torch.randn(6, rank)
    gram = columns @ columns.T
    root = matrix_root(gram)
    assert torch.allclose(root @ root, gram, atol=1e-5) and torch.allclose(root, root.T, atol=1e-6)


# the response of a decoder

def inner(images): return images[..., 4:-4, 4:-4]  # the borders of a stack cut off what would come back


def test_the_response_is_the_decoder_where_it_is_linear(white):
    "Overlapping blocks included, found from latents of any size"
    decode, difference = stack(4), torch.randn(2, 4, 7, 6)
    with torch.no_grad(): change = decode(difference) - decode(torch.zeros_like(difference))
    for size in 16, 5, 3:
        kernel = decoder_response(decode, white[..., :size, :size], 4)
        assert kernel.shape[:2] == (4, 3) and 4 <= kernel.shape[2] == kernel.shape[3] <= 20
        foretold = F.conv_transpose2d(difference, kernel, stride=4, padding=(kernel.shape[-1] - 4)//2)
        assert inner(foretold - change).square().mean() < .003*inner(change).square().mean()


def test_what_hardly_matters_is_cut_from_the_response(white):
    assert decoder_response(stack(2), white, 4).shape[-1] == 4
    assert 8 <= decoder_response(stack(4), white, 4).shape[-1] <= 10


def test_the_response_of_the_bundled_decoder_foretells_images():
    model = lama(width=8, blocks=1).eval().requires_grad_(False)
    torch.manual_seed(0)
    latents = model.encode(F.interpolate(torch.rand(4, 3, 16, 16), size=64, mode="bicubic"))
    kernel = decoder_response(model.decode, latents, 8)
    difference = torch.randn_like(latents)*latents.std((0, 2, 3), keepdim=True)/4
    change = model.decode(latents + difference) - model.decode(latents)
    foretold = F.conv_transpose2d(difference, kernel, stride=8, padding=(kernel.shape[-1] - 8)//2)
    assert (foretold - change).square().mean() < .01*change.square().mean()


@pytest.mark.parametrize("stride, side", [(8, 8), (8, 14), (8, 16), (8, 40), (2, 4), (4, 10)])
def test_responding_is_a_transposed_convolution(stride, side):
    torch.manual_seed(0)
    latents, kernel = torch.randn(2, 5, 3, 4, requires_grad=True), torch.randn(5, 3, side, side)
    expected = F.conv_transpose2d(latents, kernel, stride=stride, padding=(side - stride)//2)
    found, g = respond(latents, kernel, stride), torch.randn_like(expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(image, latents, g)[0] for image in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
