/* Texts and errors between C and Java. */
#include "jni_support.h"

#include <stdlib.h>
#include <string.h>

static void throw_memory(JNIEnv *env) {
    jclass class = (*env)->FindClass(env, "java/lang/OutOfMemoryError");
    if (class)
        (void)(*env)->ThrowNew(env, class, "native memory");
}

jstring jni_text(JNIEnv *env, const char *text) {
    if (!text)
        return NULL;
    size_t length = strlen(text);
    jbyteArray bytes = (*env)->NewByteArray(env, (jsize)length);
    jclass support = bytes ? (*env)->FindClass(env, "sapwood/spark/Texts") : NULL;
    jmethodID decode = support ? (*env)->GetStaticMethodID(env, support, "decode", "([B)Ljava/lang/String;") : NULL;
    if (!decode)
        return NULL;
    (*env)->SetByteArrayRegion(env, bytes, 0, (jsize)length, (const jbyte *)text);
    jstring out = (*env)->CallStaticObjectMethod(env, support, decode, bytes);
    (*env)->DeleteLocalRef(env, bytes);
    (*env)->DeleteLocalRef(env, support);
    return out;
}

char *jni_bytes(JNIEnv *env, jbyteArray bytes, bool *failed) {
    if (!bytes)
        return NULL;
    jsize length = (*env)->GetArrayLength(env, bytes);
    char *text = malloc((size_t)length + 1);
    if (!text) {
        throw_memory(env);
        *failed = true;
        return NULL;
    }
    (*env)->GetByteArrayRegion(env, bytes, 0, length, (jbyte *)text);
    text[length] = '\0';
    return text;
}

bool jni_texts_take(JNIEnv *env, jobjectArray array, jni_texts *out) {
    jsize count = (*env)->GetArrayLength(env, array);
    bool failed = false;
    out->items = calloc((size_t)count + 1, sizeof(const char *));
    if (!out->items) {
        throw_memory(env);
        return false;
    }
    for (jsize i = 0; i < count && !failed; i++) {
        jbyteArray item = (*env)->GetObjectArrayElement(env, array, i);
        out->items[out->count++] = jni_bytes(env, item, &failed);
        (*env)->DeleteLocalRef(env, item);
    }
    return !failed;
}

void jni_texts_release(jni_texts *texts) {
    for (size_t i = 0; i < texts->count; i++)
        free((char *)(uintptr_t)texts->items[i]);
    free(texts->items);
    *texts = (jni_texts){0};
}

void jni_throw(JNIEnv *env, const sap_error *error) {
    jclass class = (*env)->FindClass(env, "sapwood/spark/SapwoodException");
    jmethodID make =
        class ? (*env)->GetMethodID(env, class, "<init>", "(Ljava/lang/String;Ljava/lang/String;)V") : NULL;
    jstring status = make ? (*env)->NewStringUTF(env, sap_status_name(error->status)) : NULL;
    jstring message = status ? jni_text(env, error->message) : NULL;
    jobject exception = message ? (*env)->NewObject(env, class, make, status, message) : NULL;
    if (exception)
        (void)(*env)->Throw(env, exception);
}
