"The code of a KL or VQ autoencoder, trained beside the reconstruction"
import pytest
import torch
from fastai.torch_core import set_seed

from fastinpaint.core.errors import InputError
from fastinpaint.data.loaders import InpaintDataLoaders
from fastinpaint.models.adapters import Mode
from fastinpaint.models.autoencoders import frozen_autoencoder
from fastinpaint.models.latent_net import new_autoencoder
from fastinpaint.models.load import save_model
from fastinpaint.train.callback.code import Code
from fastinpaint.train.callback.reconstruct import Reconstruct
from fastinpaint.train.learner import inpaint_learner
from fastinpaint.train.losses import PixelMSE

pytest.importorskip("diffusers")


@pytest.fixture
def learner(photos, tmp_path):
    "Makes a learner of a small autoencoder, three batches of two an epoch"
    def make(kind, *cbs, **kwargs):
        set_seed(0)
        dls = InpaintDataLoaders.from_folder(photos, "center", 32, 2, valid=.25, seed=0, steps=3,
                                             augment=False, num_workers=0, device="cpu")
        net = new_autoencoder(kind, **dict(width=4, codes=16) | kwargs)
        cbs = [Reconstruct(start=False), *cbs]
        return inpaint_learner(dls, net, PixelMSE(), [], cbs, 1e-2, path=tmp_path)
    return make


@pytest.mark.parametrize("kind, stride, channels", [("kl", 8, 32), ("vq", 8, 32), ("kl", 4, 8), ("vq", 2, 2)])
def test_a_new_autoencoder_has_as_many_numbers_for_each_pixel_as_a_lama(kind, stride, channels):
    net = new_autoencoder(kind, width=4, stride=stride)
    latent = net.encode(torch.rand(1, 3, 32, 32))
    assert net.stride == stride and latent.shape == (1, channels, 32//stride, 32//stride)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_training_lowers_the_loss_and_ends_with_latents_of_unit_variance(learner, kind, tmp_path):
    learn = learner(kind, Code())
    image = learn.dls.valid.one_batch()[2].as_subclass(torch.Tensor)
    def error():
        net = learn.model.eval()
        with torch.no_grad(): return (net.decode(net.encode(image)) - image).square().mean()
    before = error()
    with learn.no_bar(), learn.no_logging(): learn.fit(4)
    after = error()
    assert after < before
    with torch.no_grad(): latent = learn.model.encode(image)
    assert .7 < latent.std() < 1.4
    factor = learn.model.config["autoencoder"]["config"]["scaling_factor"]
    assert factor == learn.model.decoder.scaling.factor != 1
    found = frozen_autoencoder(save_model(learn, tmp_path/"model.safetensors"))
    assert torch.equal(found.encoder(image), latent)
    assert found.about["sha256"] == learn.model.config["autoencoder"]["sha256"]


def test_latents_are_drawn_in_training_alone(learner):
    learn, modes, moved = learner("kl", Code()), [], {True: [], False: []}
    mode = next(m for m in learn.model.modules() if isinstance(m, Mode))
    def keep(module, inputs, output): modes.append(inputs[0].chunk(2, dim=1)[0])
    def compare(module, inputs): moved[learn.training].append((inputs[0] - modes[-1]).abs().max().item())
    mode.register_forward_hook(keep)
    learn.model.decoder.scaling.register_forward_pre_hook(compare)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert min(moved[True]) > 0 and max(moved[False]) == 0


def test_the_divergence_is_that_of_gaussians(learner):
    learn = learner("kl", Code())
    code = learn.code
    learn.step = type("Step", (), {})()
    moments = torch.randn(2, 6, 4, 4)
    mean, log_variance = moments.chunk(2, 1)
    code._draw(None, (moments,), mean)
    theirs = torch.distributions.kl_divergence(torch.distributions.Normal(mean, (log_variance/2).exp()),
                                               torch.distributions.Normal(0., 1.))
    assert torch.allclose(learn.step.code_loss, theirs.mean())


def test_codes_begin_as_latents_and_those_without_use_anew(learner):
    learn = learner("vq", Code())
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    code, weight = learn.code, learn.model.decoder.quantize.embedding.weight
    assert code.used.any() and weight.std() > .1  # they begin within a sixteenth
    before = weight.detach().clone()
    code.steps, code.used[:] = 100, True
    code.used[3], learn.training = False, True
    code._renew(learn.model.decoder.quantize, (torch.full((1, 32, 2, 2), 7.),))
    changed = (weight != before).any(1).nonzero().flatten().tolist()
    assert changed == [3] and (weight[3] == 7).all() and not code.used.any()


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_outside_of_a_fit_nothing_of_it_is_left(learner, kind):
    learn = learner(kind, Code())
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in learn.model.modules())


def test_a_network_without_such_a_code_is_refused(tiny_learner):
    with pytest.raises(InputError, match="no code to train: take one of new_auto"): tiny_learner(Code())


@pytest.mark.parametrize("kwargs", [dict(kind="gan"), dict(stride=6), dict(stride=1), dict(width=0),
                                    dict(codes=1)], ids=str)
def test_no_such_autoencoder(kwargs):
    with pytest.raises(InputError, match="no new autoencoder of"): new_autoencoder(**dict(kind="kl") | kwargs)
