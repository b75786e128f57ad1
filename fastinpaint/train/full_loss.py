"LaMa's losses besides the adversarial ones"
from ..models.perceptual import perceptual_network
from .losses import InpaintLoss, Perceptual, PixelL1


def full_loss(perceptual):
    """L1 on known pixels and the perceptual term, with the weights of LaMa's paper.

    `perceptual` and errors as of `pretrained.perceptual_network`. Returns the loss, and for
    settings.json the network found.
    """
    network, name = perceptual_network(perceptual)
    terms = [PixelL1(10., known=1., missing=0.), *([Perceptual(network)] if network else [])]
    print(f"perceptual term: {name}")
    return InpaintLoss(*terms), {"perceptual_network": name}
