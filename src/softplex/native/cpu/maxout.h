// maxout (Goodfellow et al. 2013): the maximum of each row, and which entry wins first. NaN wins; infinities are numbers.
#pragma once

#include "memory.h"

namespace softplex::SOFTPLEX_ISA {

// A row is a unit's pieces. Returns the position of its first winner.
template <class T>
inline Index first_winner(const T* x, Index n) {
    Index winner = 0;
    T best = x[0];
    for (Index i = 1; i < n && best == best; ++i)
        if (!(x[i] <= best)) {
            best = x[i];
            winner = i;
        }
    return winner;
}

}  // namespace softplex::SOFTPLEX_ISA
