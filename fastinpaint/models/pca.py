"Where autoencoders start: a code of principal components, stage by stage (Baldi & Hornik 1989)"
import random
from itertools import chain

import torch
import torch.nn.functional as F

SHIFT = 8.  # standard deviations above zero at which a channel passes its ReLU
# of a mixture of colours what lies below (-1) or above (1) a threshold, in the order of their worth
GREY, RED, GREEN, BLUE = (1/3, 1/3, 1/3), (1., 0., 0.), (0., 1., 0.), (0., 0., 1.)
HINGES = [(GREY, -1, .12), (GREY, 1, .88), (RED, -1, .06), (BLUE, -1, .06), (BLUE, 1, .94), (GREEN, -1, .06),
          (RED, 1, .94), (GREEN, 1, .94)]


@torch.no_grad()
def start_at_pca(model, images):
    """Let the encoder code `images` `[N, 3, H, W]` by principal components, and the decoder mirror it.

    Each stage keeps the strongest components of 2×2 blocks of what came before. Linear paths, where the model
    has them, do it exactly, and ReLU paths start almost silent; else see `shift_to_pca`."""
    start = shift_to_pca if model.encoder.stages[0].linear is None else _linear_pca
    start(model.encoder, model.decoder, images)


def _linear_pca(encoder, decoder, images):
    "The first stage takes the mean colour off; overlap of blocks starts at zero"
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


def shift_to_pca(encoder, decoder, images):
    """The same for plain stages of convolution, BatchNorm and ReLU in eval mode: every channel is shifted.

    BatchNorm puts channels `SHIFT` standard deviations above zero, where ReLU is the identity. A shift leaves
    a 2×2 pattern behind each transposed convolution, which one bias a channel cannot take off: the last
    channel of every inner stage is given up for a constant 1, whose kernels do. The decoder's last stage
    holds colours and `HINGES`, of which the head makes logits that its sigmoid undoes."""
    (first, *downs), ups = encoder.stages, decoder.stages
    first.conv.weight.mul_(.02)  # channels that no colour needs: not zero, so that they can learn
    for c, kernel in enumerate(first.conv.weight[:3]):
        kernel.zero_()
        kernel[(c, *first.conv.padding)] = 1
    x, stages = _shifted(first, images), []
    for down in downs:
        components = principal_components(x - x.mean((0, 2, 3), keepdim=True), down.conv.out_channels)
        components[-1] = 0  # of the constant
        stages.append(components)
        down.conv.weight.copy_(F.pad(components, (1, 0, 1, 0)))
        x = _shifted(down, x, constant=True)
    for up, components in zip(ups, reversed(stages), strict=True):
        shift = x.mean((0, 2, 3))
        shift[-1] = 0
        components[-1] = -torch.einsum("c,cokl->okl", shift, components)
        up.conv.weight.copy_(F.pad(components, (1, 0, 1, 0)))
        up.conv.bias.zero_()
        if up is ups[-1]: x = _hinged(up, x, images.mean((0, 2, 3)))
        else:
            up.conv.weight[:, -1] = 0
            x = _shifted(up, x, constant=True)
    _fit_logits(decoder.head, x, images)


def _shifted(stage, x, constant=False):
    "`stage(x)` in eval mode, its channels `SHIFT` deviations above zero, or the last one a constant 1"
    y = stage.conv(x)
    mean, deviation = y.mean((0, 2, 3)), y.std((0, 2, 3)).clamp_min(1e-3)
    shift = SHIFT*deviation
    if constant: mean[-1], deviation[-1], shift[-1] = 0, 1, 1
    return _with_statistics(stage, mean, deviation, shift)(x)


def _hinged(stage, x, colour):
    "The same of the decoder's last stage: up to three colours, of the mean `colour`, then hinges of them"
    weight = stage.conv.weight
    channels, kernels = range(weight.shape[1]), weight[:, :3].clone()
    y = stage.conv(x)
    mean, deviation = y.mean((0, 2, 3)), y.std((0, 2, 3))
    shift = SHIFT*deviation
    mean[3:], deviation[3:] = 0, 1
    for i, (mix, sign, threshold) in zip(channels[3:], chain(HINGES, _random_hinges()), strict=False):
        mix = sign*torch.tensor(mix).to(weight)
        weight[:, i] = torch.einsum("ickl,c->ikl", kernels, mix)
        shift[i] = mix @ colour - sign*threshold
    return _with_statistics(stage, mean, deviation, shift)(x)


def _random_hinges():
    while True: yield torch.rand(3).softmax(0).tolist(), random.choice((-1, 1)), random.random()


def _with_statistics(stage, mean, deviation, shift):
    "`stage` in eval mode, whose BatchNorm adds `shift` to centred features of these statistics, all `[C]`"
    bn = stage.bn
    bn.running_mean.copy_(mean)
    bn.running_var.copy_(deviation**2)
    bn.weight.copy_((deviation**2 + bn.eps).sqrt())
    bn.bias.copy_(shift)
    return stage.eval()


def _fit_logits(head, x, images, pixels=100_000):
    "Let `head` look at single pixels of `x`, its sigmoid as close to `images` as Gauss–Newton gets it"
    every = -(-x[:, 0].numel()//pixels)
    def rows(t): return t.movedim(1, -1).flatten(0, -2)[::every].double().cpu()
    features, colours = F.pad(rows(x), (0, 1), value=1.), rows(images)
    logits = torch.logit(colours, .01)
    for _ in range(8):
        found = logits.sigmoid()
        slope = (found*(1 - found)).clamp_min(1e-3)
        wanted = colours - found + slope*logits
        columns = [torch.linalg.lstsq(features*d[:, None], y[:, None], driver="gelsd").solution
                   for d, y in zip(slope.T, wanted.T, strict=True)]
        solution = torch.cat(columns, 1)
        logits = features @ solution
    head.weight.zero_()
    head.weight[(..., *head.padding)] = solution[:-1].T.to(head.weight)
    head.bias.copy_(solution[-1])


def principal_components(x, n):
    "Strongest components `[n, C, 2, 2]` of the 2×2 blocks of `x` `[N, C, H, W]`, about zero"
    h, w = (s//2*2 for s in x.shape[-2:])
    blocks = F.pixel_unshuffle(x[..., :h, :w], 2).permute(0, 2, 3, 1).flatten(0, 2)
    covariance = sum(b.T @ b for b in blocks.double().split(100_000))
    _, vectors = torch.linalg.eigh(covariance)  # eigenvalues ascend
    return vectors.flip(1)[:, :n].T.reshape(n, x.shape[1], 2, 2).float()
