import pytest
import torch
from torch import nn

from fastinpaint.core.errors import InputError
from fastinpaint.models.lama import lama
from fastinpaint.models.load import load_model, save_model, starting_model
from fastinpaint.models.refiner import (
    DILATIONS,
    REFINERS,
    Detail,
    Refiner,
    UNet,
    doubled,
    layers,
    with_detail,
    without_detail,
)

KINDS = pytest.mark.parametrize("kind", REFINERS)


def open_(refiner):
    "As training would, give the blocks their say: signed ones start as the identity"
    for bn in (m for m in refiner.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.ones_(bn.weight)
        nn.init.uniform_(bn.bias, -.5, .5)
    return refiner


@torch.no_grad()
@KINDS
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("h, w", [(1, 2), (2, 2), (4, 5), (3, 17), (9, 32)])
def test_a_latent_of_any_size_keeps_its_shape(kind, signed, h, w):
    torch.manual_seed(0)  # of few channels all may be below 0
    refiner, latent = open_(Refiner(8, 5, signed=signed, kind=kind)), torch.randn(1, 8, h, w)
    if kind == "ffc" and 1 in (h, w): latent = latent.repeat(1, 1, 2, 1)  # InpaintNet never gives less
    for training in True, False:
        refined = refiner.train(training)(latent)
        assert refined.shape == latent.shape and refined.isfinite().all()
        assert not torch.equal(refined, latent)


@torch.no_grad()
@KINDS
def test_signed_refiners_start_as_the_identity_and_can_then_lower_features(kind):
    latent = torch.randn(2, 8, 6, 7)
    signed, plain = Refiner(8, 4, signed=True, kind=kind), Refiner(8, 4, kind=kind)
    assert torch.equal(signed(latent), latent)
    assert (plain(latent) >= latent).all() and not torch.equal(plain(latent), latent)
    assert (open_(signed)(latent) < latent).any()


@torch.no_grad()
@KINDS
def test_without_blocks_the_latent_goes_through(kind):
    latent = torch.randn(1, 8, 4, 4)
    assert torch.equal(Refiner(8, 0, kind=kind)(latent), latent)


def test_dilations_follow_each_other():
    blocks = Refiner(8, 6, kind="dilated").blocks
    assert [b.convs[i].dilation[0] for b in blocks for i in (0, 3)] \
           == [d for d in (*DILATIONS, *DILATIONS[:2]) for _ in (0, 1)]


@torch.no_grad()
def test_a_dilated_block_sees_as_far_as_its_dilations():
    block = open_(Refiner(8, 4, kind="dilated").blocks[3]).eval()
    x = torch.rand(1, 8, 40, 40)
    changed = x.clone()
    changed[..., 20, 20] += 10
    rows = (block(x) != block(changed)).any(dim=(0, 1, 3)).nonzero().flatten().tolist()
    assert rows == [4, 12, 20, 28, 36]


@pytest.mark.parametrize("channels, blocks", [(64, 1), (64, 9), (128, 5), (16, 9)])
def test_a_unet_has_about_as_many_parameters_as_ffc_blocks(channels, blocks):
    refiners = (Refiner(channels, blocks, kind=kind) for kind in ("unet", "ffc"))
    unet, ffc = (sum(p.numel() for p in refiner.parameters()) for refiner in refiners)
    assert .9 < unet/ffc < 1.1


@torch.no_grad()
def test_a_unet_sees_further_than_its_convolutions_at_full_size():
    torch.manual_seed(0)
    net, x = UNet(4, 8).eval(), torch.rand(1, 4, 24, 24)
    changed = x.clone()
    changed[..., 0, 0] += 100
    assert (net(x) != net(changed))[..., 10, 10].any()


@torch.no_grad()
@pytest.mark.parametrize("n", range(1, 12))
def test_what_is_halved_and_doubled_lies_where_it_lay(n):
    halve = layers(1, 1, stride=2)[0]
    nn.init.dirac_(halve.weight)  # takes the pixel in the middle
    places = torch.arange(n).float().expand(1, 1, 3, n)
    halved = halve(places)
    assert halved.shape == (1, 1, 3, (n + 1)//2 + 1)
    assert (doubled(halved, 3, n) - places).abs().max() <= 1


# repetitions

@torch.no_grad()
@KINDS
@pytest.mark.parametrize("delta", [False, True, "sum"])
def test_iterations_apply_the_same_blocks_again(kind, delta):
    torch.manual_seed(0)
    once = open_(Refiner(8, 2, delta, kind=kind)).eval()
    if delta is True: nn.init.normal_(once.delta.weight, std=.1)
    thrice = Refiner(8, 2, delta, kind=kind, iterations=3).eval()
    thrice.load_state_dict(once.state_dict())
    latent = torch.randn(1, 8, 5, 6)
    assert torch.equal(thrice(latent), once(once(once(latent))))
    assert not torch.equal(thrice(latent), once(latent))


@KINDS
@pytest.mark.parametrize("delta", [False, True, "sum"])
def test_a_loss_sees_every_iterate_and_all_reach_the_blocks(kind, delta):
    refiner = open_(Refiner(8, 1, delta, kind=kind, iterations=3))
    if delta is True: nn.init.normal_(refiner.delta.weight, std=.1)
    latent = torch.randn(2, 8, 5, 6)
    refiner.iterates = seen = []
    refined = refiner(latent)
    assert len(seen) == 3 and seen[-1] is refined and all(x.shape == latent.shape for x in seen)
    for x in seen:
        refiner.zero_grad()
        x.square().mean().backward(retain_graph=True)
        assert all(p.grad is not None for p in refiner.parameters())
        assert sum(p.grad.abs().sum() for p in refiner.parameters()) > 0
    refiner.iterates = None
    refiner(latent)
    assert len(seen) == 3


@torch.no_grad()
def test_the_sum_has_no_weights_of_its_own():
    refiner, latent = Refiner(8, 2, "sum").eval(), torch.randn(1, 8, 5, 6)
    assert torch.equal(refiner(latent), latent + refiner.blocks(latent))
    assert refiner.state_dict().keys() == Refiner(8, 2).state_dict().keys()


@KINDS
@torch.no_grad()
def test_blocks_wider_than_the_latent_change_nothing_at_first(kind):
    refiner, latent = Refiner(3, 2, kind=kind, signed=True, width=16).eval(), torch.randn(1, 3, 5, 6)
    assert torch.equal(refiner(latent), latent)
    nn.init.normal_(refiner.blocks[0].narrow.weight)
    assert refiner(latent).shape == latent.shape and not torch.equal(refiner(latent), latent)
    assert torch.allclose(refiner.folded()(latent), refiner(latent), atol=1e-4)


def test_of_the_latents_own_width_blocks_are_as_ever():
    assert Refiner(8, 2, width=8).state_dict().keys() == Refiner(8, 2).state_dict().keys()
    assert not len(Refiner(3, 0, width=16).blocks)


@pytest.mark.parametrize("delta", [False, True, "sum"])
@pytest.mark.parametrize("kind", ["ffc", "dilated"])
def test_detail_starts_as_the_last_blocks_and_alone_learns(kind, delta):
    latent = torch.randn(2, 8, 6, 7)
    torch.manual_seed(0)
    plain = open_(Refiner(8, 3, delta, kind=kind))
    torch.manual_seed(0)
    refiner = open_(Refiner(8, 3, delta, kind=kind, detail=2))
    refiner.detail = Detail(plain, 2)
    assert torch.equal(refiner(latent), plain(latent))
    refiner(latent).square().sum().backward()
    moved = {k for k, p in refiner.named_parameters() if p.grad is not None}
    assert moved and all(k.startswith(("detail.", "blocks.0.")) for k in moved)


@pytest.fixture
def detailed():
    torch.manual_seed(0)
    net = open_(lama(2, 3, control="mask", delta=True, detail=2, autoencoder=None)).eval()
    with torch.no_grad(): net.refiner.detail.delta.weight.fill_(.1)
    return net


@torch.no_grad()
def test_a_network_does_without_its_detail_and_shares_the_rest(detailed):
    x, mask = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    with_it, folded = detailed(x, mask), detailed.folded()
    plain, fast = without_detail(detailed), without_detail(folded)
    assert torch.allclose(folded(x, mask), with_it, atol=1e-4)
    assert torch.allclose(fast(x, mask), plain(x, mask), atol=1e-4)
    assert (plain(x, mask) - with_it).abs().max() > 1e-3 and torch.equal(detailed(x, mask), with_it)
    assert plain.refiner.blocks is detailed.refiner.blocks and without_detail(plain) is plain


def test_training_goes_on_with_as_much_detail_as_is_asked_for(detailed, tmp_path, same):
    path = tmp_path/"model.safetensors"
    save_model(detailed, path)
    def like(detail): return lama(2, 3, control="mask", delta=True, detail=detail, autoencoder=None)
    assert same(load_model(path).state_dict(), detailed.state_dict())
    assert same(starting_model(path, like(2)).state_dict(), detailed.state_dict())
    other = starting_model(path, like(1))
    for plain in starting_model(path, like(0)), starting_model(path):
        assert plain.refiner.detail is None and plain.config["detail"] == 0
    assert len(other.refiner.detail.blocks) == 1
    assert same(other.refiner.detail.blocks[0].state_dict(), other.refiner.blocks[2].state_dict())


@pytest.mark.parametrize("arguments", [dict(detail=4), dict(detail=-1), dict(detail=1, iterations=2),
                                       dict(detail=1, refiner="unet")])
def test_detail_is_of_blocks_that_there_are(arguments):
    with pytest.raises(InputError, match="detail"): lama(2, 3, autoencoder=None, **arguments)
    net = lama(2, 3, autoencoder=None, **{k: v for k, v in arguments.items() if k != "detail"})
    with pytest.raises(InputError, match="detail"): with_detail(net, arguments["detail"])
