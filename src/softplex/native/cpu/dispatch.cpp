// Which of the compiled instruction sets runs a call: the best that this machine has, or the one asked for. The kernels
// themselves are compiled once for each set, elsewhere.
#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "call.h"

#if defined(SOFTPLEX_HAS_v4)
#include <cpuid.h>
#endif

namespace softplex {

#define SOFTPLEX_DECLARE(isa) \
    namespace isa {           \
    Outcome run(const Call&); \
    void copy(float*, const float*, Index, int); \
    }
#if defined(SOFTPLEX_HAS_v4)
SOFTPLEX_DECLARE(v4)
SOFTPLEX_DECLARE(v3)
SOFTPLEX_DECLARE(v2)
#elif defined(SOFTPLEX_HAS_neon)
SOFTPLEX_DECLARE(neon)
#else
SOFTPLEX_DECLARE(portable)
#endif
#undef SOFTPLEX_DECLARE

namespace {

struct InstructionSet {
    const char* name;
    Outcome (*run)(const Call&);
    void (*copy)(float*, const float*, Index, int);
    bool (*is_usable)();
};

#if defined(SOFTPLEX_HAS_v4)

// Not every compiler's __builtin_cpu_supports knows these three. They need no support by the operating system beyond
// that of AVX2.
bool has_f16c_movbe_lzcnt() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
    const bool has_f16c = (c >> 29) & 1, has_movbe = (c >> 22) & 1;
    if (!__get_cpuid(0x80000001, &a, &b, &c, &d)) return false;
    const bool has_lzcnt = (c >> 5) & 1;
    return has_f16c && has_movbe && has_lzcnt;
}

bool has_v2() {
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("popcnt");
}

bool has_v3() {
    return has_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && has_f16c_movbe_lzcnt();
}

bool has_v4() {
    return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

constexpr InstructionSet BEST_FIRST[] = {
    {"x86-64-v4", v4::run, v4::copy, has_v4}, {"x86-64-v3", v3::run, v3::copy, has_v3}, {"x86-64-v2", v2::run, v2::copy, has_v2}};

#elif defined(SOFTPLEX_HAS_neon)
constexpr InstructionSet BEST_FIRST[] = {{"neon", neon::run, neon::copy, [] { return true; }}};
#else
constexpr InstructionSet BEST_FIRST[] = {{"portable", portable::run, portable::copy, [] { return true; }}};
#endif

std::atomic<const InstructionSet*> chosen{nullptr};

const char* asked_for() {
    const char* name = std::getenv("SOFTPLEX_INSTRUCTIONS");
    return name == nullptr ? "" : name;
}

const InstructionSet* usable(const char* name) {
    for (const InstructionSet& set : BEST_FIRST) {
        if (std::strcmp(set.name, name) == 0) return set.is_usable() ? &set : nullptr;
    }
    return nullptr;
}

const InstructionSet& best() {
    for (const InstructionSet& set : BEST_FIRST) {
        if (set.is_usable()) return set;
    }
    // Processors older than the least set are older than those that NumPy runs on.
    return BEST_FIRST[sizeof BEST_FIRST / sizeof *BEST_FIRST - 1];
}

// Two threads may both come here first; they find the same, and a choice made meanwhile is kept.
const InstructionSet* first_choice() {
    const InstructionSet* wanted = usable(asked_for());
    const InstructionSet* expected = nullptr;
    chosen.compare_exchange_strong(expected, wanted != nullptr ? wanted : &best());
    return chosen.load();
}

const InstructionSet* current() {
    const InstructionSet* set = chosen.load(std::memory_order_relaxed);
    return set != nullptr ? set : first_choice();
}

}  // namespace

Outcome run(const Call& call) { return current()->run(call); }

void copy(float* to, const float* from, Index count, int threads) { current()->copy(to, from, count, threads); }

const char* instruction_set() { return current()->name; }

bool choose_instruction_set(const char* name) {
    const InstructionSet* set = usable(name);
    if (set != nullptr) chosen.store(set);
    return set != nullptr;
}

std::string refused_instruction_set() {
    const char* name = asked_for();
    return *name == '\0' || usable(name) != nullptr ? "" : name;
}

std::string usable_instruction_sets() {
    std::string names;
    for (const InstructionSet& set : BEST_FIRST) {
        if (!set.is_usable()) continue;
        if (!names.empty()) names += ", ";
        names += set.name;
    }
    return names;
}

}  // namespace softplex
