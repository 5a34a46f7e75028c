"""What other people write today, tuned as well as it can be: what ours is measured against.

loaders    loaders, as backends that follow the same plans as ours
kernels    losses, edit distances and views
packages   whether packages that only some of them need are installed
"""
