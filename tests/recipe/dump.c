/* Reading the plain column files of the tests. */
#include "dump.h"

#include <stdlib.h>

static bool read_array(FILE *file, struct sap_storage *storage, size_t bytes, void *to) {
    void *data = sap_storage_alloc(storage, bytes + 1);
    if (!data || fread(data, 1, bytes, file) != bytes)
        return false;
    memcpy(to, &data, sizeof data);
    return true;
}

static bool read_column(FILE *file, sap_batch *batch, sap_column *column) {
    char name[200], type[20], newline;
    long long items;
    if (fscanf(file, "%199s %19s %lld%c", name, type, &items, &newline) != 4)
        return false;
    sap_field item = {.name = "item", .type = SAP_FLOAT32};
    if (strcmp(type, "int32") == 0)
        item.type = SAP_INT32;
    if (strcmp(type, "uint32") == 0)
        item.type = SAP_UINT32;
    sap_field field = {.name = name, .type = SAP_LIST, .count = 1, .children = &item};
    if (sap_column_init(batch->storage, &field, column, NULL) != SAP_OK)
        return false;
    column->length = batch->length;
    column->children[0].length = items;
    return read_array(file, batch->storage, (size_t)(batch->length + 1) * sizeof(int32_t), &column->offsets) &&
           read_array(file, batch->storage, (size_t)items * 4, &column->children[0].values);
}

bool dump_read(const char *path, sap_batch *out) {
    FILE *file = fopen(path, "rb");
    long long events;
    int count;
    char newline;
    bool good =
        file && fscanf(file, "%lld %d%c", &events, &count, &newline) == 3 && sap_batch_init(out, count, NULL) == SAP_OK;
    if (good) {
        out->length = events;
        for (int i = 0; good && i < count; i++)
            good = read_column(file, out, &out->columns[i]);
    }
    if (file)
        (void)fclose(file);
    if (!good)
        (void)fprintf(stderr, "%s: is no dump of columns\n", path);
    return good;
}
