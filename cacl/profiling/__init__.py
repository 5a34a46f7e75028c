"""Where the time and the memory of a training step go.

profile       trains up to the last step that is recorded
recording     which steps are recorded, and by which profiler
stage_times   the table of stages, from what torch.profiler recorded
nsight        the command lines of NVIDIA's profilers
"""
