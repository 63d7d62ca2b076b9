// Not compiled with -fsanitize=thread even where the kernels are: what is shared here is shared on purpose.
#include "machine.h"

#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "vector_types.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#if defined(EMULATOR_TSAN)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif

namespace emulator {
constexpr size_t kGuardBytes = 4096;  // behind the shared memory that a launch asks for
constexpr size_t kStorageBytes = kSharedBytes + kGuardBytes;
}  // namespace emulator

namespace proscale {
alignas(1024) uint4 shared[emulator::kStorageBytes / sizeof(uint4)];
}

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {
namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kLargestOperand = 16;

enum class State { kReady, kBlockBarrier, kWarpBarrier, kShuffle, kDone };
const char* const kNames[] = {"runs", "waits at __syncthreads", "waits at __syncwarp", "waits at a shuffle", "is done"};

// Orders memory for the race detector: what came before a release is seen after an acquire of the same object.
struct Order {
    char clock = 0;
#if defined(EMULATOR_TSAN)
    void release() { __tsan_release(&clock); }
    void acquire() { __tsan_acquire(&clock); }
#else
    void release() {}
    void acquire() {}
#endif
};

struct Fiber {
    ucontext_t context;
#if defined(EMULATOR_TSAN)
    void* tsan = nullptr;
#endif
    std::unique_ptr<char[]> stack;

    void switchTo(Fiber& other) {
#if defined(EMULATOR_TSAN)
        constexpr unsigned kNoSync = 1;
        __tsan_switch_to_fiber(other.tsan, kNoSync);
#endif
        swapcontext(&context, &other.context);
    }
};

struct Thread : Fiber {
    State state = State::kDone;
    unsigned number = 0;            // within the block
    unsigned mask = 0, source = 0;  // source: the lane whose operand is asked for
    char operand[kLargestOperand]{}, result[kLargestOperand]{};
    unsigned votes = 0;  // lanes whose operand does not begin with 0
    Order warpOrder;  // of the group whose lowest lane this is
};

struct Machine {
    std::mutex oneLaunch;
    std::mt19937_64 random;
    uint64_t seed = 0;
    std::string error;

    Fiber scheduler;
    std::vector<std::unique_ptr<Thread>> threads;  // kept from launch to launch
    std::vector<unsigned> ready;
    Thread* current = nullptr;
    const std::function<void()>* body = nullptr;
    unsigned count = 0;  // threads of a block
    Order start, barrier, end;

    void fail(const std::string& what);
    void wait(State state);
    void startBlock();
    bool runBlock(size_t sharedBytes);
    void arrived(unsigned number);
    std::string describeDeadlock() const;
};
Machine machine;

std::string describe(uint3 index) {
    return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

std::string describe(const Thread& thread) {
    char mask[16];
    std::snprintf(mask, sizeof mask, "0x%08x", thread.mask);
    const bool masked = thread.state == State::kWarpBarrier || thread.state == State::kShuffle;
    return "thread " + std::to_string(thread.number) + " " + kNames[static_cast<int>(thread.state)] +
           (masked ? std::string(", mask ") + mask : "");
}

void Machine::fail(const std::string& what) {
    if (error.empty()) error = "block " + describe(blockIdx) + ": " + what;
}

// From a fiber back to the scheduler, which comes back once the barrier or the shuffle is complete.
void Machine::wait(State state) {
    Thread& self = *current;
    self.state = state;
    self.switchTo(scheduler);
}

// Releases those who wait at what thread `number` has just reached, or left by ending, if all have come.
void Machine::arrived(unsigned number) {
    const Thread& self = *threads[number];
    if (self.state == State::kReady) return;
    if (self.state == State::kBlockBarrier || self.state == State::kDone) {
        unsigned waiting = 0, done = 0;
        for (unsigned t = 0; t < count; ++t) {
            waiting += threads[t]->state == State::kBlockBarrier;
            done += threads[t]->state == State::kDone;
        }
        if (waiting > 0 && done > 0 && waiting + done == count) {
            return fail("__syncthreads after " + std::to_string(done) + " threads have left the kernel");
        }
        if (waiting == count) {
            for (unsigned t = 0; t < count; ++t) {
                threads[t]->state = State::kReady;
                ready.push_back(t);
            }
        }
    }
    // Lanes may wait in several groups; one that ends may complete any of them.
    const unsigned warp = number / kWarpSize * kWarpSize, lanes = std::min(kWarpSize, count - warp);
    for (unsigned lane = 0; lane < lanes; ++lane) {
        const Thread& first = *threads[warp + lane];
        if (first.state != State::kWarpBarrier && first.state != State::kShuffle) continue;
        const unsigned mask = first.mask;
        const State state = first.state;
        const auto takesPart = [&](unsigned other) {
            return other < lanes && mask >> other & 1 && threads[warp + other]->state == state &&
                   threads[warp + other]->mask == mask;
        };
        bool complete = true;
        for (unsigned other = 0; other < lanes; ++other) {
            if (mask >> other & 1) complete &= takesPart(other) || threads[warp + other]->state == State::kDone;
        }
        if (!complete) continue;
        if (state == State::kShuffle) {
            unsigned votes = 0;
            for (unsigned other = 0; other < lanes; ++other) {
                if (takesPart(other) && threads[warp + other]->operand[0] != 0) votes |= 1u << other;
            }
            for (unsigned other = 0; other < lanes; ++other) {
                if (!takesPart(other)) continue;
                Thread& reader = *threads[warp + other];
                if (reader.source >= kWarpSize || !takesPart(reader.source)) {
                    return fail(describe(reader) + ": reads from lane " + std::to_string(reader.source) +
                                ", which takes no part");
                }
                std::memcpy(reader.result, threads[warp + reader.source]->operand, kLargestOperand);
                reader.votes = votes;
            }
        }
        for (unsigned other = lane; other < lanes; ++other) {
            if (!takesPart(other)) continue;
            threads[warp + other]->state = State::kReady;
            ready.push_back(warp + other);
        }
    }
}

std::string Machine::describeDeadlock() const {
    std::string text = "deadlock";
    for (unsigned t = 0; t < std::min(count, kWarpSize); ++t) text += "; " + describe(*threads[t]);
    return text;
}

void threadMain() {
    machine.start.acquire();
    (*machine.body)();
    machine.end.release();
    machine.wait(State::kDone);
    std::abort();  // a thread that is done is never chosen
}

void Machine::startBlock() {
    while (threads.size() < count) {
        threads.push_back(std::make_unique<Thread>());
        threads.back()->stack = std::make_unique<char[]>(kStackBytes);
#if defined(EMULATOR_TSAN)
        threads.back()->tsan = __tsan_create_fiber(0);
#endif
    }
    ready.clear();
    for (unsigned t = 0; t < count; ++t) {
        Thread& thread = *threads[t];
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.get();
        thread.context.uc_stack.ss_size = kStackBytes;
        thread.context.uc_link = nullptr;
        makecontext(&thread.context, threadMain, 0);
        thread.number = t;
        thread.state = State::kReady;
        ready.push_back(t);
    }
}

bool Machine::runBlock(size_t sharedBytes) {
    auto* const bytes = reinterpret_cast<unsigned char*>(proscale::shared);
    const size_t guarded = sharedBytes + kGuardBytes;
    std::memset(bytes, 0xff, guarded);
#if defined(__SANITIZE_ADDRESS__)
    ASAN_POISON_MEMORY_REGION(bytes + sharedBytes, kStorageBytes - sharedBytes);
#endif
    startBlock();
    start.release();
    while (!ready.empty() && error.empty()) {
        const auto chosen = seed == 0   ? std::min_element(ready.begin(), ready.end())
                            : seed == 1 ? std::max_element(ready.begin(), ready.end())
                                        : ready.begin() + static_cast<std::ptrdiff_t>(random() % ready.size());
        const unsigned number = *chosen;
        *chosen = ready.back();
        ready.pop_back();
        current = threads[number].get();
        threadIdx = {number % blockDim.x, number / blockDim.x % blockDim.y, number / blockDim.x / blockDim.y};
        scheduler.switchTo(*current);
        arrived(number);
    }
    for (unsigned t = 0; t < count && error.empty(); ++t) {
        if (threads[t]->state != State::kDone) fail(describeDeadlock());
    }
    end.acquire();
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(bytes, kStorageBytes);
#endif
    if (std::any_of(bytes + sharedBytes, bytes + guarded, [](unsigned char byte) { return byte != 0xff; })) {
        fail("a store behind the " + std::to_string(sharedBytes) + " bytes of shared memory");
    }
    return error.empty();
}

}  // namespace

unsigned lane() { return machine.current->number % kWarpSize; }

void syncThreads() {
    machine.barrier.release();
    machine.wait(State::kBlockBarrier);
    machine.barrier.acquire();
}

namespace {
void waitInWarp(State state, unsigned mask) {
    Thread& self = *machine.current;
    self.mask = mask;
    if (!(mask >> self.number % kWarpSize & 1)) {
        self.state = state;
        machine.fail(describe(self) + ": the lane is not in its own mask");
    }
    machine.wait(state);
}
}  // namespace

void syncWarp(unsigned mask) {
    const Thread& self = *machine.current;
    const auto lowest = static_cast<unsigned>(__builtin_ctz(mask | 1u << 31));
    const unsigned leader = self.number / kWarpSize * kWarpSize + lowest;
    Order& order = machine.threads[std::min(leader, machine.count - 1)]->warpOrder;
    order.release();
    waitInWarp(State::kWarpBarrier, mask);
    order.acquire();
}

void exchange(unsigned mask, unsigned source, const void* mine, void* theirs, size_t bytes) {
    Thread& self = *machine.current;
    self.source = source;
    std::memcpy(self.operand, mine, bytes);
    waitInWarp(State::kShuffle, mask);
    std::memcpy(theirs, self.result, bytes);
}

unsigned ballot(unsigned mask, bool vote) {
    const char mine = vote;
    char same;
    exchange(mask, lane(), &mine, &same, sizeof mine);
    return machine.current->votes;
}

bool run(dim3 grid, dim3 block, size_t sharedBytes, const std::function<void()>& thread) {
    const std::lock_guard<std::mutex> lock(machine.oneLaunch);
    machine.error.clear();
    machine.random.seed(machine.seed);
    gridDim = grid;
    blockDim = block;
    machine.count = block.x * block.y * block.z;
    machine.body = &thread;
#if defined(EMULATOR_TSAN)
    machine.scheduler.tsan = __tsan_get_current_fiber();
#endif
    for (unsigned z = 0; z < grid.z; ++z) {
        for (unsigned y = 0; y < grid.y; ++y) {
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = {x, y, z};
                if (!machine.runBlock(sharedBytes)) return false;
            }
        }
    }
    return true;
}

void setSeed(uint64_t seed) { machine.seed = seed; }

const std::string& error() { return machine.error; }

}  // namespace emulator
