"What the decoder would make of a latent difference, by one matrix or kernel and so without running it"
import torch
import torch.nn.functional as F

KEPT = .999  # of the energy of a decoder's response


def decoder_gram(decode, latents, probes=8, seed=0):
    """`G` `[C, C]`: moving a latent pixel by `e` `[C]` changes pixels by `eᵀ·G·e`, in squares, on average.

    The Gauss-Newton matrix JᵀJ of `decode` (latents to images) over the values of a latent pixel's block of
    the image, averaged over the pixels of `latents` `[B, C, h, w]`. Estimated as by Hutchinson (1990):
    E[(Jᵀv)(Jᵀv)ᵀ] = JᵀJ for `probes` images v of random signs, which `seed` alone decides."""
    generator = torch.Generator().manual_seed(seed)
    latents, gram = latents.detach().requires_grad_(), 0.
    with torch.enable_grad(): images = decode(latents)
    for _ in range(probes):
        signs = torch.randint(2, images.shape, generator=generator).to(images)*2 - 1
        gradient, = torch.autograd.grad(images, latents, signs, retain_graph=True)
        columns = gradient.transpose(0, 1).flatten(1)
        gram = gram + columns @ columns.T
    return gram/(probes*images.numel())


def matrix_root(gram):
    "The symmetric `R` with `R·R = gram`, so that `eᵀ·gram·e = |R·e|²`; both `[C, C]`"
    values, vectors = torch.linalg.eigh(gram.double())
    return (vectors*values.clamp_min(0).sqrt() @ vectors.T).to(gram.dtype)


@torch.no_grad()
def decoder_response(decode, latents, stride):
    """Kernel `[C, 3, k, k]`, whose `conv_transpose2d` of the given `stride` is `decode` to first order.

    The mean change of the image around every fourth latent pixel of two of `latents` `[B, C, h, w]`, where
    one channel at a time is moved by its standard deviation; cut to the pixels that matter."""
    window, kernels, latents = dict(size=5*stride, step=4*stride), [], latents[:2]
    for channel, size in enumerate(latents.std((0, 2, 3)).clamp_min(1e-4)):
        impulses = torch.zeros_like(latents)
        impulses[:, channel, 1::4, 1::4] = size/2
        change = (decode(latents + impulses) - decode(latents - impulses))/size
        around = F.pad(change, [stride, 2*stride, stride, 2*stride])
        kernels.append(around.unfold(2, **window).unfold(3, **window).mean((0, 2, 3)))
    return _cut(torch.stack(kernels), stride)


def respond(latents, kernel, stride):
    """Transposed convolution `[B, 3, stride·h, stride·w]` of `latents` `[B, C, h, w]` by `decoder_response`.

    As a convolution at latent size that gives a block of pixels at once: three times as fast on a CPU."""
    taps = -(-kernel.shape[-1]//stride)
    kernel = F.pad(kernel, [(taps*stride - kernel.shape[-1])//2]*4)
    blocks = kernel.unflatten(3, (taps, stride)).unflatten(2, (taps, stride)).flip(2, 4)
    weight = blocks.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
    if latents.requires_grad and latents.is_contiguous(memory_format=torch.channels_last):
        latents.register_hook(lambda g: g.contiguous(memory_format=torch.channels_last))
    # in this layout torch's backward pass of small kernels is faster
    image = F.pixel_shuffle(F.conv2d(latents.contiguous(), weight, padding=taps - 1), stride)
    margin = (taps - 1)*stride//2
    return image[..., margin:image.shape[2] - margin, margin:image.shape[3] - margin]


@torch.no_grad()
def foreseen(kernel, decode, latents, stride, seed=0):
    """Share of the energy of a change of images that `kernel`, of `decoder_response`, foresees.

    The change is that by random steps of a standard deviation in all `latents`; 1 for a linear `decode`."""
    latents = latents[:2]
    steps = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
    steps = steps*latents.std((0, 2, 3), keepdim=True)
    change = decode(latents + steps) - decode(latents)
    missed = change - respond(steps, kernel, stride)
    return (1 - missed.square().sum()/change.square().sum()).item()


def _cut(kernel, stride):
    "The smallest centre of `kernel`, a latent pixel's block at least, that has `KEPT` of its energy"
    energy = kernel.square().sum((0, 1))
    for margin in range(2*stride, 0, -1):
        if energy[margin:-margin, margin:-margin].sum() >= KEPT*energy.sum(): break
    else: return kernel
    return kernel[..., margin:-margin, margin:-margin].contiguous()
