"The best linear autoencoder of image blocks: their principal components (Baldi & Hornik 1989)"
import torch
import torch.nn.functional as F


@torch.no_grad()
def start_at_pca(model, images):
    """Let the model's linear shortcuts encode and decode blocks of `images` `[N, 3, H, W]` by their principal components.

    The convolution stages start out silent, so that the model *is* the linear autoencoder until training teaches
    them what to add.
    """
    encoder, decoder = model.encoder, model.decoder
    components, mean = principal_components(images, encoder.shortcut.kernel_size[0], encoder.shortcut.out_channels)
    encoder.shortcut.weight.copy_(components)
    encoder.shortcut.bias.copy_(-(components*mean.view(1, 3, 1, 1)).sum((1, 2, 3)))
    decoder.shortcut.weight.copy_(components)
    decoder.shortcut.bias.copy_(mean)
    encoder.stages[-1].bn.weight.zero_()
    decoder.head.weight.zero_()
    decoder.head.bias.zero_()


def principal_components(images, block, n):
    "The `n` strongest orthonormal components `[n, 3, block, block]` of the blocks of `images` about their mean colour `[3]`"
    mean = images.mean((0, 2, 3)).double()
    h, w = (s//block*block for s in images.shape[-2:])
    blocks = F.pixel_unshuffle(images[..., :h, :w].double() - mean.view(1, 3, 1, 1), block).permute(0, 2, 3, 1).flatten(0, 2)
    _, vectors = torch.linalg.eigh(blocks.T @ blocks)  # eigenvalues ascend
    components = vectors.flip(1)[:, :n].T.view(n, 3, block, block)
    return components.float(), mean.float()
