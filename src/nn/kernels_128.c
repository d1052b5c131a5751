/* The kernels with vectors of 4 floats. */
#define SAP_WIDTH 4
#define SAP_FORM sap_kernels_128
#define SAP_FORM_NAME "128 bits"
#include "kernels_vector.h"
