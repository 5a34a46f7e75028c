"""What trained encoders are judged by.

`retrieval` has the protocol of video retrieval and its tables, and `recognition` that of classifiers on frozen
features: `nearest_neighbors`, `linear_probe` and `attentive_probe`, judged by `accuracy`. `finetuned` judges networks
that classify by themselves in the same way. All stand on `videos` (which of them are judged, and by which labels),
`features` (of each video a vector, or tokens, computed once and kept), `search` (the nearest features), `metrics` (the
scores of a retrieval, and intervals) and `baselines` (features that have learnt nothing).
`score_tables` has the scores as text, for terminals and pages.
"""
