"""Prepared sets: small copies of videos, written once, of which a clip is one short read.

prepare         makes a prepared set of a data set, and goes on with one that is unfinished; `summary` is its result
join            makes one set of the shards that `prepare` made
finish          writes the index, the end of both
shard           which sources belong to which shard, and the names of their logs
convert_source  one source: `transcode` writes its prepared video
transcode       copies or encodes a video as H.264 or HEVC in an MP4 file of independent fragments
target          the folder that is written to
conversion_log  what is done so far, on disk
process_pool    work in processes that may crash
verify          compares a prepared set with its sources
"""
