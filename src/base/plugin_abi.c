/* With which interface a plug-in was built: a part of each of them, which plugin.c reads before anything else. */
#include <plugin_abi.h>

#include <sapwood/base.h>

extern const char sap_plugin_abi[];
SAP_API const char sap_plugin_abi[] = SAP_PLUGIN_ABI;
