"""A labelled set of short H.264 clips in which motion and appearance are independent labels.

A video is a procedural texture, seen through a similarity transform that changes steadily with time. Eight motions
times six textures; colours, texture and pose are drawn for each video.

dataset             synthesise writes the videos and the list of their labels
render              the frames of one video: motions, poses and colours; the labels of its motion
textures            the six appearances
"""
