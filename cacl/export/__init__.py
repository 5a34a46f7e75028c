"""Trained encoders as files for programs that do not have this package.

`network` is what is exported, `formats` writes and reads each format, `description` is the JSON file beside them, and
`export` writes the files and checks them against the original.
"""
