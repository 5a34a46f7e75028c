"""Training, from a configuration to a finished run folder: `train` in `trainer` sets a run up, and `fit` is its loop.

`run_state` takes the single step of a run, and `train_state` has what is special about it in a training without labels.
`finetuning` sets up runs with labels for the same loop: `finetune_state` has what is special about their steps,
`layer_rates` the learning rate of each group of layers, and `validation` judges the states of a run. Of a run without
labels, `embedding_measures` tells what its embeddings look like, `embedding_warnings` warns of what that means, and
`knn_validation` scores its encoders by labels that decide nothing.

Each of the others has one job: `choices` has the rules by which settings are chosen where no configuration is given,
and `choose_config` applies them; `training_videos` finds the videos, `run_manifest` keeps which ones a run began with,
`optim` makes the optimiser and the learning rate, `checkpointer` saves and resumes, `failure_log` accounts for clips
that are not trained on, `scalar_averages` averages what is logged, and `stop_signals` hears of Ctrl-C.
"""
