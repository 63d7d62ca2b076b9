# Sets TENSORRT_INCLUDE_DIR and TENSORRT_VERSION, or stops with what to do. The library itself is not needed: TensorRT
# calls the plugin through virtual functions only.

# The same lists as in proscale_deploy/core/machine.py: Debian and JetPack packages, NVIDIA's containers, unpacked SDKs.
set(PROSCALE_HEADER_FOLDERS
    /usr/include/x86_64-linux-gnu
    /usr/include/aarch64-linux-gnu
    /usr/include
    /usr/local/include
    /usr/local/tensorrt/include
    /opt/tensorrt/include
    /usr/src/tensorrt/include)
set(PROSCALE_HEADERS_IN_ROOT include . include/x86_64-linux-gnu include/aarch64-linux-gnu)
set(PROSCALE_OLDEST_TENSORRT 10.3)

set(TENSORRT_ROOT "$ENV{TENSORRT_ROOT}" CACHE PATH "An unpacked TensorRT SDK, or the folder that holds NvInfer.h")
if(TENSORRT_ROOT)
    # One that is given is the only one: headers of another version would not be noticed before the engine fails.
    list(TRANSFORM PROSCALE_HEADERS_IN_ROOT PREPEND ${TENSORRT_ROOT}/ OUTPUT_VARIABLE folders)
else()
    set(folders ${PROSCALE_HEADER_FOLDERS})
endif()

unset(TENSORRT_INCLUDE_DIR CACHE)  # TENSORRT_ROOT may have changed since the last time
find_path(TENSORRT_INCLUDE_DIR NvInfer.h PATHS ${folders} NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
if(NOT TENSORRT_INCLUDE_DIR)
    list(JOIN folders "\n  " looked)
    message(
        FATAL_ERROR
            "TensorRT's headers (NvInfer.h) were not found. Looked in:\n  ${looked}\n"
            "They come with TensorRT's SDK and its Debian packages (apt install libnvinfer-headers-dev), not with its "
            "Python wheels; the folder include of https://github.com/NVIDIA/TensorRT at the tag of the installed "
            "version is the same. Pass -DTENSORRT_ROOT=FOLDER; or -DPROSCALE_TENSORRT=OFF for the kernels alone.")
endif()

# NV_TENSORRT_MAJOR is a number in older versions, and TRT_MAJOR_ENTERPRISE, a number, in newer ones.
file(STRINGS ${TENSORRT_INCLUDE_DIR}/NvInferVersion.h lines
     REGEX "#define (NV_TENSORRT|TRT)_(MAJOR|MINOR|PATCH)[A-Z_]*[ \t]+[0-9]+")
set(TENSORRT_VERSION)
foreach(part MAJOR MINOR PATCH)
    if("${lines}" MATCHES "_${part}[A-Z_]*[ \t]+([0-9]+)")
        list(APPEND TENSORRT_VERSION ${CMAKE_MATCH_1})
    endif()
endforeach()
list(JOIN TENSORRT_VERSION . TENSORRT_VERSION)
if(NOT TENSORRT_VERSION OR TENSORRT_VERSION VERSION_LESS PROSCALE_OLDEST_TENSORRT)
    message(FATAL_ERROR "the headers in ${TENSORRT_INCLUDE_DIR} are of TensorRT ${TENSORRT_VERSION}; "
                        "${PROSCALE_OLDEST_TENSORRT} or newer is needed: pass -DTENSORRT_ROOT=FOLDER")
endif()
message(STATUS "TensorRT ${TENSORRT_VERSION}: ${TENSORRT_INCLUDE_DIR}")
