"""The arithmetic of the method and of its loader, as operations of torch (`torch.ops.cacl`).

Four operations, three files or more each. `OPERATION.py` holds the function to call, its gradient and its registration,
`OPERATION_reference.py` the readable form in torch, and `OPERATION_triton.py` the Triton kernels with their launches.
Where there is an `OPERATION_cpu.py`, compiled by numba, it runs on a CPU; otherwise the readable form does.

contrast        contrasts anchors with positives and a queue of negatives, without the [N, K] logits
symmetric       contrasts two views of a batch with each other, both learning, across processes
edit_distance   measures the Levenshtein distance of frame orders, and of any integer sequences
augment         makes views of decoded frames

common          holds the tiles, loads, splits and checks that several kernels share
compiled        lets numba compile functions for the CPU at hand
dispatch        registers an operation and decides which form of it runs where

Nothing here imports anything of cacl outside of this folder.
"""
