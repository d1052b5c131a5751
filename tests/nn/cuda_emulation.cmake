# The GPU's sources as C++, on emulated threads: for tests of kernels and the engine, and as a plug-in for what finds that by name.
get_property(cuda_sources GLOBAL PROPERTY SAPWOOD_CUDA_SOURCES)
set_source_files_properties(${cuda_sources} PROPERTIES LANGUAGE CXX)
add_library(cuda_emulated OBJECT ${cuda_sources} cuda_emulation.cpp)
target_link_libraries(cuda_emulated PRIVATE sapwood_flags)
target_include_directories(cuda_emulated PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
target_compile_definitions(cuda_emulated PRIVATE SAP_CUDA_EMULATED)
target_compile_options(cuda_emulated PRIVATE -x c++ -O2)

set(emulated_folder "${CMAKE_BINARY_DIR}/tests/emulated")
add_library(cuda_emulated_plugin MODULE $<TARGET_OBJECTS:cuda_emulated> "${PROJECT_SOURCE_DIR}/src/base/error.c")
target_link_libraries(cuda_emulated_plugin PRIVATE sapwood_flags)
sap_plugin_mark(cuda_emulated_plugin)
target_compile_definitions(cuda_emulated_plugin PRIVATE SAPWOOD_VERSION="${PROJECT_VERSION}")
set_target_properties(cuda_emulated_plugin PROPERTIES OUTPUT_NAME sapwood-cuda LINKER_LANGUAGE CXX
  LIBRARY_OUTPUT_DIRECTORY "${emulated_folder}")

sap_test(nn/test_cuda LIBS cuda_emulated)
sap_test(nn/test_cuda_recurrent LIBS cuda_emulated)
sap_test(nn/test_cuda_run)
sap_test(nn/test_cuda_ranks LIBS fake_comm SOURCES "${PROJECT_SOURCE_DIR}/tests/dataset/shard_feed.c")
add_dependencies(nn_test_cuda_run cuda_emulated_plugin sapwood-keras) # checkpoints are Keras files
add_dependencies(nn_test_cuda_ranks cuda_emulated_plugin sapwood-keras)
file(MAKE_DIRECTORY "${emulated_folder}")
file(CREATE_LINK "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}/libsapwood-keras.so" "${emulated_folder}/libsapwood-keras.so" SYMBOLIC)
set_tests_properties(nn/test_cuda_run nn/test_cuda_ranks PROPERTIES ENVIRONMENT "SAPWOOD_PLUGINS=${emulated_folder}")
