import sys

import pytest
import torch

from fastinpaint.kernels.prefill import smooth_fill
from fastinpaint.models.context_encoder import context_encoder
from fastinpaint.models.fcf import fcf
from fastinpaint.models.ffc import FourierUnit
from fastinpaint.models.latent_net import latent_net
from fastinpaint.models.load import save_model
from fastinpaint.models.net import composite
from fastinpaint.serve import export as module
from fastinpaint.serve.export import MatrixFourier, export_model, prefilled, reflected


def sample(h, w, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 3, h, w, generator=generator)
    return image, (torch.rand(1, 1, h, w, generator=generator) < .3).float()


def expected(net, image, mask):
    with torch.no_grad(): return composite(net.eval()(image*(1 - mask), mask), image, mask)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    "A network, and what runs its ONNX file and its torch program"
    from fastinpaint.models.lama import lama
    ort, folder = pytest.importorskip("onnxruntime"), tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    net = lama(2, 1, control="mask", autoencoder=None)
    for zero in net.conditioner.zero_convs: torch.nn.init.normal_(zero.weight)
    file = save_model(net, folder/"model.safetensors")
    onnx = export_model(file, folder/"model.onnx")
    program = export_model(net, folder/"model.pt2", "torch")
    session, run = ort.InferenceSession(onnx), torch.export.load(program).module()

    def run_onnx(image, mask):
        inputs = dict(image=image.numpy(), mask=mask.numpy())
        return torch.from_numpy(session.run(["filled"], inputs)[0])
    return net, dict(onnx=run_onnx, torch=run), folder


@pytest.mark.parametrize("size", [(64, 48), (37, 141)], ids=str)
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_an_exported_model_fills_like_the_model_at_any_size(exported, format, size):
    net, run, _ = exported
    image, mask = sample(*size)
    filled = run[format](image, mask)
    assert torch.allclose(filled, expected(net, image, mask), atol=1e-4)
    assert torch.equal(filled[mask.expand_as(filled) == 0], image[mask.expand_as(image) == 0])


def test_the_card_says_what_goes_in_and_how_it_was_checked(exported):
    text = (exported[2]/"model.onnx.md").read_text()
    assert "`[1, 3, H, W]`" in text and "161x75 pixels" in text
    assert '"control": "mask"' in text and "source_sha256" in text


def test_a_published_architecture_becomes_a_program(tiny_lama, tmp_path):
    net = tiny_lama(linear=False, prefill=False)
    image, mask = sample(40, 56)
    run = torch.export.load(export_model(net, tmp_path/"a.pt2", "torch")).module()
    assert torch.allclose(run(image, mask), expected(net, image, mask), atol=1e-4)


def test_a_unet_and_both_ways_of_the_mask_become_a_program(tiny_lama, tmp_path):
    net = tiny_lama(linear=False, prefill=False, control="alpha+mask", refiner="unet", iterations=2)
    for zero in net.conditioner.zero_convs: torch.nn.init.normal_(zero.weight)
    image, mask = sample(17, 56)
    run = torch.export.load(export_model(net, tmp_path/"a.pt2", "torch")).module()
    assert torch.allclose(run(image, mask), expected(net, image, mask), atol=1e-4)


@pytest.mark.parametrize("size", [(2, 2), (5, 7), (8, 6), (1, 3)], ids=str)
def test_matrix_products_are_the_fourier_transform(size):
    unit, x = FourierUnit(3).eval(), torch.randn(2, 3, *size)
    assert torch.allclose(MatrixFourier(unit)(x), unit(x), atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (24, 600)], ids=str)
def test_a_canvas_changes_nothing(size):
    image, mask = sample(*size)
    assert torch.allclose(prefilled(image*(1 - mask), mask), smooth_fill(image, mask), atol=1e-5)


def test_padding_is_that_of_the_network(tiny_lama):
    image, _ = sample(19, 33)
    assert torch.equal(reflected(image, 8), tiny_lama().pad(image))


def test_a_wrong_export_leaves_nothing(tiny_lama, tmp_path, monkeypatch):
    def wrong(network, path):
        path.write_bytes(b"1")
        return lambda image, mask: image + .01
    monkeypatch.setitem(module.EXPORTERS, "torch", wrong)
    with pytest.raises(RuntimeError, match="differs from the model by.*was not written"):
        export_model(tiny_lama(), tmp_path/"out/a.pt2", "torch")
    assert not list(tmp_path.iterdir())


def test_a_network_around_another_autoencoder_becomes_a_program(tiny_vae, tmp_path):
    torch.manual_seed(0)
    net = latent_net(tiny_vae("AutoencoderKL"), 2, blocks=0, control="mask", prefill=False)
    for zero in net.conditioner.zero_convs: torch.nn.init.normal_(zero.weight)
    image, mask = sample(37, 56)
    run = torch.export.load(export_model(net, tmp_path/"a.pt2", "torch")).module()
    assert torch.allclose(run(image, mask), expected(net, image, mask), atol=1e-4)


@pytest.mark.parametrize("kind", ["AsymmetricAutoencoderKL", "VQModel", "AutoencoderDC"])
def test_autoencoders_that_depend_on_the_size_are_not_exported(tiny_vae, tmp_path, kind):
    with pytest.raises(ValueError, match=f"around {kind} cannot be exported for any size.*AutoencoderKL"):
        export_model(latent_net(tiny_vae(kind), 2, 1), tmp_path/"a")


def test_images_have_two_latent_pixels_a_side(tiny_vae):
    vae = tiny_vae("AutoencoderTiny", encoder_block_out_channels=[4]*6, decoder_block_out_channels=[4]*6,
                   num_encoder_blocks=[1]*6, num_decoder_blocks=[1]*6)
    assert module.smallest(latent_net(vae, 2, 0)) == 64
    assert module.smallest(latent_net(tiny_vae("AutoencoderKL"), 2, 0)) == 16


def test_what_cannot_be_exported_is_named(tiny_lama, tiny_diffusion, tmp_path, monkeypatch):
    for net in tiny_diffusion(), fcf(2, 3):
        with pytest.raises(ValueError, match=f"{type(net).__name__} fills by a seed"):
            export_model(net, tmp_path/"a")
    with pytest.raises(ValueError, match="'tflite'.*onnx or torch"):
        export_model(tiny_lama(), tmp_path/"a", "tflite")
    with pytest.raises(ValueError, match="ContextEncoder has one fixed size"):
        export_model(context_encoder(2, 32), tmp_path/"a")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'fastinpaint\[onnx\]'"):
        export_model(tiny_lama(), tmp_path/"a")
    assert not list(tmp_path.iterdir())
