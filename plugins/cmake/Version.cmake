# Sets PROSCALE_VERSION to that of the project, said once in proscale_deploy/__init__.py: beside this folder in a checkout,
# above it in an installed copy.

foreach(file ../proscale_deploy/__init__.py ../__init__.py)
    get_filename_component(file ${CMAKE_CURRENT_SOURCE_DIR}/${file} ABSOLUTE)
    if(NOT PROSCALE_VERSION AND EXISTS ${file})
        file(STRINGS ${file} line REGEX "^__version__ = ")
        if("${line}" MATCHES "\"(.+)\"")
            set(PROSCALE_VERSION ${CMAKE_MATCH_1})
            set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
        endif()
    endif()
endforeach()
if(NOT PROSCALE_VERSION)
    message(FATAL_ERROR "the version is read from proscale_deploy/__init__.py, which is not there: -DPROSCALE_VERSION=x.y.z")
endif()
