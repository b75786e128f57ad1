"The next batch goes to the GPU, and is augmented there, while it trains on this one"
from collections.abc import Iterator

import torch


def ahead(batches: Iterator, device: torch.device | None) -> Iterator:
    """The same `batches`, each a sequence of tensors; on a GPU one is always ready beside the one in use.

    It is copied and augmented on a stream of its own: on that of the training it would have to wait for the
    step before, and the GPU then for it. On other devices batches pass as they are."""
    if device is None or device.type != "cuda":
        yield from batches
        return
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    def following():
        with torch.cuda.stream(side): return next(batches, None)
    upcoming = following()
    while (batch := upcoming) is not None:
        training = torch.cuda.current_stream(device)
        training.wait_stream(side)
        # their memory belongs to the side stream, which must not use it again before the training has
        for part in batch: part.record_stream(training)
        upcoming = following()
        yield batch
