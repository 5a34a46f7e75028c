"""The networks: what turns clips into vectors, and what is put on top of these vectors in training.

`encoder` says what an encoder has. `cnn3d` has the 3D CNNs, `video_transformer` the video transformer with what turns
its frames into tokens, and `heads` the two heads. `video_classifier` puts a linear
classifier on any encoder. `recompute` saves the memory of activations. `embedder_weights` reads weights of image models
from files. `create` builds encoders by the names that `cacl.registry` has:

    cnn = create_model("r3d18", width=0.5)
    transformer = create_model("video_transformer", frames=8, embedder="light", width=192, depth=4)
"""
