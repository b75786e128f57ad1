"Operations of the inner loop; plain torch today, with the arguments checked in one place"
from .ops import masked_l1, zero_conv_merge

__all__ = ["masked_l1", "zero_conv_merge"]
