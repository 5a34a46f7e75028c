"""The names of the files in the folder of a prepared set by which a scan tells what the folder is."""

INDEX_NAME = "index.safetensors"
"""The index of a prepared set, which is written last; having one makes a folder a prepared set."""
CONVERSION_LOG_NAME = "conversion_log.jsonl"
"""The log of what `cacl data prepare` has done so far; with it and without an index, a set is unfinished."""
SHARD_LOGS = "conversion_log.*-of-*.jsonl"
"""The logs of a set that is made in shards, with the number of the shard and that of all; `cacl data join` merges them
into one."""
