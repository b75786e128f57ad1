"How kernels address tensors of any layout: a plane of pixels as one axis, where memory allows"
import triton
import triton.language as tl


def flat(*tensors):
    "Whether one stride leads from pixel to pixel, row after row, in every tensor"
    return all(t.stride(2) == t.shape[3]*t.stride(3) or t.shape[2] == 1 for t in tensors)


@triton.jit
def pixel_offset(pixel, width, row, column, FLAT: tl.constexpr):
    "Offset of `pixel`, counted row by row, in its plane, by strides of a `row` and a `column`"
    if FLAT: return pixel.to(tl.int64)*column
    return (pixel // width).to(tl.int64)*row + (pixel % width).to(tl.int64)*column
