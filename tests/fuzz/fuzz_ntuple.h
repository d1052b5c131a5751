/* RNTuple files whose parts the targets `envelope` and `page` exchange, and the checksums that then have to be made anew. */
#ifndef SAP_FUZZ_NTUPLE_H
#define SAP_FUZZ_NTUPLE_H

#include "fuzz.h"

#include "root/ntuple.h"

enum { FUZZ_NTUPLES = 2, FUZZ_ROOM = 1 << 16 };

/* A file of corpus/columns with room behind its end; what stands where in it. */
typedef struct fuzz_ntuple {
    int number;
    uint8_t *data;
    size_t file_size, size;                /* without and with the room */
    size_t anchor;                         /* its fields, behind version numbers */
    sap_locator header, footer, page_list; /* envelopes, uncompressed */
    size_t page_list_link;                 /* in the footer: its length, then its locator */
} fuzz_ntuple;

/* A fresh copy of the file, freed by the caller. */
fuzz_ntuple fuzz_ntuple_copy(uint8_t number);
/* Puts the checksum of an envelope right. */
uint64_t fuzz_envelope_seal(uint8_t *envelope, size_t length);
/* Makes header, footer, page list and anchor fit each other. */
void fuzz_ntuple_seal(fuzz_ntuple *file);
void fuzz_put64(uint8_t *at, uint64_t value); /* big-endian */
void fuzz_put_le64(uint8_t *at, uint64_t value);

#endif
