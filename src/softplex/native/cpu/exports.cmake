# Fails if an object of kernels exports what is not of its own namespace: the linker keeps one of several functions of the
# same name, so std::max compiled for one instruction set could be called on a machine that lacks it.
execute_process(COMMAND "${NM}" --defined-only --extern-only "${OBJECT}" OUTPUT_VARIABLE listing
                COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE "\n$" "" listing "${listing}")
string(REPLACE ";" "," listing "${listing}")
string(REPLACE "\n" ";" symbols "${listing}")
# The namespace as compilers spell it in symbols.
string(LENGTH "${ISA}" length)
foreach(symbol IN LISTS symbols)
  if(NOT symbol MATCHES "8softplex${length}${ISA}|DW\\.ref\\.__gxx_personality_v0")
    list(APPEND strangers "${symbol}")
  endif()
endforeach()
if(strangers)
  string(REPLACE ";" "\n" strangers "${strangers}")
  message(FATAL_ERROR "The kernels for ${ISA} export more than namespace softplex::${ISA}:\n${strangers}")
endif()
file(TOUCH "${STAMP}")
