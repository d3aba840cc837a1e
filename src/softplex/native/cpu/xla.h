// The kernels as a function that programs compiled by XLA call. The Python module hands it over; nothing else needs it.
#pragma once

#include "xla_abi.h"

namespace softplex {

// Fills a Call from XLA's frame and runs it; null, or what was wrong as an error of XLA. It never throws.
//
// Attributes are int64 scalars: `map`, `method` and `negated` as in call.h; `axes`, a bit for each normalised axis of x;
// `given`, a bit for each operand that follows x, in the order of `Operand` in xla.cpp; `empty`, and where they are fixed
// `temperature`, `sink`, `alpha` and `scale`, as the bits of a float64. With `gradient` a residual becomes the gradient in x:
// its scale is divided by the temperature, in float64, and has the sign of the map.
//
// Masks, parameters and `invalid` have 1 along axes of x that they do not depend on. Rows with a class index out of
// range, with a parameter that is not allowed, or that `invalid` names, become NaN.
xla::Error* xla_handler(xla::Frame* frame) noexcept;

}  // namespace softplex
