"""Which videos a data set holds, and what is known of each.

scan              finds and decodes all videos of a root, or opens the index of a prepared set
catalog           the result: usable videos, rejected files and missing names
combined_catalog  the catalogs of several roots as one
validation_split  validation videos for a data set that has none
scan_cache        what decoding found, kept on disk
quirks            what is unusual about videos that are used all the same
layouts/          how labels and splits are read from lists and folders
index_writer      writes the index of a prepared set; `index_reader` opens it, in the format of `index_format`
prepared_videos   the videos of such an index, as a sequence of records
prepared_files    the names of the files that make a folder a prepared set
"""
