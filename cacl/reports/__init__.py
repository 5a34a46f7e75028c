"""Pages of results for a browser: one HTML file each, which needs neither a server nor a network.

`page` writes such a file from a template of `templates/`, `previews` makes small moving pictures of clips, and
`figures` saves charts for papers and puts them into pages. Each page has a file of its own: `clips` shows what training
is about to see, `training` how it goes, with the clips of `training_samples` and the figures that `curves` draws of the
`scalar_groups`, `retrieval` and `recognition` what evaluations found, both with `confusion`, and `search` what is like
a video.
"""
