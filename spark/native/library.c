/* What the library is: versions, for sapwood.spark.Natives. */
#include "jni_support.h"

JNIEXPORT jstring JNICALL Java_sapwood_spark_Natives_libraryVersion(JNIEnv *env, jclass class) {
    (void)class;
    return (*env)->NewStringUTF(env, sap_version());
}

JNIEXPORT jstring JNICALL Java_sapwood_spark_Natives_libraryParts(JNIEnv *env, jclass class) {
    (void)class;
    return jni_text(env, sap_version_parts());
}
