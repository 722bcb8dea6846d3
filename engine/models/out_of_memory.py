"""What an accelerator's libraries raise when its memory is full: torch has a name for it, the others have theirs."""

from __future__ import annotations

import torch

# Of CUDA's runtime, its libraries for matrices and convolutions, and those that send between devices.
WORDS = (
    "out of memory",
    "cudaErrorMemoryAllocation",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "Failed to CUDA calloc",
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the error says that the accelerator's memory is full."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)
    )
