/* The files that records are put into: corpus/columns/NAME. Inputs name them by number, so new ones go to the end. */
#ifndef SAP_FUZZ_FILES_H
#define SAP_FUZZ_FILES_H

static const char *const fuzz_files[] = {
    "flat.root",  "sizes.root",  "collections.root",  "whole.root",  "split.root",
    "track.root", "vector.root", "vector_whole.root", "clones.root", "clones_whole.root",
};

#endif
