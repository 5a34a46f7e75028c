"""Everything between video files and batches.

which videos    layouts (with folders, lists, entries), catalog (scan), probe, remarks; synth makes some
which clips     draws (random numbers), sampling (clip and order), augment (crop, flip, colours): pure plans
prepared sets   prepare (the set), transcode (a video), workers, journal, verify; index, mp4, prepared (reading)
bytes, frames   storage (disk, HTTP, object stores), decode (raw and prepared), yuv, fragment (cuts for DALI)
batches         build chooses: host (with mix, memory) and reference (with pillow) in threaded, or dali (with views)
failures        ledger (what was not trained on), roster (the videos that a run began with)
"""
