# Runs Maven on POM; without the network first, since it is needed the first time alone.
set(command "${MVN}" -q -B -f "${POM}" "-Dsapwood.build=${BUILD}" -Dstyle.color=never)
execute_process(COMMAND ${command} -o package RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(failed AND output MATCHES "offline mode|has not been downloaded")
  message(STATUS "Maven fetches what the Spark connector is compiled with")
  execute_process(COMMAND ${command} package RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
endif()
if(failed)
  string(REGEX REPLACE "\\[ERROR\\] -> \\[Help 1\\].*" "" output "${output}") # general advice follows
  message(FATAL_ERROR "Maven: ${output}")
endif()
if(output)
  message("${output}")
endif()
