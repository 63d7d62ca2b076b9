/* From mask logits to label maps and bitmaps at the size of the frame, as C functions: what post-processing does per
 * pixel. What it decides per query stays with the caller. runtime/compiled/mask_kernels.py calls them.
 *
 * ..._cuda: all pointers but those to the structs are the device's. Queued on `stream` (a cudaStream_t): allocates
 * nothing, never synchronises, may be captured into a graph; what it counts it clears before. Returns a cudaError_t: 1
 * (cudaErrorInvalidValue) for wrong arguments.
 * ..._host: the same on the host, with all threads that OpenMP gives. Returns 0, or 1 for wrong arguments and
 * where memory is too small. */
#pragma once

#include <stdint.h>

#include "proscale/c_api.h"

#if defined(__cplusplus)
extern "C" {
#endif

enum { PROSCALE_MOST_QUERIES = 2048, PROSCALE_MOST_CLASSES = 2048 };
enum { PROSCALE_LEAST_PIXELS = 3 /* of a mask's edge */, PROSCALE_MOST_PIXELS = 32768 /* of any edge */ };

/* One row or column of the output: sample s is at the sum over d < 3 of weight[s][d] * mask[first + d]. Weights are not
 * negative and sum up to 1. Where scores are resized instead of masks, the output is (1 - share) * f(sample 0) +
 * share * f(sample 1); else it is f(sample 0). */
struct ProscaleMaskTap {
    int32_t first; /* first + 2 is in the mask, too. Never falls from output to output, as the pixels of weight do */
    float weight[2][3];
    float share;
};

/* The masks of one image, and where they lie in the output. */
struct ProscaleMasks {
    int32_t type;                   /* of logits: PROSCALE_FLOAT or PROSCALE_HALF */
    int32_t samples;                /* 1; 2 where scores are resized instead of masks, for semantic maps only */
    int32_t queries, height, width; /* of logits, dense and aligned to their elements */
    int32_t output_height, output_width;
    const void* logits;                    /* finite: see proscale_count_nonfinite_cuda */
    const struct ProscaleMaskTap* rows;    /* output_height */
    const struct ProscaleMaskTap* columns; /* output_width */
};

/* Which of the kept queries has the greatest score * sigmoid(logit) at a pixel; the first of equals wins. A mask holds
 * a pixel where logit >= 0. */
struct ProscalePanoptic {
    int32_t kept;         /* 1 or more */
    const int32_t* query; /* (kept) of the queries, rising */
    const float* score;   /* (kept) */
    int16_t* codes;       /* (output_height, output_width): 2 * winner + whether its mask holds the pixel; the winner
                             counted among the kept */
    uint32_t* counts;     /* (kept, 3) pixels: won but not held, won and held, held whether won or not */
};

/* The class with the greatest sum over the queries of weight * sigmoid(logit), and that sum, off by 4e-5 at most; the
 * first of equal classes. */
struct ProscaleSemantic {
    int32_t classes;
    const float* weights; /* (classes, queries), not negative */
    int32_t* labels;      /* (output_height, output_width) */
    float* scores;        /* (output_height, output_width) */
};

/* What is known of a mask's positive pixels, all 0 where there are none. Only sums and maxima, so that all is 0 at
 * first. */
struct ProscaleMaskStats {
    uint64_t probability; /* the sum of sigmoid(logit), in units of 2^-24 */
    uint32_t count;
    uint32_t right, bottom;           /* of the box, exclusive */
    uint32_t from_right, from_bottom; /* output_width - left, output_height - top */
    uint32_t reserved;
};

/* Where the masks of some queries are positive: logit > 0. */
struct ProscaleInstances {
    int32_t wanted;       /* 1 or more */
    const int32_t* query; /* (wanted) of the queries */
    uint32_t* bits; /* (wanted, output_height, words): pixel x is bit x % 32 of word x / 32; `words` is output_width
                       / 32, rounded up, and bits beyond the row are 0 */
    struct ProscaleMaskStats* stats; /* (wanted) */
};

int proscale_panoptic_cuda(const struct ProscaleMasks* masks, const struct ProscalePanoptic* task, void* stream);
int proscale_panoptic_host(const struct ProscaleMasks* masks, const struct ProscalePanoptic* task);

int proscale_semantic_cuda(const struct ProscaleMasks* masks, const struct ProscaleSemantic* task, void* stream);
int proscale_semantic_host(const struct ProscaleMasks* masks, const struct ProscaleSemantic* task);

int proscale_instances_cuda(const struct ProscaleMasks* masks, const struct ProscaleInstances* task, void* stream);
int proscale_instances_host(const struct ProscaleMasks* masks, const struct ProscaleInstances* task);

/* map[i] = ids[codes[i]], i < count; ids has `entries`, all codes are below. */
int proscale_relabel_cuda(const int16_t* codes, int64_t count, const int32_t* ids, int32_t entries, int32_t* map,
                          void* stream);
int proscale_relabel_host(const int16_t* codes, int64_t count, const int32_t* ids, int32_t entries, int32_t* map);

/* *found = how many of `count` values are NaN or infinite. */
int proscale_count_nonfinite_cuda(int32_t type, const void* values, int64_t count, uint32_t* found, void* stream);
int proscale_count_nonfinite_host(int32_t type, const void* values, int64_t count, uint32_t* found);

#if defined(__cplusplus)
}
#endif
