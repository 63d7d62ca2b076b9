# Which CUDA compiler, if any, and the architectures to compile for. Must come before enable_language(CUDA).

if(NOT CMAKE_CUDA_COMPILER)
    set(nvcc $ENV{CUDACXX})
    if(NOT nvcc)
        find_program(nvcc nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin NO_CACHE)
    endif()
    if(nvcc)
        set(CMAKE_CUDA_COMPILER ${nvcc} CACHE FILEPATH "The CUDA compiler")
    endif()
endif()

# Turing, A100, RTX 30, Orin, L4 and RTX 40, H100 and H200, B200, Thor, RTX 50: as machine code, because what the driver
# compiles at the first start takes its time and was not tested. RTX 50's also as PTX, for chips to come.
# Code for x.y runs on all later chips x.z, but for Tegra: Orin (8.7) is named for itself.
set(PROSCALE_ARCHITECTURES 75 80 86 87 89 90 100 110 120)

# Sets `result` to those of PROSCALE_ARCHITECTURES that `nvcc` knows, in CMake's notation.
function(proscale_known_architectures nvcc result)
    execute_process(COMMAND ${nvcc} --list-gpu-code OUTPUT_VARIABLE known RESULT_VARIABLE status ERROR_VARIABLE problem)
    if(NOT status EQUAL 0)
        message(FATAL_ERROR "${nvcc} --list-gpu-code failed: ${problem}")
    endif()
    string(REGEX MATCHALL "[0-9]+" known "${known}")
    if(NOT 110 IN_LIST known)
        list(TRANSFORM PROSCALE_ARCHITECTURES REPLACE "^110$" "101")  # CUDA 12.8 and 12.9 call Thor so
    endif()
    set(chosen)
    foreach(architecture IN LISTS PROSCALE_ARCHITECTURES)
        if(architecture IN_LIST known)
            list(APPEND chosen ${architecture})
        endif()
    endforeach()
    if(NOT chosen)
        message(FATAL_ERROR "${nvcc} knows none of ${PROSCALE_ARCHITECTURES}: choose with CMAKE_CUDA_ARCHITECTURES")
    endif()
    list(POP_BACK chosen newest)
    list(TRANSFORM chosen APPEND "-real")
    set(${result} ${chosen} ${newest} PARENT_SCOPE)
endfunction()
