"""The harness that all benchmarks share.

comparison   contenders, the check against the truth, the warm-up and the interleaved repeats
calls        contenders that are a single call, and the roofline of a machine
stats        the spread over repeats, and ratios within a repeat
timing       seconds and memory of a call, and the rooflines of this machine
machine      what a benchmark ran on, and the processor time that it took
output       tables, the folder for results, JSON
ratio_bars   bars of a chart of times relative to the baseline
"""
