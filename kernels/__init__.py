"Operations of the inner loop: `ops` checks and chooses, `reference` is the maths, `*_triton` fused"
from .ops import masked_l1, zero_conv_merge

__all__ = ["masked_l1", "zero_conv_merge"]
