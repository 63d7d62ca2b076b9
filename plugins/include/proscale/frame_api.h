/* From a frame to the network's input, as C functions. */
#pragma once

#include <stdint.h>

#include "proscale/c_api.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* One axis of a resize: output i is sum over k < count of weights[i * stride + k] * input[first[i] + k], plus a half,
 * shifted right by 22 bits. runtime/compiled/frame_kernels.py makes the tables. */
struct ProscaleTaps {
    const int32_t* first;   /* one per output; never falls; first + count is at most the input's size */
    const int32_t* weights; /* in units of 2^-22, not negative, the sum of each row about 1 */
    int32_t count;          /* at most 16384 */
    int32_t stride;         /* at least count; the weights from count on are 0 */
};

struct ProscalePreprocess {
    const uint8_t* frame; /* (height, width, 3) bytes, in the order BGR */
    int64_t pitch;        /* bytes from row to row */
    int32_t height, width;
    int32_t resized_height, resized_width;
    int32_t output_height, output_width; /* at least the resized size; beyond it the output is 0 */
    int32_t type;                        /* of output: PROSCALE_FLOAT or PROSCALE_HALF */
    int32_t rgb;                         /* 1: the planes of output are R, G, B; 0: B, G, R */
    float mean[3], std[3];               /* in the order of the planes */
    struct ProscaleTaps rows;
    struct ProscaleTaps columns; /* stride and address of weights are multiples of 4 and 16 */
    void* output;                /* (3, output_height, output_width), dense, aligned to its elements */
};

/* Both functions resize the frame as Pillow does (columns first, then rows, bytes after each), write
 * (byte - mean) / std and zeros right of it and below. */

/* All pointers but `task` are the device's. Queued on `stream` (a cudaStream_t): allocates nothing, never synchronises,
 * may be captured into a graph. Returns a cudaError_t: 1 (cudaErrorInvalidValue) for wrong arguments. */
int proscale_preprocess_cuda(const struct ProscalePreprocess* task, void* stream);

/* The same on the host, with all threads that OpenMP gives. Returns 0, or 1 for wrong arguments and where memory runs
 * out. */
int proscale_preprocess_host(const struct ProscalePreprocess* task);

#if defined(__cplusplus)
}
#endif
