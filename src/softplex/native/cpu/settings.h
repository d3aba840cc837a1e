// What was set for the whole process, by Python, and is asked for by every binding.
#pragma once

#include <atomic>
#include <cstdint>

namespace softplex {

// How many threads a call may use where it does not say.
inline std::atomic<int> thread_count{1};

// How large the last cache is taken to be, in bytes; 0: as the system says.
inline std::atomic<std::int64_t> assumed_cache{0};

}  // namespace softplex
