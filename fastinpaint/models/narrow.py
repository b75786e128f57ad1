"Convolutions of few channels, which leave most of a CPU's vector unit idle: blocks of pixels at once"
import torch
import torch.nn.functional as F

NARROW = 8  # channels up to which that pays
ROWS = 2, 1  # a block of two pixels, one below the other


def reflected(x, n):
    "`x` with `n` pixels more on each side, in its own type: autocast on a CPU would have float32"
    if x.device.type != "cpu": return F.pad(x, [n]*4, mode="reflect")
    with torch.autocast("cpu", enabled=False): return F.pad(x, [n]*4, mode="reflect")


def pixel_blocks(weight, bias, block=(2, 2)):
    "Weight `[i·j·O, C, k+i-1, k+j-1]` and bias of a convolution's outputs in each `block` of i×j pixels"
    rows, columns = block
    shifted = [F.pad(weight, (x, columns - 1 - x, y, rows - 1 - y))
               for y in range(rows) for x in range(columns)]
    return torch.cat(shifted), None if bias is None else bias.repeat(rows*columns)


def blocks_conv(padded, weight, bias, block=(2, 2)):
    "The convolution whose `pixel_blocks` these are: `[B, O, H, W]`, channels last in memory"
    y = F.conv2d(padded, weight, bias, block).permute(0, 2, 3, 1).unflatten(3, (*block, -1))
    return y.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def conv(padded, weight, bias=None, stride=1):
    "`conv2d` of `padded`; on a CPU one of few channels makes two pixels at once, by a larger kernel"
    narrow = stride in (1, (1, 1)) and len(weight) <= NARROW < weight[0, 0].numel()
    even = (padded.shape[2] - weight.shape[2]) % 2
    if not (narrow and even and padded.device.type == "cpu"): return F.conv2d(padded, weight, bias, stride)
    return blocks_conv(padded, *pixel_blocks(weight, bias, ROWS), ROWS)


def pointwise(x, weight, bias=None):
    "`conv2d` of a kernel of one pixel; on a CPU a matrix product, or of few channels two pixels at once"
    if x.device.type != "cpu": return F.conv2d(x, weight, bias)
    if max(weight.shape[:2]) <= NARROW and x.shape[2] % 2 == 0:
        return blocks_conv(x.contiguous(memory_format=torch.channels_last),
                           *pixel_blocks(weight, bias, ROWS), ROWS)
    if not x.is_contiguous(memory_format=torch.channels_last): return F.conv2d(x, weight, bias)
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def beside(conv, linear, padded, x):
    "`linear(x)` of a convolution with reflection padding beside `conv`, whose input is `padded`"
    if linear.kernel_size == (1, 1): return pointwise(x, linear.weight, linear.bias)
    shared = padded if linear.padding == conv.padding else x
    return F.conv2d(shared, linear.weight, linear.bias, linear.stride)
