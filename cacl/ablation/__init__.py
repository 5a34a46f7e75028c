"""Ablations: a recipe is trained with some of its keys changed, with several seeds, and the trainings are compared.

`rows` says which changes there are: by default those that leave out parts of the method. `runs` trains and judges each
row with each seed, and goes on where it was interrupted. `comparison` makes tables of what came of it: means, their
spread over the seeds, and differences that are paired by seed and video.
"""
