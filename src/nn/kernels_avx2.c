/* The kernels with vectors of 8 floats. */
#define SAP_WIDTH 8
#define SAP_FORM sap_kernels_avx2
#define SAP_FORM_NAME "avx2"
#include "kernels_vector.h"
