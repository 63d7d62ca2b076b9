// For functions that the host and, under nvcc, the device have.
#pragma once

#if defined(__CUDACC__)
#define PROSCALE_HD __host__ __device__ __forceinline__
#else
#define PROSCALE_HD inline
#endif
