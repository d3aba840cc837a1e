// What the choice between instruction sets has to say to a binding, beyond call.h. No choice is made here.
#pragma once

#include <string>

namespace softplex {

// What the environment variable SOFTPLEX_INSTRUCTIONS asks for but this machine lacks; empty if all is well.
std::string refused_instruction_set();

// The names that choose_instruction_set takes on this machine, best first.
std::string usable_instruction_sets();

}  // namespace softplex
