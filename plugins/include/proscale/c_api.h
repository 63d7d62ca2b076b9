/* The operator as C functions: what ctypes, benchmarks and the TensorRT plugin call. */
#pragma once

#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

enum ProscaleType { PROSCALE_FLOAT = 0, PROSCALE_HALF = 1, PROSCALE_BFLOAT16 = 2 };

/* The readable kernel, the fast one, or the fast one where its conditions hold. */
enum ProscaleKernel { PROSCALE_AUTO = 0, PROSCALE_PLAIN = 1, PROSCALE_TILED = 2 };

struct ProscaleDeformAttn {
    int32_t type; /* of value, sampling and output: enum ProscaleType */
    int32_t heads, head_dim, points, levels;
    int32_t sizes[16]; /* H0, W0, H1, W1, ... of the levels */
};

/* Both functions: value (batch, S, heads * head_dim), sampling (batch, S, heads * levels * points * 3) and output
 * (batch, S, heads * head_dim) are dense and aligned to their elements. The layout of `sampling` is in
 * proscale_deploy/core/operator.py. */

/* On the device, queued on `stream` (a cudaStream_t): allocates nothing, never synchronises, may be captured into a
 * graph. Returns a cudaError_t: 1 (cudaErrorInvalidValue) for arguments that proscale_deform_attn_problem names, and
 * for PROSCALE_TILED where its conditions do not hold. */
int proscale_deform_attn_cuda(const struct ProscaleDeformAttn* op, int32_t batch, const void* value,
                              const void* sampling, void* output, int32_t kernel, void* stream);

/* The same on the host, with all threads that OpenMP gives. Returns 0, or 1 for wrong arguments. */
int proscale_deform_attn_host(const struct ProscaleDeformAttn* op, int32_t batch, const void* value,
                              const void* sampling, void* output);

/* Writes what is wrong with `op` to `text` (at most `capacity` bytes with the final 0), nothing if all is well. Returns
 * the length of the whole message. */
int32_t proscale_deform_attn_problem(const struct ProscaleDeformAttn* op, char* text, int32_t capacity);

/* "0.1.0", the version of the project that this library was built from. */
const char* proscale_version(void);

#if defined(__cplusplus)
}
#endif
