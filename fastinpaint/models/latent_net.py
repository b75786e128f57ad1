"An inpainting network around any pretrained autoencoder"
from ..core.errors import InputError
from .adapters import Scaling
from .autoencoders import MODEL, diffusers_model, frozen_autoencoder, weights_hash
from .control import AlphaKernels, AlphaMaskControl, MaskControl
from .net import InpaintNet
from .refiner import Refiner, check_refiner

KINDS = {"kl": "AutoencoderKL", "vq": "VQModel"}
WIDEST = 8  # times `width`: channels of the refiner, as many as those of a LaMa


def conditioner(encoder, control):
    "What tells `encoder`, a `LatentEncoder`, of the mask by `control`, None for none; else InputError"
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
    if hasattr(decoder, "quantize"): decoder.quantize.requires_grad_(False)  # no loss on pictures reaches it
    config = dict(model=MODEL, autoencoder=found.about, width=width, blocks=blocks, control=control,
                  delta=delta, linear=linear, prefill=prefill, refiner=refiner, iterations=iterations)
    latent = encoder.channels[-1]
    core = Refiner(latent, blocks, delta, linear, refiner, iterations, max(WIDEST*width, latent))
    return InpaintNet(encoder, core, decoder, conditioner(encoder, control), prefill, config)


def save_autoencoder(net, folder):
    "Write the autoencoder of `net`, a `latent_net`, to `folder` as diffusers does, for other programs"
    vae = diffusers_model(net.config["autoencoder"], net.encoder, net.decoder)
    vae.save_pretrained(folder)
    return folder


def new_autoencoder(kind, width=8, stride=8, codes=1024):
    """A `latent_net` without refiner and mask around a small, untrained autoencoder, "kl" or "vq".

    Stages of `width` channels, twice as many after each halving, without attention. Its latents have `stride`
    and as many numbers for each pixel of the image as those of a LaMa of this width: 8·`width` channels at
    stride 8, 2·`width` at 4. Of "vq" each latent pixel is one of `codes` vectors. Raises InputError for
    another `kind`, a `stride` that is no power of two above 1, a `width` below 1, fewer than 2 codes."""
    halvings = max(stride, 1).bit_length() - 1
    if kind not in KINDS: raise InputError(f"no new autoencoder of {kind=}: expected {' or '.join(KINDS)}")
    if width < 1 or codes < 2 or stride < 2 or stride != 2**halvings:
        raise InputError(f"no new autoencoder of {width=}, {stride=}, {codes=}: expected at least 1, a power "
                         "of two, at least 2")
    config = dict(block_out_channels=[width*2**i for i in range(halvings + 1)], layers_per_block=1,
                  down_block_types=["DownEncoderBlock2D"]*(halvings + 1),
                  up_block_types=["UpDecoderBlock2D"]*(halvings + 1), norm_num_groups=max(width//4, 1),
                  latent_channels=max(width*stride**2//8, 1), mid_block_add_attention=False,
                  scaling_factor=1.)
    if kind == "vq": config["num_vq_embeddings"] = codes
    return latent_net(dict(kind=KINDS[kind], name=kind, sha256="", config=config), width, 0, None)


def describe_autoencoder(net, std):
    "Scale latents of `net`, a `latent_net`, that unscaled have the deviation `std`, and let its config know"
    about = net.config["autoencoder"]
    for scaling in (m for m in net.modules() if isinstance(m, Scaling)): scaling.factor = 1/std
    about["config"]["scaling_factor"] = 1/std
    about["sha256"] = weights_hash(diffusers_model(about, net.encoder, net.decoder).state_dict())
