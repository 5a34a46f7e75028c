"""`cacl bench-step`: one training step, eager and compiled, beside the step as the authors wrote it.

command      runs the benchmark from a configuration to a result
contenders   which steps are compared, and the batches that they take
run          one of them: check, warm-up, measurement, stats
scaling      our step on several processes
output       table, JSON and chart
"""
