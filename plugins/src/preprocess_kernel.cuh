// The kernel of the preprocessing: resize, normalise and pad in one go.
//
// A block makes a tile of the output. It resizes the columns of those rows of the frame that the tile's rows need into
// a strip of shared memory, some rows at a time, and adds them up there: the frame is read once, but for the two output
// rows' worth by which neighbouring tiles overlap.
#pragma once

#include "proscale/resize.h"
#include "proscale/scalar.h"

namespace proscale {

constexpr int kTileWidth = 64, kTileHeight = 16;              // output pixels
constexpr int kStripRows = 32;                                // of the frame, resized at a time
constexpr int kPreprocessThreads = 256;                       // of a block
constexpr int kStripSlots = kPreprocessThreads / kTileWidth;  // strip rows that the block works on at once
constexpr int kQuads = kTileWidth / 4;                        // a thread adds up four columns
static_assert(kPreprocessThreads == kQuads * kTileHeight, "one thread for four columns of each row");

// Dynamic shared memory: the strip, laid out as (row, channel, column), then a table of the normalised bytes.
constexpr size_t kStripBytes = size_t{kStripRows} * 3 * kTileWidth;
template <typename T>
constexpr size_t kPreprocessSharedBytes = kStripBytes + 3 * 256 * sizeof(T);

__device__ __forceinline__ uint32_t byteOf(uint32_t word, int index) { return __byte_perm(word, 0, 0x4440 + index); }

// Four pixels of a row of the frame, from byte `offset` on, as 12 bytes; those beyond the row are anything. With kWords
// rows begin and end at multiples of 4 bytes.
template <bool kWords>
__device__ __forceinline__ void loadFour(const uint8_t* row, int offset, int rowBytes, uint32_t (&pixels)[3]) {
    if constexpr (kWords) {
        const auto* const words = reinterpret_cast<const uint32_t*>(row);
        uint32_t low = __ldg(words + offset / 4);
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            const uint32_t high = __ldg(words + min(offset / 4 + i + 1, rowBytes / 4 - 1));
            pixels[i] = static_cast<uint32_t>((uint64_t{high} << 32 | low) >> offset % 4 * 8);
            low = high;
        }
    } else {
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            pixels[i] = 0;
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                pixels[i] |= uint32_t{__ldg(row + min(offset + 4 * i + b, rowBytes - 1))} << 8 * b;
            }
        }
    }
}

// Resizes the columns of `rows` rows of the frame, from row `begin` on, for the tile's columns. A thread takes one
// column of several rows, two at a time, which share their weights.
template <bool kWords>
__device__ __forceinline__ void fillStrip(const ProscalePreprocess& task, int begin, int rows, uint8_t* strip) {
    constexpr int kAtOnce = 2;
    const ProscaleTaps& taps = task.columns;
    const int column = threadIdx.x % kTileWidth, slot = threadIdx.x / kTileWidth;
    // A tile may reach beyond the frame's last column: those threads repeat it.
    const int x = min(static_cast<int>(blockIdx.x * kTileWidth) + column, task.resized_width - 1);
    const int offset = 3 * __ldg(taps.first + x), rowBytes = 3 * task.width;
    const auto* const weights = reinterpret_cast<const uint4*>(taps.weights + int64_t{x} * taps.stride);
    const auto at = [](const uint32_t (&pixels)[3], int pixel, int channel) {
        const int byte = 3 * pixel + channel;
        return byteOf(pixels[byte / 4], byte % 4);
    };

    for (int r = slot; r < rows; r += kAtOnce * kStripSlots) {
        const uint8_t* source[kAtOnce];
        uint32_t sum[kAtOnce][3];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            source[i] = task.frame + (begin + min(r + i * kStripSlots, rows - 1)) * task.pitch;
#pragma unroll
            for (int c = 0; c < 3; ++c) sum[i][c] = kRounding;
        }
        for (int k = 0; k < taps.count; k += 4) {
            const uint4 weight = __ldg(weights + k / 4);
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) {
                uint32_t pixels[3];
                loadFour<kWords>(source[i], offset + 3 * k, rowBytes, pixels);
#pragma unroll
                for (int c = 0; c < 3; ++c) {
                    sum[i][c] += weight.x * at(pixels, 0, c) + weight.y * at(pixels, 1, c) +
                                 weight.z * at(pixels, 2, c) + weight.w * at(pixels, 3, c);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            const int row = r + i * kStripSlots;
            if (row >= rows) break;
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                strip[(row * 3 + c) * kTileWidth + column] = static_cast<uint8_t>(toByte(sum[i][c]));
            }
        }
    }
}

// Four neighbours in a plane, `count` of which exist: stored at once where their place allows it.
template <typename T>
__device__ __forceinline__ void storeFour(const T (&value)[4], int count, T* to) {
    struct alignas(4 * sizeof(T)) Vector {
        T element[4];
    };
    if (count >= 4 && reinterpret_cast<uintptr_t>(to) % sizeof(Vector) == 0) {
        *reinterpret_cast<Vector*>(to) = {value[0], value[1], value[2], value[3]};
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (i < count) to[i] = value[i];
    }
}

// Grid: columns x rows of tiles, over the whole output. Four blocks leave 64 registers a thread, which reading single
// bytes does not fit in.
template <typename T, bool kWords>
__global__ void __launch_bounds__(kPreprocessThreads, kWords ? 4 : 3)
    preprocessTile(const __grid_constant__ ProscalePreprocess task) {
    extern __shared__ uint4 shared[];
    auto* const strip = reinterpret_cast<uint8_t*>(shared);
    auto* const table = reinterpret_cast<T*>(shared + kStripBytes / sizeof(uint4));
    const int left = blockIdx.x * kTileWidth, top = blockIdx.y * kTileHeight;
    const ProscaleTaps& taps = task.rows;

    const int column = threadIdx.x % kQuads * 4;
    const int x = left + column, y = top + static_cast<int>(threadIdx.x / kQuads);
    uint32_t sum[3][4];
#pragma unroll
    for (int c = 0; c < 3; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[c][i] = kRounding;
    }

    static_assert(kPreprocessThreads == 256, "a thread for each byte");
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        const int plane = planeOf(task, c);
        table[c * 256 + threadIdx.x] = fromFloat<T>(normalise(threadIdx.x, task.mean[plane], task.std[plane]));
    }

    if (left < task.resized_width && top < task.resized_height) {  // else all of the tile is padding
        const int lastRow = min(top + kTileHeight, task.resized_height) - 1;
        const int end = __ldg(taps.first + lastRow) + taps.count;
        const int first = __ldg(taps.first + min(y, lastRow));
        const int32_t* const weights = taps.weights + int64_t{min(y, lastRow)} * taps.stride;
        for (int begin = __ldg(taps.first + top); begin < end; begin += kStripRows) {
            const int rows = min(kStripRows, end - begin);
            fillStrip<kWords>(task, begin, rows, strip);
            __syncthreads();
            const int last = min(first + taps.count, begin + rows);
            for (int row = max(first, begin); row < last; ++row) {
                const auto weight = static_cast<uint32_t>(__ldg(weights + (row - first)));
                const auto* const four =
                    reinterpret_cast<const uint32_t*>(strip + (row - begin) * 3 * kTileWidth + column);
#pragma unroll
                for (int c = 0; c < 3; ++c) {
                    const uint32_t bytes = four[c * kQuads];
#pragma unroll
                    for (int i = 0; i < 4; ++i) sum[c][i] += weight * byteOf(bytes, i);
                }
            }
            __syncthreads();
        }
    }

    if (x >= task.output_width || y >= task.output_height) return;
    T* const output = static_cast<T*>(task.output) + int64_t{y} * task.output_width + x;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        T value[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const bool padding = y >= task.resized_height || x + i >= task.resized_width;
            value[i] = padding ? fromFloat<T>(0.f) : table[c * 256 + toByte(sum[c][i])];
        }
        storeFour(value, task.output_width - x,
                  output + int64_t{planeOf(task, c)} * task.output_height * task.output_width);
    }
}

}  // namespace proscale
