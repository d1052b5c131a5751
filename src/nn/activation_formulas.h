/* Activations of single numbers and their derivatives: the formulas of the plain kernels and of the GPU. */
#ifndef SAP_ACTIVATION_FORMULAS_H
#define SAP_ACTIVATION_FORMULAS_H

#include "kernels.h"

#include <math.h>

#if defined(__CUDACC__)
#define SAP_FORMULA __host__ __device__ static inline
#else
#define SAP_FORMULA static inline
#endif

#define SAP_SELU_SCALE 1.05070098735548049F
#define SAP_SELU_ALPHA 1.67326324235437728F
#define SAP_GELU_ROOT 0.797884560802865F /* sqrt(2/π) */
#define SAP_GELU_CUBE 0.044715F

SAP_FORMULA float sap_normal_distribution(float x) {
    return 0.5F * erfcf(-x * 0.707106781186547524F);
}

SAP_FORMULA float sap_squareplus(float x) { /* (x + root) / 2 without cancellation */
    float root = sqrtf(x * x + 4);
    return x < 0 ? 2 / (root - x) : (root + x) / 2;
}

/* Not for softmax and its logarithm, which need the whole row. */
SAP_FORMULA float sap_activation_value(sap_activation f, float x) {
    switch (f.kind) {
    case SAP_RELU:
        return x < 0 ? 0 : x;
    case SAP_RELU_GENERAL:
        return x < f.threshold ? f.alpha * (x - f.threshold) : x > f.limit ? f.limit : x;
    case SAP_ELU:
        return x < 0 ? f.alpha * expm1f(x) : x;
    case SAP_SELU:
        return SAP_SELU_SCALE * (x < 0 ? SAP_SELU_ALPHA * expm1f(x) : x);
    case SAP_SIGMOID:
        return 1 / (1 + expf(-x));
    case SAP_HARD_SIGMOID:
        return x < -3 ? 0 : x > 3 ? 1 : x / 6 + 0.5F;
    case SAP_TANH:
        return tanhf(x);
    case SAP_SOFTPLUS:
        return x > 0 ? x + log1pf(expf(-x)) : log1pf(expf(x));
    case SAP_SOFTSIGN:
        return x / (1 + fabsf(x));
    case SAP_EXPONENTIAL:
        return expf(x);
    case SAP_SILU:
        return x / (1 + expf(-x));
    case SAP_GELU:
        return x * sap_normal_distribution(x);
    case SAP_GELU_TANH:
        return 0.5F * x * (1 + tanhf(SAP_GELU_ROOT * (x + SAP_GELU_CUBE * x * x * x)));
    case SAP_HARD_SILU:
        return x < -3 ? 0 : x > 3 ? x : x * (x / 6 + 0.5F);
    case SAP_MISH:
        return x * tanhf(x > 0 ? x + log1pf(expf(-x)) : log1pf(expf(x)));
    case SAP_LOG_SIGMOID:
        return x < 0 ? x - log1pf(expf(x)) : -log1pf(expf(-x));
    case SAP_SQUAREPLUS:
        return sap_squareplus(x);
    case SAP_SPARSE_PLUS:
        return x <= -1 ? 0 : x < 1 ? (x + 1) * (x + 1) / 4 : x;
    case SAP_SPARSE_SIGMOID:
        return x <= -1 ? 0 : x >= 1 ? 1 : (x + 1) / 2;
    case SAP_HARD_TANH:
        return x < -1 ? -1 : x > 1 ? 1 : x;
    case SAP_TANH_SHRINK:
        return x - tanhf(x);
    case SAP_SOFT_SHRINK:
        return x > 0.5F ? x - 0.5F : x < -0.5F ? x + 0.5F : 0;
    case SAP_HARD_SHRINK:
        return x <= 0.5F && x >= -0.5F ? 0 : x;
    case SAP_LINEAR:
    case SAP_LOG_SOFTMAX:
    case SAP_SOFTMAX:
        break;
    }
    return x;
}

/* da/dz from z, or from a where that is enough. */
SAP_FORMULA float sap_activation_slope(sap_activation f, float z, float a) {
    switch (f.kind) {
    case SAP_RELU:
        return a > 0 ? 1 : 0;
    case SAP_RELU_GENERAL:
        return z > f.limit ? 0 : z > f.threshold ? 1 : f.alpha;
    case SAP_ELU:
        return a < 0 ? a + f.alpha : 1;
    case SAP_SELU:
        return a < 0 ? a + SAP_SELU_SCALE * SAP_SELU_ALPHA : SAP_SELU_SCALE;
    case SAP_SIGMOID:
        return a * (1 - a);
    case SAP_HARD_SIGMOID:
        return a > 0 && a < 1 ? 1.0F / 6 : 0;
    case SAP_TANH:
        return 1 - a * a;
    case SAP_SOFTPLUS:
        return -expm1f(-a);
    case SAP_SOFTSIGN:
        return (1 - fabsf(a)) * (1 - fabsf(a));
    case SAP_EXPONENTIAL:
        return a;
    case SAP_SILU: {
        float s = 1 / (1 + expf(-z));
        return s * (1 + z * (1 - s));
    }
    case SAP_GELU:
        return sap_normal_distribution(z) + z * 0.398942280401433F * expf(-0.5F * z * z);
    case SAP_GELU_TANH: {
        float h = tanhf(SAP_GELU_ROOT * (z + SAP_GELU_CUBE * z * z * z));
        return 0.5F * (1 + h) + 0.5F * z * (1 - h * h) * SAP_GELU_ROOT * (1 + 3 * SAP_GELU_CUBE * z * z);
    }
    case SAP_HARD_SILU:
        return z < -3 ? 0 : z > 3 ? 1 : z / 3 + 0.5F;
    case SAP_MISH: {
        float h = tanhf(z > 0 ? z + log1pf(expf(-z)) : log1pf(expf(z)));
        return h + z * (1 - h * h) / (1 + expf(-z));
    }
    case SAP_LOG_SIGMOID:
        return 1 / (1 + expf(z));
    case SAP_SQUAREPLUS:
        return sap_squareplus(z) / sqrtf(z * z + 4);
    case SAP_SPARSE_PLUS:
        return z <= -1 ? 0 : z < 1 ? (z + 1) / 2 : 1;
    case SAP_SPARSE_SIGMOID:
        return z > -1 && z < 1 ? 0.5F : 0;
    case SAP_HARD_TANH:
        return z < -1 || z > 1 ? 0 : 1;
    case SAP_TANH_SHRINK:
        return tanhf(z) * tanhf(z);
    case SAP_SOFT_SHRINK:
    case SAP_HARD_SHRINK:
        return z <= 0.5F && z >= -0.5F ? 0 : 1;
    case SAP_LINEAR:
    case SAP_LOG_SOFTMAX:
    case SAP_SOFTMAX:
        break;
    }
    return 1;
}

#endif
