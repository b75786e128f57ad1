"What a fill computes of a prediction: all, or the holes alone"
import pytest
import torch

from fastinpaint.models.net import InpaintNet

HOLES = {"inside": [(40, 61, 33, 50)], "edge": [(0, 5, 90, 103)], "all": [(0, 87, 0, 103)],
         "corners": [(0, 3, 0, 3), (85, 87, 98, 103)], "pixel": [(47, 48, 55, 56)]}


def photo(holes):
    mask = torch.zeros(2, 1, 87, 103)
    for i, (top, bottom, left, right) in enumerate(holes): mask[i, :, top:bottom, left:right] = 1
    return torch.rand(2, 3, 87, 103)*(1 - mask), mask


@torch.no_grad()
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("depth, linear", [(3, True), (3, False), (2, True), (1, True)])
@pytest.mark.parametrize("holes", HOLES.values(), ids=HOLES)
def test_holes_alone_are_predicted_as_with_the_rest(tiny_lama, holes, depth, linear, folded):
    net = tiny_lama(depth=depth, linear=linear).eval()
    if folded: net = net.folded()
    masked, mask = photo(holes)
    whole = net(masked, mask)
    net.holes_only = True
    assert torch.allclose(net(masked, mask)*mask, whole*mask, atol=1e-6)


@torch.no_grad()
def test_far_from_holes_nothing_is_decoded(tiny_lama):
    net, (masked, mask) = tiny_lama().eval(), photo(HOLES["inside"])
    net.holes_only = True
    seen = []
    net.decoder.register_forward_hook(lambda module, args, image: seen.append(image.shape[-2:]))
    filled = net(masked, mask)
    assert seen == [(56, 56)] and torch.equal(filled[..., :40, :], masked[..., :40, :])
    nothing = torch.zeros_like(mask)
    assert torch.equal(net(masked, nothing), masked) and len(seen) == 1


@torch.no_grad()
def test_a_decoder_without_reach_sees_all(tiny_lama):
    net, (masked, mask) = tiny_lama().eval(), photo(HOLES["inside"])
    class Whole(torch.nn.Module):
        def __init__(self, decoder):
            super().__init__()
            self.stages = decoder
        def forward(self, latent): return self.stages(latent)
    other = InpaintNet(net.encoder, net.refiner, Whole(net.decoder), net.conditioner, net.prefill)
    expected = net(masked, mask)
    other.eval().holes_only = True
    assert torch.equal(other(masked, mask), expected)
