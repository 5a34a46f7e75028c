"""Backends: each turns plans into batches of views, and all make the same views of the same plan.

select              choose_backend says which one runs here, build_backend builds it
trial               tries dali beside cpu where both run, for `auto`; trial_memory keeps what came of it
thread_pool         loads clip by clip in threads, with the function of one of the next two
cpu                 the fast path on a CPU: YUV planes to views by yuv_to_rgb_resize, in memory of buffer_pool
reference           the readable path that defines what a view is; pillow_ops has the 8-bit steps of the official recipe
dali                decodes and augments on a GPU, with dali_sources, dali_reading, dali_graph and dali_views
"""
