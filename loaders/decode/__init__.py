"""From the bytes of a video file to its frames.

probe        what a file really holds, found by decoding all of it: frames, damage, seek points
damage       what makes a file unusable; `ffmpeg_log` collects what FFmpeg says of it
raw          `decode_frames`: frames by number, of raw files from the last seek point on
fragments    the same of prepared videos, from the bytes of a few fragments; `mp4` reads their boxes
remux        a clip as a small file of its own, for DALI
orientation  how a container wants frames to be mirrored and turned
yuv          frames as 8-bit planes, their orientation, and the matrix that turns them into RGB
storage      the bytes of files on disk and at URLs
"""
