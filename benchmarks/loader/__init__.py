"""`cacl bench-loader`: clips per second of loaders, side by side on the same clips of the same videos.

command      runs the benchmark from two folders of videos to a result
contenders   which loaders are compared
reference    the truth that a loader is checked against
run          one loader on one set of videos: check, warm-up, measurement, stats
stages       where the time of the `cpu` backend goes
output       table, JSON and chart
"""
