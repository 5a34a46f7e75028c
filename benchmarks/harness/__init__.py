"""The harness that the loader benchmark and the kernel benchmark share.

comparison   contenders, the check against the truth, the warm-up and the interleaved repeats
stats        the spread over repeats, and ratios within a repeat
timing       seconds and memory of a call, and the rooflines of this machine
machine      what a benchmark ran on, and the processor time that it took
output       tables, the folder for results, JSON
"""
