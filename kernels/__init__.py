"The inner loop: `ops` checks and chooses, `reference` is the maths, `*_triton` are fused"
from .ops import masked_l1, nearest, zero_conv_merge  # noqa: F401
