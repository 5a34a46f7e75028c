"""What trained encoders are judged by.

`retrieval` has the protocol of video retrieval and its tables. It stands on `videos` (which of them are judged, and by
which labels), `features` (one vector per video, computed once and kept), `search` (the most similar videos), `metrics`
(recall, average precision, intervals) and `baselines` (features that have learnt nothing).
"""
