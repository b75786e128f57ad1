"Where linear paths start: a code of principal components, stage by stage (Baldi & Hornik 1989)"
import torch
import torch.nn.functional as F


@torch.no_grad()
def start_at_pca(model, images):
    """Let the linear paths pass on the principal components of `images` `[N, 3, H, W]`.

    The first stage takes the mean colour off, each further one keeps the strongest components of 2×2 blocks
    of what came before, and the decoder mirrors it. Overlap and ReLU paths start out almost silent."""
    encoder, decoder = model.encoder, model.decoder
    first, *downs = encoder.stages
    mean = images.mean((0, 2, 3))
    for linear in (first.linear, decoder.head):
        linear.weight.zero_()
        linear.bias.zero_()
    centre = decoder.head.kernel_size[0]//2
    colours = min(3, first.linear.out_channels)
    for c in range(colours): first.linear.weight[c, c] = decoder.head.weight[c, c, centre, centre] = 1
    first.linear.bias[:colours], decoder.head.bias[:] = -mean[:colours], mean
    x = first.linear(images)
    for down, up in zip(downs, reversed(decoder.stages), strict=True):
        components = F.pad(principal_components(x, down.linear.out_channels), (1, 1, 1, 1))
        for linear in (down.linear, up.linear):
            linear.weight.copy_(components)
            linear.bias.zero_()
        x = down.linear(x)
    # not quite zero: a ReLU of zeros passes no gradient
    for stage in (*encoder.stages, *decoder.stages): stage.bn.weight.fill_(.01)


def principal_components(x, n):
    "Strongest components `[n, C, 2, 2]` of the 2×2 blocks of `x` `[N, C, H, W]`, about zero"
    h, w = (s//2*2 for s in x.shape[-2:])
    blocks = F.pixel_unshuffle(x[..., :h, :w], 2).permute(0, 2, 3, 1).flatten(0, 2)
    covariance = sum(b.T @ b for b in blocks.double().split(100_000))
    _, vectors = torch.linalg.eigh(covariance)  # eigenvalues ascend
    return vectors.flip(1)[:, :n].T.reshape(n, x.shape[1], 2, 2).float()
