"""What a command tells while it works, and what is drawn from results.

`console` shows messages and progress on stderr, `scalars` writes those of a training to TensorBoard and to the console,
and `charts` draws.
"""
