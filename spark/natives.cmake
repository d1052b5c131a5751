# Puts the native libraries of the jar into OUT, with those of the codecs that libsapwood links, and their names, in the order in which they are
# loaded, into libraries.txt. Plug-ins stand behind: they are opened by libsapwood, and use the machine's libcurl and XRootD client.
file(REMOVE_RECURSE "${OUT}")
file(MAKE_DIRECTORY "${OUT}")
list(GET LIBRARIES 0 library)
file(GET_RUNTIME_DEPENDENCIES LIBRARIES "${library}" RESOLVED_DEPENDENCIES_VAR codecs
  UNRESOLVED_DEPENDENCIES_VAR unresolved
  POST_EXCLUDE_REGEXES "/(libc|libm|libdl|librt|libpthread|ld-linux.*)\\.so")
set(names "")
foreach(file IN LISTS codecs LIBRARIES PLUGINS)
  get_filename_component(name "${file}" NAME)
  string(REGEX REPLACE "^(libsapwood\\.so).*" "\\1.0" name "${name}")
  configure_file("${file}" "${OUT}/${name}" COPYONLY)
  execute_process(COMMAND "${STRIP}" --strip-unneeded "${OUT}/${name}" COMMAND_ERROR_IS_FATAL ANY)
  string(APPEND names "${name}\n")
endforeach()
file(WRITE "${OUT}/libraries.txt" "${names}")
