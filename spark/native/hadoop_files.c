/* Natives of sapwood.hadoop.NativeFiles: remote files opened, read, written, and named. A direct buffer of four bytes is the cancel flag of
 * every call that may wait. */
#include "jni_support.h"

#include <sapwood/access.h>
#include <stdlib.h>
#include <string.h>

#define NATIVE(type, name) JNIEXPORT type JNICALL Java_sapwood_hadoop_NativeFiles_##name

static void *pointer(jlong handle) {
    return (void *)(intptr_t)handle;
}

static jlong handle_of(const void *object) {
    return (jlong)(intptr_t)object;
}

static sap_run run_of(JNIEnv *env, jobject cancel) {
    return (sap_run){.cancel = cancel ? (*env)->GetDirectBufferAddress(env, cancel) : NULL};
}

/* Whether it went well; else an exception is pending. */
static bool passed(JNIEnv *env, sap_status status, sap_error *error) {
    if (status == SAP_OK)
        return true;
    error->status = status;
    jni_throw(env, error);
    return false;
}

static bool no_memory(JNIEnv *env) {
    sap_error error = {0};
    return passed(env, sap_error_set(&error, SAP_EMEMORY, "out of native memory"), &error);
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

NATIVE(jlong, open)(JNIEnv *env, jclass class, jbyteArray url, jobject cancel) {
    (void)class;
    bool failed = false;
    char *text = jni_bytes(env, url, &failed);
    if (failed)
        return 0;
    sap_error error = {0};
    const sap_run run = run_of(env, cancel);
    sap_source *source = NULL;
    (void)passed(env, sap_source_open(text, &run, &source, &error), &error);
    free(text);
    return handle_of(source);
}

NATIVE(void, close)(JNIEnv *env, jclass class, jlong source) {
    (void)env;
    (void)class;
    sap_source_close(pointer(source));
}

NATIVE(jlong, length)(JNIEnv *env, jclass class, jlong source) {
    (void)env;
    (void)class;
    return (jlong)sap_source_size(pointer(source));
}

NATIVE(jlongArray, cost)(JNIEnv *env, jclass class, jlong source) {
    (void)class;
    sap_source_stats stats;
    sap_source_stats_get(pointer(source), &stats);
    const jlong numbers[] = {(jlong)stats.requests, (jlong)stats.ranges, (jlong)stats.bytes, (jlong)stats.retries};
    jlongArray out = (*env)->NewLongArray(env, 4);
    if (out)
        (*env)->SetLongArrayRegion(env, out, 0, 4, numbers);
    return out;
}

NATIVE(void, read)
(JNIEnv *env, jclass class, jlong source, jlong position, jbyteArray to, jint at, jint length, jobject cancel) {
    (void)class;
    sap_error error = {0};
    const sap_run run = run_of(env, cancel);
    void *data = malloc(length > 0 ? (size_t)length : 1);
    if (!data) {
        (void)no_memory(env);
        return;
    }
    const sap_range range = {(uint64_t)position, (size_t)length, data};
    if (passed(env, sap_source_read(pointer(source), &range, 1, &run, &error), &error))
        (*env)->SetByteArrayRegion(env, to, at, length, data);
    free(data);
}

NATIVE(jlong, fetch)(JNIEnv *env, jclass class, jlong source, jlongArray positions, jintArray lengths) {
    (void)class;
    sap_error error = {0};
    sap_fetch *fetch = NULL;
    const jsize count = (*env)->GetArrayLength(env, positions);
    sap_range *ranges = calloc(count > 0 ? (size_t)count : 1, sizeof *ranges);
    jlong *from = (*env)->GetLongArrayElements(env, positions, NULL);
    jint *length = (*env)->GetIntArrayElements(env, lengths, NULL);
    if (ranges && from && length) {
        for (jsize i = 0; i < count; i++)
            ranges[i] = (sap_range){(uint64_t)from[i], (size_t)length[i], NULL};
        (void)passed(env, sap_fetch_start(pointer(source), ranges, (size_t)count, &fetch, &error), &error);
    } else {
        (void)no_memory(env);
    }
    if (length)
        (*env)->ReleaseIntArrayElements(env, lengths, length, JNI_ABORT);
    if (from)
        (*env)->ReleaseLongArrayElements(env, positions, from, JNI_ABORT);
    free(ranges);
    return handle_of(fetch);
}

NATIVE(void, await)(JNIEnv *env, jclass class, jlong fetch, jobject cancel) {
    (void)class;
    sap_error error = {0};
    const sap_run run = run_of(env, cancel);
    (void)passed(env, sap_fetch_wait(pointer(fetch), &run, &error), &error);
}

NATIVE(void, copy)(JNIEnv *env, jclass class, jlong fetch, jint index, jint from, jbyteArray to, jint at, jint length) {
    (void)class;
    (*env)->SetByteArrayRegion(env, to, at, length,
                               (const jbyte *)sap_fetch_data(pointer(fetch), (size_t)index) + from);
}

NATIVE(void, copyDirect)
(JNIEnv *env, jclass class, jlong fetch, jint index, jint from, jobject to, jint at, jint length) {
    (void)class;
    uint8_t *address = (*env)->GetDirectBufferAddress(env, to);
    memcpy(address + at, sap_fetch_data(pointer(fetch), (size_t)index) + from, (size_t)length);
}

NATIVE(void, release)(JNIEnv *env, jclass class, jlong fetch) {
    (void)env;
    (void)class;
    sap_fetch_close(pointer(fetch));
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

NATIVE(jlong, create)(JNIEnv *env, jclass class, jbyteArray url, jobject cancel) {
    (void)class;
    bool failed = false;
    char *text = jni_bytes(env, url, &failed);
    if (failed)
        return 0;
    sap_error error = {0};
    const sap_run run = run_of(env, cancel);
    sap_sink *sink = NULL;
    (void)passed(env, sap_sink_open(text, &run, &sink, &error), &error);
    free(text);
    return handle_of(sink);
}

NATIVE(void, write)(JNIEnv *env, jclass class, jlong sink, jobject data, jint length, jobject cancel) {
    (void)class;
    sap_error error = {0};
    const sap_run run = run_of(env, cancel);
    const void *bytes = (*env)->GetDirectBufferAddress(env, data);
    (void)passed(env, sap_sink_write(pointer(sink), bytes, (size_t)length, &run, &error), &error);
}

NATIVE(void, commit)(JNIEnv *env, jclass class, jlong sink, jobject cancel) {
    (void)class;
    sap_error error = {0};
    const sap_run run = run_of(env, cancel);
    (void)passed(env, sap_sink_commit(pointer(sink), &run, &error), &error);
}

NATIVE(void, discard)(JNIEnv *env, jclass class, jlong sink) {
    (void)env;
    (void)class;
    sap_sink_close(pointer(sink));
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

/* Length, time of change in seconds since 1970, 1 for a folder: of each file. */
static jlongArray numbers_of(JNIEnv *env, const sap_file_info *files, size_t count) {
    jlongArray out = (*env)->NewLongArray(env, (jsize)(3 * count));
    for (size_t i = 0; out && i < count; i++) {
        const jlong numbers[] = {(jlong)files[i].size, (jlong)files[i].modified, files[i].is_folder};
        (*env)->SetLongArrayRegion(env, out, (jsize)(3 * i), 3, numbers);
    }
    return out;
}

NATIVE(jlongArray, stat)(JNIEnv *env, jclass class, jbyteArray url, jobject cancel) {
    (void)class;
    bool failed = false;
    char *text = jni_bytes(env, url, &failed);
    if (failed)
        return NULL;
    sap_error error = {0};
    const sap_run run = run_of(env, cancel);
    sap_file_info info;
    bool found = passed(env, sap_store_stat(text, &run, &info, &error), &error);
    free(text);
    return found ? numbers_of(env, &info, 1) : NULL;
}

static jobjectArray names_of(JNIEnv *env, const sap_file_info *files, size_t count) {
    jclass text = (*env)->FindClass(env, "java/lang/String");
    jobjectArray out = text ? (*env)->NewObjectArray(env, (jsize)count, text, NULL) : NULL;
    for (size_t i = 0; out && i < count; i++) {
        jstring name = jni_text(env, files[i].name);
        if (!name)
            return NULL;
        (*env)->SetObjectArrayElement(env, out, (jsize)i, name);
        (*env)->DeleteLocalRef(env, name);
    }
    return out;
}

/* {String[] names, long[] numbers} */
NATIVE(jobjectArray, list)(JNIEnv *env, jclass class, jbyteArray url, jobject cancel) {
    (void)class;
    bool failed = false;
    char *text = jni_bytes(env, url, &failed);
    if (failed)
        return NULL;
    sap_error error = {0};
    const sap_run run = run_of(env, cancel);
    sap_file_info *files = NULL;
    size_t count = 0;
    jobjectArray out = NULL;
    if (passed(env, sap_store_list(text, &run, &files, &count, &error), &error)) {
        jobjectArray names = names_of(env, files, count);
        jlongArray numbers = names ? numbers_of(env, files, count) : NULL;
        jclass object = numbers ? (*env)->FindClass(env, "java/lang/Object") : NULL;
        out = object ? (*env)->NewObjectArray(env, 2, object, names) : NULL;
        if (out)
            (*env)->SetObjectArrayElement(env, out, 1, numbers);
    }
    free(files);
    free(text);
    return out;
}

NATIVE(void, rename)(JNIEnv *env, jclass class, jbyteArray from, jbyteArray to, jboolean replace, jobject cancel) {
    (void)class;
    bool failed = false;
    char *old = jni_bytes(env, from, &failed), *fresh = failed ? NULL : jni_bytes(env, to, &failed);
    sap_error error = {0};
    const sap_run run = run_of(env, cancel);
    if (!failed)
        (void)passed(env, sap_store_rename(old, fresh, replace, &run, &error), &error);
    free(fresh);
    free(old);
}

NATIVE(void, remove)(JNIEnv *env, jclass class, jbyteArray url, jboolean recursive, jobject cancel) {
    (void)class;
    bool failed = false;
    char *text = jni_bytes(env, url, &failed);
    sap_error error = {0};
    const sap_run run = run_of(env, cancel);
    if (!failed)
        (void)passed(env, sap_store_remove(text, recursive, &run, &error), &error);
    free(text);
}

NATIVE(void, makeFolder)(JNIEnv *env, jclass class, jbyteArray url, jobject cancel) {
    (void)class;
    bool failed = false;
    char *text = jni_bytes(env, url, &failed);
    sap_error error = {0};
    const sap_run run = run_of(env, cancel);
    if (!failed)
        (void)passed(env, sap_store_make_folder(text, &run, &error), &error);
    free(text);
}
