/* Tables and their parts, for sapwood.spark.Survey. */
#include "jni_support.h"

#include <sapwood/table.h>
#include <stdlib.h>

static const sap_table *table_of(jlong handle) {
    return (const sap_table *)(uintptr_t)handle;
}

static struct ArrowSchema *schema_at(jlong address) {
    return (struct ArrowSchema *)(uintptr_t)address;
}

/* What both ways of opening are given. */
typedef struct asked {
    jni_texts urls, columns;
    char *tree;
    sap_table_options options;
    sap_pool *pool;
} asked;

static bool take_asked(JNIEnv *env, jobjectArray urls, jbyteArray tree, jboolean merge, jboolean skip,
                       jboolean identity, jint threads, asked *a) {
    bool failed = false;
    sap_error error = {0};
    if (!jni_texts_take(env, urls, &a->urls))
        return false;
    a->tree = jni_bytes(env, tree, &failed);
    a->options = (sap_table_options){.tree = a->tree, .merge = merge, .skip_bad = skip, .identity = identity};
    if (!failed && sap_pool_open(threads, &a->pool, &error) != SAP_OK) {
        jni_throw(env, &error);
        return false;
    }
    return !failed;
}

static void release_asked(asked *a) {
    jni_texts_release(&a->urls);
    jni_texts_release(&a->columns);
    free(a->tree);
    sap_pool_close(a->pool);
}

JNIEXPORT void JNICALL Java_sapwood_spark_Survey_readSchema(JNIEnv *env, jclass class, jobjectArray urls,
                                                            jbyteArray tree, jboolean merge, jboolean skip,
                                                            jboolean identity, jobjectArray columns, jint threads,
                                                            jlong out) {
    (void)class;
    asked a = {0};
    sap_error error = {0};
    if (take_asked(env, urls, tree, merge, skip, identity, threads, &a) && jni_texts_take(env, columns, &a.columns)) {
        sap_run run = {.pool = a.pool};
        a.options.columns = a.columns.items;
        a.options.column_count = a.columns.count;
        if (sap_table_schema_read(a.urls.items, a.urls.count, &a.options, &run, schema_at(out), &error) != SAP_OK)
            jni_throw(env, &error);
    }
    release_asked(&a);
}

JNIEXPORT jlong JNICALL Java_sapwood_spark_Survey_open(JNIEnv *env, jclass class, jobjectArray urls, jbyteArray tree,
                                                       jboolean merge, jboolean skip, jboolean identity, jlong schema,
                                                       jint threads) {
    (void)class;
    asked a = {0};
    sap_error error = {0};
    sap_table *table = NULL;
    if (take_asked(env, urls, tree, merge, skip, identity, threads, &a)) {
        sap_run run = {.pool = a.pool};
        a.options.schema = schema_at(schema);
        if (sap_table_open(a.urls.items, a.urls.count, &a.options, &run, &table, &error) != SAP_OK)
            jni_throw(env, &error);
    }
    release_asked(&a);
    return (jlong)(uintptr_t)table;
}

JNIEXPORT void JNICALL Java_sapwood_spark_Survey_close(JNIEnv *env, jclass class, jlong table) {
    (void)env;
    (void)class;
    sap_table_close((sap_table *)(uintptr_t)table);
}

JNIEXPORT jint JNICALL Java_sapwood_spark_Survey_fileCount(JNIEnv *env, jclass class, jlong table) {
    (void)env;
    (void)class;
    return (jint)sap_table_file_count(table_of(table));
}

JNIEXPORT jstring JNICALL Java_sapwood_spark_Survey_fileUrl(JNIEnv *env, jclass class, jlong table, jint index) {
    (void)class;
    return jni_text(env, sap_table_file_get(table_of(table), (size_t)index)->url);
}

JNIEXPORT jstring JNICALL Java_sapwood_spark_Survey_fileProblem(JNIEnv *env, jclass class, jlong table, jint index) {
    (void)class;
    return jni_text(env, sap_table_file_get(table_of(table), (size_t)index)->problem);
}

JNIEXPORT jlong JNICALL Java_sapwood_spark_Survey_fileEntries(JNIEnv *env, jclass class, jlong table, jint index) {
    (void)env;
    (void)class;
    return sap_table_file_get(table_of(table), (size_t)index)->entries;
}

JNIEXPORT jlong JNICALL Java_sapwood_spark_Survey_fileBytes(JNIEnv *env, jclass class, jlong table, jint index) {
    (void)env;
    (void)class;
    return (jlong)sap_table_file_get(table_of(table), (size_t)index)->bytes;
}

JNIEXPORT jlongArray JNICALL Java_sapwood_spark_Survey_plan(JNIEnv *env, jclass class, jlong table, jlong wanted,
                                                            jlong target_size, jint least) {
    (void)class;
    sap_table_slice *slices = NULL;
    size_t count = 0;
    sap_error error = {0};
    if (sap_table_plan(table_of(table), schema_at(wanted), (uint64_t)target_size, (size_t)least, &slices, &count,
                       &error) != SAP_OK) {
        jni_throw(env, &error);
        return NULL;
    }
    enum { NUMBERS = 4 };
    jlongArray out = count < INT32_MAX / NUMBERS ? (*env)->NewLongArray(env, (jsize)(count * NUMBERS)) : NULL;
    for (size_t i = 0; out && i < count; i++) {
        const jlong numbers[NUMBERS] = {(jlong)slices[i].file, slices[i].begin, slices[i].end, (jlong)slices[i].part};
        (*env)->SetLongArrayRegion(env, out, (jsize)(i * NUMBERS), NUMBERS, numbers);
    }
    free(slices);
    return out;
}
