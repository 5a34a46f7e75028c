"""Measures loaders, kernels and training steps beside those of other people. Only the commands import it.

harness   compares contenders of any kind: check, warm-up, interleaved repeats, stats, table and JSON
loader    `cacl bench-loader`: clips per second of loaders
kernels   `cacl bench-kernels`: seconds of kernels, and the resources that they take of a GPU
step      `cacl bench-step`: seconds of a training step, and the stages that they go into
rivals    how other people load clips, compute what the kernels compute, and take a step

Three folders exist in a checkout only, and are not installed: `results` holds what was measured, `scripts` holds
measurements that stand alone, and `gpu` holds what to run in a short time on a machine with a GPU.
"""
