// The two functions that TensorRT looks up by name in a library of plugins (IPluginRegistry::loadLibrary, trtexec
// --dynamicPlugins). It fetches the creators and hands over its logger, so the library needs no symbol of libnvinfer.
//
// TensorRT 11 changed the layout of ILoggerFinder: a library serves the major version whose headers it was built with.
#include <atomic>
#include <iostream>
#include <string>

#include "deform_attn_creator.h"
#include "log.h"

namespace proscale {

namespace {

std::atomic<nvinfer1::ILoggerFinder*> loggerFinder{nullptr};

}  // namespace

void logError(const char* message, const char* node) noexcept {
    try {
        const std::string text =
            std::string(kPluginName) + (node && *node ? std::string(" '") + node + "'" : "") + ": " + message;
        nvinfer1::ILoggerFinder* const finder = loggerFinder;
        nvinfer1::ILogger* const logger = finder ? finder->findLogger() : nullptr;
        if (logger) {
            logger->log(nvinfer1::ILogger::Severity::kERROR, text.c_str());
        } else {
            std::cerr << text + "\n";
        }
    } catch (...) {
        // Nowhere left to say it; the status that the caller returns still does.
    }
}

}  // namespace proscale

#define PROSCALE_EXPORT extern "C" __attribute__((visibility("default")))

PROSCALE_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { proscale::loggerFinder = finder; }

PROSCALE_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& nbCreators) {
    static proscale::DeformAttnCreator creator;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
    nbCreators = 1;
    return creators;
}
