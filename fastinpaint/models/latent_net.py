"An inpainting network around any pretrained autoencoder"
from functools import partial

from ..core.errors import InputError
from .autoencoders import MODEL, diffusers_model, frozen_autoencoder
from .control import AlphaKernels, AlphaMaskControl, MaskControl
from .net import InpaintNet
from .refiner import Refiner, check_refiner

WIDEST = 8  # times `width`: channels of the refiner, as many as those of a LaMa


def conditioner(encoder, control):
    shape = encoder.channels, encoder.strides
    if control == "alpha": return AlphaKernels(*shape)
    if control == "mask": return MaskControl(*shape)
    if control == "alpha+mask": return AlphaMaskControl(*shape, alpha=AlphaKernels(*shape))
    if control is None: return None
    raise InputError(f'no network of {control=}: expected "alpha", "mask", "alpha+mask" or None')


def latent_net(autoencoder, width=8, blocks=9, control="alpha", delta=False, linear=True, prefill=True,
               refiner="ffc", iterations=1):
    """An `InpaintNet` around the encoder and decoder of `autoencoder`, as for `frozen_autoencoder`.

    The refiner works on 8·`width` channels, as a LaMa's does, or on the latent's own where they are more;
    `control`, `delta`, `prefill`, `refiner` and `iterations` are those of `lama`, `linear` lets blocks lower
    features, too. Everything can be trained: `FreezeSchedule` freezes. The model's file holds the weights of
    the autoencoder, so that it needs nothing else. Raises InputError for other arguments, and what
    `frozen_autoencoder` raises."""
    if width < 1: raise InputError(f"no network of {width=}")
    check_refiner("network", blocks, delta, refiner, iterations)
    found = frozen_autoencoder(autoencoder)
    encoder, decoder = (part.requires_grad_() for part in (found.encoder, found.decoder))
    config = dict(model=MODEL, autoencoder=found.about, width=width, blocks=blocks, control=control, delta=delta,
                  linear=linear, prefill=prefill, refiner=refiner, iterations=iterations)
    latent = encoder.channels[-1]
    core = Refiner(latent, blocks, delta, linear, refiner, iterations, max(WIDEST*width, latent))
    return InpaintNet(encoder, core, decoder, conditioner(encoder, control), prefill, config)


def save_autoencoder(net, folder):
    "Write the autoencoder of `net`, a `latent_net`, to `folder` as diffusers does, for other programs"
    vae = diffusers_model(net.config["autoencoder"], net.encoder, net.decoder)
    vae.save_pretrained(folder)
    return folder
