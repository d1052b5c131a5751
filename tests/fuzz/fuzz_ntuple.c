/* The RNTuple files of the corpus and their envelopes. */
#include "fuzz_ntuple.h"

#include <stdio.h>
#include <stdlib.h>

enum { PREAMBLE = 8, CHECKSUM = 8, ANCHOR_FIELDS = 56, VERSIONS = 8, FLAGS = 8, SPAN = 16 };

static const char *const names[FUZZ_NTUPLES] = {"ntuple.root", "ntuple_late.root"};

void fuzz_put64(uint8_t *at, uint64_t value) {
    value = __builtin_bswap64(value);
    memcpy(at, &value, sizeof value);
}

void fuzz_put_le64(uint8_t *at, uint64_t value) {
    memcpy(at, &value, sizeof value);
}

uint64_t fuzz_envelope_seal(uint8_t *envelope, size_t length) {
    uint64_t sum = sap_hash(envelope, length - CHECKSUM, 0);
    fuzz_put_le64(envelope + length - CHECKSUM, sum);
    return sum;
}

static size_t find_anchor(const uint8_t *data, size_t size) {
    static const char class_name[] = "\rROOT::RNTuple";
    for (size_t at = 100; at + 100 < size; at++)
        if (memcmp(data + at, class_name, sizeof class_name - 1) == 0) { /* the first is the record, before the keys */
            at += sizeof class_name - 1;
            at += 1u + data[at];
            at += 1u + data[at];
            return at + 6 + VERSIONS; /* behind the frame */
        }
    abort();
}

static void find_page_list(fuzz_ntuple *file) {
    const uint8_t *footer = file->data + file->footer.offset;
    sap_cursor c = sap_cursor_init(footer + PREAMBLE, (size_t)file->footer.bytes - PREAMBLE - CHECKSUM, PREAMBLE);
    size_t count;
    sap_cursor_skip(&c, FLAGS + CHECKSUM);
    (void)sap_ntuple_record(&c);
    sap_cursor groups = sap_ntuple_list(&c, 1, &count), group = sap_ntuple_record(&groups);
    sap_cursor_skip(&group, SPAN + 4);
    file->page_list_link = (size_t)(group.data + group.position - footer);
    sap_cursor_skip(&group, 8);
    file->page_list = sap_locator_parse(&group);
    if (group.failed || count != 1)
        abort();
}

fuzz_ntuple fuzz_ntuple_copy(uint8_t number) {
    static fuzz_ntuple files[FUZZ_NTUPLES];
    fuzz_ntuple *file = &files[number % FUZZ_NTUPLES];
    if (!file->data) {
        char path[1000];
        sap_error error = {0};
        file->number = number % FUZZ_NTUPLES;
        (void)snprintf(path, sizeof path, "%s/columns/%s", FUZZ_CORPUS, names[file->number]);
        if (sap_file_load(path, 1 << 20, (char **)&file->data, &file->file_size, &error) != SAP_OK) {
            (void)fprintf(stderr, "fuzz: %s\n", error.message);
            abort();
        }
        file->size = file->file_size + FUZZ_ROOM;
        file->anchor = find_anchor(file->data, file->file_size);
        const uint8_t *fields = file->data + file->anchor;
        file->header = (sap_locator){sap_be64(fields), sap_be64(fields + 8)};
        file->footer = (sap_locator){sap_be64(fields + 24), sap_be64(fields + 32)};
        find_page_list(file);
    }
    fuzz_ntuple copy = *file;
    copy.data = calloc(1, copy.size);
    if (!copy.data)
        abort();
    memcpy(copy.data, file->data, file->file_size);
    return copy;
}

static void put_locator(uint8_t *field, sap_locator at) { /* of the anchor: stored and uncompressed */
    fuzz_put64(field, at.offset);
    fuzz_put64(field + 8, at.bytes);
    fuzz_put64(field + 16, at.bytes);
}

void fuzz_ntuple_seal(fuzz_ntuple *file) {
    uint8_t *header = file->data + file->header.offset, *footer = file->data + file->footer.offset;
    uint8_t *page_list = file->data + file->page_list.offset, *anchor = file->data + file->anchor;
    uint64_t sum = fuzz_envelope_seal(header, (size_t)file->header.bytes);
    if (file->page_list.bytes >= PREAMBLE + CHECKSUM + CHECKSUM)
        fuzz_put_le64(page_list + PREAMBLE, sum);
    (void)fuzz_envelope_seal(page_list, (size_t)file->page_list.bytes);
    if (file->footer.bytes >= PREAMBLE + FLAGS + CHECKSUM + CHECKSUM)
        fuzz_put_le64(footer + PREAMBLE + FLAGS, sum);
    (void)fuzz_envelope_seal(footer, (size_t)file->footer.bytes);
    put_locator(anchor, file->header);
    put_locator(anchor + 24, file->footer);
    fuzz_put64(anchor + ANCHOR_FIELDS, sap_hash(anchor - VERSIONS, VERSIONS + ANCHOR_FIELDS, 0));
}
