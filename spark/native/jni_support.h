/* What the JNI functions share: texts as UTF-8 bytes both ways, and errors as Java exceptions. Java's own "modified UTF-8" is not
 * used: names in files may hold any bytes. */
#ifndef SAPWOOD_JNI_SUPPORT_H
#define SAPWOOD_JNI_SUPPORT_H

#include <jni.h>
#include <sapwood/base.h>

/* A Java string of UTF-8 bytes; what is not UTF-8 becomes U+FFFD. NULL: NULL, or an exception is pending. */
jstring jni_text(JNIEnv *env, const char *text);
/* The UTF-8 bytes of a byte[] as a C text, malloc'ed; NULL for null, or when out of memory (`*failed` is set then, and an exception is pending). */
char *jni_bytes(JNIEnv *env, jbyteArray bytes, bool *failed);
/* A byte[][] as C texts. Zeroed is empty. */
typedef struct jni_texts {
    const char **items; /* (count) */
    size_t count;
} jni_texts;
/* false: an exception is pending; release it all the same. */
bool jni_texts_take(JNIEnv *env, jobjectArray array, jni_texts *out);
void jni_texts_release(jni_texts *texts);

/* Throws sapwood.spark.SapwoodException with the message and status. */
void jni_throw(JNIEnv *env, const sap_error *error);

#endif
