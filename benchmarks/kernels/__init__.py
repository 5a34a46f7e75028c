"""`cacl bench-kernels`: seconds and memory of kernels beside other ways to compute the same.

command             runs the benchmark from the names of operations to a result
problems            all problems, those that decide most first
contrast_problems   inputs, truth, contenders and roofline of both contrasts
edit_distance_problem, augment_problem   the same for edit distances and for views of clips
run                 one problem: check, warm-up, measurement, stats of its contenders
launches            the launches of our kernels for the usual sizes
resources           registers, shared memory and spills of a kernel, from compiling it ahead of time
output              table, JSON and chart
"""
