// What was set for the whole process, by Python, and is asked for by every binding.
#pragma once

#include <atomic>

namespace softplex {

// How many threads a call may use where it does not say.
inline std::atomic<int> thread_count{1};

}  // namespace softplex
