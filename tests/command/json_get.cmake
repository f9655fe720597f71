# Prints one member of a JSON file: cmake -DFILE=results.json "-DKEYS=rows;0;bytes" -P json_get.cmake
# Fails if the file is not JSON or has no such member.
file(READ "${FILE}" text)
string(JSON value GET "${text}" ${KEYS})
execute_process(COMMAND ${CMAKE_COMMAND} -E echo "${value}")
