# Writes HEADER, which defines SAP_PLUGIN_ABI: a hash of the headers through which the library and its plug-ins know each other (SOURCES).
set(text "")
foreach(source IN LISTS SOURCES)
  file(READ "${source}" one)
  string(APPEND text "${one}")
endforeach()
string(SHA256 abi "${text}")
string(SUBSTRING "${abi}" 0 12 abi)
file(CONFIGURE OUTPUT "${HEADER}" CONTENT "#define SAP_PLUGIN_ABI \"@abi@\"\n" @ONLY)
