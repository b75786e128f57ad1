"What the decoder would make of a latent difference, from one matrix and so without running it"
import torch


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
