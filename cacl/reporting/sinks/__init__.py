"""Where scalars are written: one file for each kind of place, and what they have in common.

`sink` is the interface, and `select` opens the sinks of a run. `jsonl` and `tensorboard` write into the folder of every
run. `wandb_sink` and `trackio_sink` are opened where `train.loggers` says so, and need wandb and trackio.
"""
