// A team of threads that share the pieces of one call. What a piece computes lives elsewhere.
//
// No result may depend on who does which piece: a piece is known by its number alone.
#pragma once

#include "call.h"

namespace softplex {

// work(state, piece, slot): does one piece, and neither throws nor forks; slot < threads tells concurrent pieces apart (their scratch memory).
using Work = void (*)(void* state, Index piece, int slot);

// Asked between pieces by the calling thread only, at most every 20 ms: true stops the call.
struct Interrupt {
    bool (*ask)(void*) = nullptr;
    void* state = nullptr;
    // When it was last asked, in nanoseconds, for a call that shares work many times over; 0: not yet.
    std::int64_t* asked = nullptr;
};

// Does all pieces 0 .. count - 1 on at most `threads` threads, the calling one among them, and returns when all are
// done (true) or, after an interrupt, when those begun are done (false). If the pool is busy with another call, or no
// thread can be had, the calling thread does everything. Safe from many threads at once and in a forked child.
// `from_end`: each thread begins at the end of its part, where its caches still have what a like call did last.
bool share(Index count, int threads, bool from_end, Work work, void* state, const Interrupt& interrupt);

}  // namespace softplex
