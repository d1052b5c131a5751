/* The kernels with vectors of 16 floats. */
#define SAP_WIDTH 16
#define SAP_FORM sap_kernels_avx512
#define SAP_FORM_NAME "avx512"
#include "kernels_vector.h"
