"""Sampling: which clip of which video is taken, and what its views look like.

Everything here is a pure function of (seed, epoch, video) and the configuration. No file is opened, and nothing depends
on ranks, threads or backends.

sampler             ClipSampler plans the training stream, evaluation_plans the clips of an evaluation
augmentation        crop, mirror and colours of a view
rng                 the random numbers, which stay the same for ever
"""
