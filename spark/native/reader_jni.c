/* Reading a partition, for sapwood.spark.NativeReader. */
#include "jni_support.h"

#include <sapwood/table.h>
#include <stdlib.h>

/* Lives as long as the task; has one reader open at a time. */
typedef struct reading {
    volatile int cancel;
    sap_table_reader *reader;
    sap_table_reader_stats before; /* of the readers that are closed */
} reading;

static reading *reading_of(jlong handle) {
    return (reading *)(uintptr_t)handle;
}

static sap_table_reader_stats stats_of(const reading *r) {
    sap_table_reader_stats now = {0}, sum = r->before;
    if (r->reader)
        sap_table_reader_stats_get(r->reader, &now);
    sum.read += now.read;
    sum.kept += now.kept;
    sum.stored_bytes += now.stored_bytes;
    sum.bytes += now.bytes;
    sum.received_bytes += now.received_bytes;
    sum.baskets += now.baskets;
    sum.unpack_seconds += now.unpack_seconds;
    return sum;
}

static void close_reader(reading *r) {
    r->before = stats_of(r);
    sap_table_reader_close(r->reader);
    r->reader = NULL;
}

JNIEXPORT jlong JNICALL Java_sapwood_spark_NativeReader_create(JNIEnv *env, jclass class) {
    (void)class;
    reading *r = calloc(1, sizeof *r);
    if (!r)
        jni_throw(env, &(sap_error){SAP_EMEMORY, "out of memory"});
    return (jlong)(uintptr_t)r;
}

JNIEXPORT void JNICALL Java_sapwood_spark_NativeReader_open(JNIEnv *env, jclass class, jlong handle, jbyteArray url,
                                                            jbyteArray tree, jlong begin, jlong end, jlong schema,
                                                            jboolean lenient, jboolean identity, jbyteArray where,
                                                            jobjectArray hints, jlong batch_size) {
    (void)class;
    reading *r = reading_of(handle);
    jni_texts conditions = {0};
    sap_error error = {0};
    bool failed = false;
    close_reader(r);
    char *url_text = jni_bytes(env, url, &failed), *tree_text = failed ? NULL : jni_bytes(env, tree, &failed),
         *where_text = failed ? NULL : jni_bytes(env, where, &failed);
    if (!failed && jni_texts_take(env, hints, &conditions)) {
        const sap_table_reader_options options = {.url = url_text,
                                                  .tree = tree_text,
                                                  .begin = begin,
                                                  .end = end,
                                                  .wanted = (const struct ArrowSchema *)(uintptr_t)schema,
                                                  .lenient = lenient,
                                                  .identity = identity,
                                                  .where = where_text,
                                                  .hints = conditions.items,
                                                  .hint_count = conditions.count,
                                                  .batch_bytes = (size_t)batch_size};
        const sap_run run = {.cancel = &r->cancel};
        if (sap_table_reader_open(&options, &run, &r->reader, &error) != SAP_OK)
            jni_throw(env, &error);
    }
    jni_texts_release(&conditions);
    free(url_text);
    free(tree_text);
    free(where_text);
}

JNIEXPORT jboolean JNICALL Java_sapwood_spark_NativeReader_next(JNIEnv *env, jclass class, jlong handle, jlong array) {
    (void)class;
    struct ArrowArray *out = (struct ArrowArray *)(uintptr_t)array;
    sap_error error = {0};
    if (sap_table_reader_next(reading_of(handle)->reader, out, &error) != SAP_OK) {
        jni_throw(env, &error);
        return JNI_FALSE;
    }
    return out->release != NULL;
}

JNIEXPORT void JNICALL Java_sapwood_spark_NativeReader_cancel(JNIEnv *env, jclass class, jlong handle) {
    (void)env;
    (void)class;
    __atomic_store_n(&reading_of(handle)->cancel, 1, __ATOMIC_RELEASE);
}

JNIEXPORT jlongArray JNICALL Java_sapwood_spark_NativeReader_stats(JNIEnv *env, jclass class, jlong handle) {
    (void)class;
    const sap_table_reader_stats s = stats_of(reading_of(handle));
    const jlong numbers[] = {s.read,
                             s.kept,
                             (jlong)s.stored_bytes,
                             (jlong)s.bytes,
                             (jlong)s.received_bytes,
                             (jlong)s.baskets,
                             (jlong)(s.unpack_seconds * 1e9)};
    enum { COUNT = sizeof numbers / sizeof *numbers };
    jlongArray out = (*env)->NewLongArray(env, COUNT);
    if (out)
        (*env)->SetLongArrayRegion(env, out, 0, COUNT, numbers);
    return out;
}

JNIEXPORT void JNICALL Java_sapwood_spark_NativeReader_close(JNIEnv *env, jclass class, jlong handle) {
    (void)env;
    (void)class;
    close_reader(reading_of(handle));
    free(reading_of(handle));
}
