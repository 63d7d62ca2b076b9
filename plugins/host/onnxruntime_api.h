// What a custom operator needs of ONNX Runtime's C API (onnxruntime_c_api.h, MIT license), declared here because ONNX
// Runtime's Python package brings no headers. Both structures only ever grow at their ends, so that a library built
// for one version works with all later ones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace proscale::ort {

constexpr uint32_t kVersion = 17;  // of the API: that of ONNX Runtime 1.17

struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct Shape;

enum ElementType : int32_t { kFloat = 1, kHalf = 10, kBfloat16 = 16 };
enum ErrorCode : int32_t { kFail = 1, kInvalidArgument = 2 };

// A table of functions. All that return a Status* give nullptr where all went well.
struct Api {
    void* function[275];

    template <typename Result, typename... Arguments>
    Result call(int index, Arguments... arguments) const {
        return reinterpret_cast<Result (*)(Arguments...)>(function[index])(arguments...);
    }

    Status* error(ErrorCode code, const char* message) const { return call<Status*>(0, code, message); }

    Status* createDomain(const char* name, Domain** domain) const { return call<Status*>(26, name, domain); }
    Status* addOperator(Domain* domain, struct CustomOp* op) const { return call<Status*>(27, domain, op); }
    Status* addDomain(SessionOptions* options, Domain* domain) const { return call<Status*>(28, options, domain); }

    Status* attribute(const KernelInfo* info, const char* name, int64_t* value) const {
        return call<Status*>(86, info, name, value);
    }
    // `count`: in, the capacity of `values`; out, how many there are.
    Status* attribute(const KernelInfo* info, const char* name, int64_t* values, size_t* count) const {
        return call<Status*>(163, info, name, values, count);
    }

    Status* input(const KernelContext* context, size_t index, const Value** value) const {
        return call<Status*>(90, context, index, value);
    }
    Status* output(KernelContext* context, size_t index, const int64_t* sizes, size_t rank, Value** value) const {
        return call<Status*>(91, context, index, sizes, rank, value);
    }
    Status* data(const Value* value, void** elements) const {
        return call<Status*>(51, const_cast<Value*>(value), elements);
    }
    Status* shape(const Value* value, Shape** shape) const { return call<Status*>(65, value, shape); }
    Status* rank(const Shape* shape, size_t* rank) const { return call<Status*>(61, shape, rank); }
    Status* sizes(const Shape* shape, int64_t* sizes, size_t rank) const {
        return call<Status*>(62, shape, sizes, rank);
    }
    void release(Shape* shape) const { call<void>(99, shape); }

    // body(data, 0) to body(data, count - 1) on the session's threads.
    Status* parallelFor(const KernelContext* context, void (*body)(void*, size_t), size_t count, void* data) const {
        return call<Status*>(274, context, body, count, size_t{0}, data);
    }
};

// Filled by the library, read by ONNX Runtime.
struct CustomOp {
    uint32_t version;                                                       // how much of this structure there is
    void* (*createKernel)(const CustomOp*, const Api*, const KernelInfo*);  // until version 16
    const char* (*name)(const CustomOp*);
    const char* (*executionProvider)(const CustomOp*);
    ElementType (*inputType)(const CustomOp*, size_t index);
    size_t (*inputCount)(const CustomOp*);
    ElementType (*outputType)(const CustomOp*, size_t index);
    size_t (*outputCount)(const CustomOp*);
    void (*computeKernel)(void* kernel, KernelContext*);  // until version 16
    void (*destroyKernel)(void* kernel);
    int32_t (*inputCharacteristic)(const CustomOp*, size_t index);  // 0: required
    int32_t (*outputCharacteristic)(const CustomOp*, size_t index);
    int32_t (*inputMemory)(const CustomOp*, size_t index);  // 0: of the execution provider
    int32_t (*unused[4])(const CustomOp*);                  // for operators of any number of inputs
    Status* (*create)(const CustomOp*, const Api*, const KernelInfo*, void** kernel);
    Status* (*compute)(void* kernel, KernelContext*);
    void* unset[7];  // nullptr: shapes are not inferred, any version of the domain, outputs have memory of their own
};

struct ApiBase {
    const Api* (*api)(uint32_t version);  // nullptr where the version is not supported
    const char* (*versionText)();
};

}  // namespace proscale::ort
