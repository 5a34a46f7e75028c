"""Which video files a data set holds, and what its folders and lists say of each. Nothing is decoded here.

The layouts, one file each, in the order in which `auto` tries them:

    ucf101       `trainlist0N.txt` and `testlist0N.txt`, class folders
    hmdb51       `<class>_test_split<N>.txt`, class folders
    kinetics     CSV lists with the columns youtube_id, time_start, time_end, split and mostly label
    csv_lists    lists of paths with, if known, labels and splits (called `csv` in data.layout)
    classes      one folder per class, within or around one folder per split if there are such
    folder       videos without labels, at any depth, perhaps in one folder per split

`cacl.registry` has the table of them: a new layout is one file with a `Layout` and one line there, or, in another
package, a call of `cacl.register_layout`. What they share:

    layout          what a layout consists of: `recognise` and `read`
    search          the files below a root
    list_files      lists of videos in text files; `list_format` finds out how one is written
    matching        which video a line of a list means
    folder_labels   the classes and splits that folders tell; `split_names` has the words for splits
    listing         the entry of each video, and the listing of all
    hold_out        test and validation videos where nothing tells which videos are for that

Splits are `train`, `val` and `test`. Names in lists count without regard to the suffix, so that a transcoded copy of a
data set keeps its lists, and where only one file can be meant also without regard to case and to folders in front. A
folder is searched as a whole, and videos that its lists do not name are kept with split None. A root that is itself a
list stands for exactly the videos it names.
"""
