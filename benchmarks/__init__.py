"""Measures loaders and kernels beside those of other people. Only the commands import it.

harness   compares contenders of any kind: check, warm-up, interleaved repeats, stats, table and JSON
loader    `cacl bench-loader`: clips per second of loaders
kernels   `cacl bench-kernels`: seconds of kernels, and the resources that they take of a GPU
rivals    how other people load clips and compute what the kernels compute

Three folders exist in a checkout only, and are not installed: `results` holds what was measured, `scripts` holds
measurements that stand alone, and `gpu` holds what to run in a short time on a machine with a GPU.
"""
