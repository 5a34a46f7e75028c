"""The commands of `cacl`, a file for each group. They parse arguments, call the package that does the work, and print.

`options` has the options that several commands share, `output` prints results, and `completion` tells a shell what
may follow. A command imports what it works with only when it runs, so that `cacl --help` waits neither for torch nor
for DALI.
"""
