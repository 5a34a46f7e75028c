"""What measures; only the command line and benchmarks/ know of it.

loader             `cacl bench-loader`: loaders side by side, its table and its files
contest            one loader on one kind of files: whether it shows what was asked for, then how fast
rivals             the loaders that people write today
kernels            `cacl bench-kernels`: kernels beside what other people do, its table and its files
kernel_problems    what is computed there: inputs, truth, ways and floor of each operation
contrast_problems  the same for both contrasts
kernel_rivals      how other people compute it
trial              one way of computing something: whether it computes that, then how fast
gauge              what a call takes of time and memory, and what the machine can do
launches           the launches of our kernels
resources          what a kernel takes of a GPU, told without one
figures            what both commands have in common when they tell their figures
picture            charts of horizontal bars
machine            what a figure was measured on, and what measuring it took
"""
