"Operations of the inner loop: arguments checked in `ops`, the maths in `reference`, fused for GPUs in `*_triton`"
from .ops import masked_l1, zero_conv_merge

__all__ = ["masked_l1", "zero_conv_merge"]
