"""Search by video: an index of the spans of all videos of a folder, and those that are most like the spans of another.

index   the files of an index, and whether they fit what is asked for
spans   the features of spans of videos
embed   makes an index, and brings it up to date: `cacl embed`
query   finds the spans of an index that are most like those of a video: `cacl search`
"""
