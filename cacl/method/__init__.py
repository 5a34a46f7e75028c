"""The method of Guo et al. (CVPR 2022): what is computed in a step, apart from decoding and optimising.

`cacl` is the module that is trained. It consists of the trained encoders (`dual_encoder`), their momentum copies
(`ema`), the queue of keys (`key_queue`) and the losses (`losses`), which are taken over the chosen `pairs`.
"""
