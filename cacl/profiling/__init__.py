"""Where the time and the memory of a training step go.

recording     which steps are recorded, and by which profiler
stage_times   the table of stages, from what torch.profiler recorded
"""
