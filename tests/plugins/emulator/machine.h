// A CUDA device on the CPU, slow and strict: runs the real source of the kernels, compiled by g++.
//
// Kernels are written as usual, with one rule. All shared memory is dynamic, and declared inside namespace proscale as
//     extern __shared__ uint4 shared[];
// Launches go through cudaLaunchKernelEx (plugins/src/launch_kernel.cuh).
//
// A block's threads are fibers on one thread of the CPU; blocks run one after another. A fiber runs until it waits at a
// barrier or a shuffle, then another one is chosen at random. Whoever relies on an order that no barrier makes, gets
// other results from another seed. Errors end the launch, and error() says what happened:
// - a deadlock: a barrier or a shuffle that not all lanes of its mask reach;
// - __syncthreads after a thread of the block has left the kernel;
// - a lane that is not in its own mask, or that reads from a lane that takes no part;
// - a store behind the shared memory that the launch asked for.
// Shared memory is full of NaN when a block begins.
//
// Built with -fsanitize=address,undefined: accesses outside of tensors and shared memory, misaligned vectors.
// Built with -fsanitize=thread: races inside a block. Shuffles order nothing there, as on the device.
//
// It cannot find: races between blocks, what a missing `volatile` or fence does, hardware's own rounding of the
// approximate functions, anything about time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Set by the machine each time it goes on with a thread.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace emulator {

constexpr unsigned kWarpSize = 32;
constexpr size_t kSharedBytes = 48 * 1024;  // what a block can have without asking

unsigned lane();
void syncThreads();
void syncWarp(unsigned mask);
// Gives `bytes` from `mine`, and takes what lane `source` of the same warp gives.
void exchange(unsigned mask, unsigned source, const void* mine, void* theirs, size_t bytes);
// Which lanes of `mask` vote for it.
unsigned ballot(unsigned mask, bool vote);

// Runs `thread` for every thread of every block. False after an error.
bool run(dim3 grid, dim3 block, size_t sharedBytes, const std::function<void()>& thread);

// 0: threads run in their order; 1: in reverse; others: at random.
void setSeed(uint64_t seed);
// What went wrong in the last launch; empty if nothing did.
const std::string& error();

}  // namespace emulator
