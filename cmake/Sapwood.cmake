# Helpers: modules of the library, plug-ins, tests.

include(GNUInstallDirs)
if(NOT SAPWOOD_INSTALL_LIB)
  set(SAPWOOD_INSTALL_LIB "${CMAKE_INSTALL_LIBDIR}")
endif()
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

# Flags of all our own code.
add_library(sapwood_flags INTERFACE)
target_include_directories(sapwood_flags INTERFACE "${PROJECT_SOURCE_DIR}/include")
target_compile_definitions(sapwood_flags INTERFACE _GNU_SOURCE)
target_compile_options(sapwood_flags INTERFACE
  -Wall -Wextra $<$<COMPILE_LANGUAGE:C>:-Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla>
  -Wshadow -fno-math-errno
  $<$<BOOL:${SAPWOOD_WERROR}>:-Werror>)
if(SAPWOOD_SANITIZE)
  target_compile_options(sapwood_flags INTERFACE -fsanitize=${SAPWOOD_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(sapwood_flags INTERFACE -fsanitize=${SAPWOOD_SANITIZE})
endif()
if(SAPWOOD_FUZZ)
  target_compile_options(sapwood_flags INTERFACE -fsanitize=fuzzer-no-link -Wno-unknown-attributes)
endif()
target_link_libraries(sapwood_flags INTERFACE Threads::Threads m ${CMAKE_DL_LIBS})

# sap_module(NAME FILE…): a module of libsapwood, from src/NAME.
function(sap_module name)
  add_library(sapwood_${name} OBJECT ${ARGN})
  target_link_libraries(sapwood_${name} PRIVATE sapwood_flags)
  set_property(GLOBAL APPEND PROPERTY SAPWOOD_MODULES ${name})
endfunction()

# The interface between the library and its plug-ins, as plugin_abi.h: plug-ins of another one are refused (src/base/plugin.c).
file(GLOB plugin_headers CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/include/sapwood/*.h")
list(APPEND plugin_headers "${PROJECT_SOURCE_DIR}/src/base/base_internal.h" "${PROJECT_SOURCE_DIR}/src/access/access_internal.h"
  "${PROJECT_SOURCE_DIR}/src/comm/comm_internal.h" "${PROJECT_SOURCE_DIR}/src/dataset/dataset_internal.h"
  "${PROJECT_SOURCE_DIR}/src/nn/kernels.h" "${PROJECT_SOURCE_DIR}/src/nn/keras_file.h" "${PROJECT_SOURCE_DIR}/src/nn/cuda/cuda_engine.h")
set(plugin_abi "${CMAKE_BINARY_DIR}/generated/plugin_abi.h")
add_custom_command(OUTPUT "${plugin_abi}"
  COMMAND "${CMAKE_COMMAND}" "-DSOURCES=${plugin_headers}" "-DHEADER=${plugin_abi}" -P "${PROJECT_SOURCE_DIR}/cmake/plugin_abi.cmake"
  DEPENDS ${plugin_headers} "${PROJECT_SOURCE_DIR}/cmake/plugin_abi.cmake" COMMENT "plugin_abi.h" VERBATIM)
add_custom_target(plugin_abi DEPENDS "${plugin_abi}")

# sap_plugin_mark(TARGET): makes a module know the interface that it was built with.
function(sap_plugin_mark target)
  target_sources(${target} PRIVATE "${PROJECT_SOURCE_DIR}/src/base/plugin_abi.c")
  target_include_directories(${target} PRIVATE "${CMAKE_BINARY_DIR}/generated")
  add_dependencies(${target} plugin_abi)
endfunction()

# sap_plugin(NAME FILE…): libsapwood-NAME.so, opened at run time; it exports sap_plugin_NAME only.
function(sap_plugin name)
  add_library(sapwood-${name} MODULE ${ARGN})
  sap_plugin_mark(sapwood-${name})
  target_link_libraries(sapwood-${name} PRIVATE sapwood_flags)
  set_target_properties(sapwood-${name} PROPERTIES OUTPUT_NAME "sapwood-${name}")
  set_property(GLOBAL APPEND PROPERTY SAPWOOD_PLUGINS ${name})
  install(TARGETS sapwood-${name} LIBRARY DESTINATION "${SAPWOOD_INSTALL_LIB}")
endfunction()

# sap_test(PATH [THREADS] [LIBS …] [ARGS …]): tests/PATH.c with cmocka, linked to the library's objects, hidden symbols and
# all. THREADS: it uses several, and is run under the thread sanitizer too.
function(sap_test path)
  cmake_parse_arguments(T "THREADS" "" "LIBS;ARGS;SOURCES" ${ARGN})
  string(REPLACE "/" "_" name "${path}")
  add_executable(${name} "${PROJECT_SOURCE_DIR}/tests/${path}.c" ${T_SOURCES})
  target_link_libraries(${name} PRIVATE sapwood_internal cmocka ${T_LIBS})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/tests")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  add_test(NAME ${path} COMMAND ${name} ${T_ARGS})
  set_tests_properties(${path} PROPERTIES ENVIRONMENT
    "SAPWOOD_PLUGINS=${CMAKE_LIBRARY_OUTPUT_DIRECTORY};SAPWOOD_SOURCE=${PROJECT_SOURCE_DIR}"
    SKIP_RETURN_CODE 77)
  if(T_THREADS)
    set_tests_properties(${path} PROPERTIES LABELS threads)
  endif()
endfunction()
