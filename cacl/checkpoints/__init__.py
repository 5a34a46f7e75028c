"""What a training run stores: `checkpoint` holds all that it needs to go on, `encoders` what everybody else uses."""

"""What a training run stores: `checkpoint` holds all that it needs to go on, `encoders` what everybody else uses."""
