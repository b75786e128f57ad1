"Fills with texture, in batches"
import torch

from fastinpaint.judge.baselines import mean_colour
from fastinpaint.models.lama import lama
from fastinpaint.tools.texture import with_texture


def test_each_fill_of_a_batch_gets_texture_and_those_without_a_hole_stay():
    image = (torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))*255).round()/255
    mask = torch.zeros(2, 1, 48, 48)
    mask[0, :, 10:30, 10:30] = 1
    result = with_texture(mean_colour)(image, mask)
    assert result.shape == image.shape and result[1].equal(image[1])
    hole = mask[0, 0] > 0
    assert torch.allclose(result[0, :, ~hole], image[0, :, ~hole])
    assert result[0, :, hole].std() > .2*image[0].std()


def test_texture_does_without_the_networks_own_detail():
    net = lama(2, 2, control="mask", delta=True, detail=1, autoencoder=None).eval()
    image, mask = torch.rand(1, 3, 48, 48), torch.zeros(1, 1, 48, 48)
    mask[..., 10:30, 10:30] = 1
    before = with_texture(net)(image, mask)
    with torch.no_grad(): net.refiner.detail.delta.weight.normal_()
    assert with_texture(net)(image, mask).equal(before)
