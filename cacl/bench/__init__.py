"""What measures; only the command line and benchmarks/ know of it.

loader    `cacl bench-loader`: loaders side by side, its table and its files
contest   one loader on one kind of files: whether it shows what was asked for, then how fast
rivals    the loaders that people write today
picture   a chart of horizontal bars
machine   what a figure was measured on, and what measuring it took
"""
