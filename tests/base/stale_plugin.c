/* A plug-in as another build of the library might have left it. */
extern const char sap_plugin_abi[], sap_plugin_http[];
__attribute__((visibility("default"))) const char sap_plugin_abi[] = "0123456789ab";
__attribute__((visibility("default"))) const char sap_plugin_http[] = "stale";
