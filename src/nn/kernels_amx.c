/* The kernels with vectors of 16 floats, and products in bf16 on tiles: weights and inputs are rounded, sums are float32. */
#define SAP_WIDTH 16
#define SAP_TILES
#ifdef SAP_TILES_EMULATED
#define SAP_FORM sap_kernels_amx_emulated
#define SAP_FORM_NAME "amx, emulated"
#else
#define SAP_FORM sap_kernels_amx
#define SAP_FORM_NAME "amx"
#endif
#include "kernels_vector.h"
