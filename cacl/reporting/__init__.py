"""What a command tells while it works, and what is drawn from results.

`console` shows messages and progress on stderr, `scalars` writes those of a training to the console and to its sinks,
`sinks` has one file for each kind of them, and `charts` draws.
"""
