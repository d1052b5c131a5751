/* Runs the topology recipe over a dump of columns and writes what it gives as raw arrays, for test_reference.py:
 * topology_driver DUMP CONVENTION THREADS OUT */
#include "dump.h"

#include <sapwood/recipe.h>

#include <stdlib.h>

static bool put(FILE *file, const void *data, size_t bytes) {
    return bytes == 0 || fwrite(data, 1, bytes, file) == bytes;
}

/* kept, values of particles, cuts; entry, hlf, offsets of particles, particles, dropped. */
static bool write_features(const char *path, const sap_batch *features, const int64_t *dropped, size_t cuts) {
    const sap_column *hlf = sap_batch_find(features, "hlf"), *particles = sap_batch_find(features, "particles");
    const sap_column *entry = sap_batch_find(features, "entry");
    size_t kept = (size_t)features->length, values = (size_t)particles->offsets[kept];
    const int64_t header[3] = {(int64_t)kept, (int64_t)values, (int64_t)cuts};
    FILE *file = fopen(path, "wb");
    bool good = file && put(file, header, sizeof header) && put(file, entry->values, kept * sizeof(int64_t)) &&
                put(file, hlf->children[0].values, kept * (size_t)hlf->size * sizeof(float)) &&
                put(file, particles->offsets, (kept + 1) * sizeof(int32_t)) &&
                put(file, particles->children[0].values, values * sizeof(float)) &&
                put(file, dropped, cuts * sizeof *dropped);
    return file && fclose(file) == 0 && good;
}

int main(int count, char **arguments) {
    if (count != 5) {
        (void)fprintf(stderr, "usage: topology_driver DUMP CONVENTION THREADS OUT\n");
        return 2;
    }
    sap_error error = {0};
    sap_batch batch = {0}, features = {0};
    sap_run run = {0};
    const sap_recipe *recipe;
    int64_t dropped[16] = {0};
    if (!dump_read(arguments[1], &batch))
        return 1;
    bool good = sap_pool_open(atoi(arguments[3]), &run.pool, &error) == SAP_OK &&
                sap_recipe_find("topology", arguments[2], &recipe, &error) == SAP_OK &&
                sap_recipe_run(recipe, &batch, arguments[1], &run, &features, dropped, &error) == SAP_OK;
    if (!good)
        (void)fprintf(stderr, "%s\n", error.message);
    else if (!(good = write_features(arguments[4], &features, dropped, recipe->cut_count)))
        (void)fprintf(stderr, "%s: cannot be written\n", arguments[4]);
    sap_batch_release(&features);
    sap_batch_release(&batch);
    sap_pool_close(run.pool);
    return good ? 0 : 1;
}
