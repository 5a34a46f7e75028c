"""The arithmetic of the method and of its loader, as operations of torch: torch.ops.cacl.

contrast        anchors against positives and a queue of negatives, without the [N, K] logits
symmetric       two views of a batch against each other, both learning, across processes
edit_distance   of frame orders, and of any integer sequences
augment         decoded frames to views
dispatch        which form runs where, and registration

Each module holds, from top to bottom: what to call, the readable form in torch, the Triton kernels with what launches
them, and what is registered. Nothing here imports anything of cacl outside of this folder.
"""
