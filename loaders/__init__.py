"""Everything between video files and batches.

clip_loader         cacl.ClipLoader, which puts the folders below together: the one way from videos to batches
catalog             which videos there are: the scan of a folder or a list, and its cache
sampling            which clip is taken and what its views look like: plans, as pure functions of (seed, epoch, video)
decode              from the bytes of a file to frames: probing, reading from disk or a server, decoding, remuxing
prepared            prepared sets: writing them, and checking them
backends            from plans to batches of views, on a CPU or with DALI on a GPU
synthetic           a labelled set of videos that is made by the project itself
"""
