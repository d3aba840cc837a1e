// From arrays of any layout and type to rows of the working type, and back. Nothing is computed here.
#pragma once

#include <unistd.h>

#include <cstdio>

#include "row.h"

namespace softplex::SOFTPLEX_ISA {

// Of the second or third cache that one core reaches, in bytes; 0 where the system does not tell.
inline Index cache_of_level(int level) {
    Index kilobytes = 0;
#ifdef __linux__
    char path[] = "/sys/devices/system/cpu/cpu0/cache/index0/size";
    path[sizeof("/sys/devices/system/cpu/cpu0/cache/index") - 1] = static_cast<char>('0' + level);
    std::FILE* const file = std::fopen(path, "re");
    if (file == nullptr) return 0;
    long found = 0;
    if (std::fscanf(file, "%ldK", &found) == 1) kilobytes = found;
    std::fclose(file);
#else
    static_cast<void>(level);
#endif
    return kilobytes << 10;
}
// What one core has for itself, within reason.
INLINE Index own_cache_size() {
    static const Index found = [] {
        const Index size = cache_of_level(2), least = 1 << 19, most = 1 << 21;
        return size < least ? 1 << 20 : size < most ? size : most;
    }();
    return found;
}
// The last cache, or all such caches together, or a common size. What lies beyond the nearest is not soon read again.
INLINE Index cache_size() {
    static const Index found = [] {
        Index size = cache_of_level(3);
#ifdef _SC_LEVEL3_CACHE_SIZE
        if (size == 0) size = static_cast<Index>(sysconf(_SC_LEVEL3_CACHE_SIZE));
#endif
        return size > (1 << 20) ? size : Index(1) << 25;
    }();
    return found;
}

// The part of it that a call may count on, what it reads and writes together: others have theirs. Beside a cache of 260 MB
// (Intel Xeon) results of 16 MB that pass it cost what those cost that stay, and less where other arrays are in use as well.
INLINE Index cache_share() {
    const Index whole = cache_size(), common = Index(1) << 25, part = whole / 6;
    return whole < common ? whole : part > common ? part : common;
}
// Whether what a call reads and writes, in bytes, lies beyond it, or beyond a cache that the call names.
INLINE bool is_beyond_cache(Index bytes, const Call& call) { return bytes > (call.last_cache > 0 ? call.last_cache : cache_share()); }

INLINE Index size_of(Type type) { return type == Type::float64 ? 8 : type == Type::float32 ? 4 : 2; }

// -- runs of entries -------------------------------------------------------------------------------------------------------

// n entries that lie `stride` bytes apart, as neighbours of the working type.
template <class T>
APART void read_run(Type type, const char* from, Index stride, T* to, Index n) {
    const bool is_whole = reinterpret_cast<std::uintptr_t>(from) % static_cast<std::uintptr_t>(size_of(type)) == 0;
    const bool is_packed = stride == size_of(type) && is_whole;
    if (is_packed && size_of(type) == static_cast<Index>(sizeof(T))) {
        std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
        return;
    }
    if constexpr (sizeof(T) == 4) {
        if (is_packed && type == Type::float16) {
            floats_from_float16(reinterpret_cast<const std::uint16_t*>(from), to, n);
            return;
        }
        if (is_packed && type == Type::bfloat16) {
            floats_from_bfloat16(reinterpret_cast<const std::uint16_t*>(from), to, n);
            return;
        }
    }
    for (Index i = 0; i < n; ++i) {
        const char* const place = from + i * stride;
        if (type == Type::float64) {
            double x;
            std::memcpy(&x, place, 8);
            to[i] = static_cast<T>(x);
        } else if (type == Type::float32) {
            float x;
            std::memcpy(&x, place, 4);
            to[i] = static_cast<T>(x);
        } else {
            std::uint16_t x;
            std::memcpy(&x, place, 2);
            to[i] = static_cast<T>(type == Type::float16 ? from_float16(x) : from_bfloat16(x));
        }
    }
}

template <class T>
APART void write_run(Type type, const T* from, char* to, Index stride, Index n) {
    const bool is_whole = reinterpret_cast<std::uintptr_t>(to) % static_cast<std::uintptr_t>(size_of(type)) == 0;
    const bool is_packed = stride == size_of(type) && is_whole;
    if (is_packed && size_of(type) == static_cast<Index>(sizeof(T))) {
        std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
        return;
    }
    if constexpr (sizeof(T) == 4) {
        if (is_packed && type == Type::float16) {
            float16_from_floats(from, reinterpret_cast<std::uint16_t*>(to), n);
            return;
        }
        if (is_packed && type == Type::bfloat16) {
            bfloat16_from_floats(from, reinterpret_cast<std::uint16_t*>(to), n);
            return;
        }
    }
    for (Index i = 0; i < n; ++i) {
        char* const place = to + i * stride;
        if (type == Type::float64) {
            const double x = static_cast<double>(from[i]);
            std::memcpy(place, &x, 8);
        } else if (type == Type::float32) {
            const float x = static_cast<float>(from[i]);
            std::memcpy(place, &x, 4);
        } else {
            const float x = static_cast<float>(from[i]);
            const std::uint16_t half = type == Type::float16 ? to_float16(x) : to_bfloat16(x);
            std::memcpy(place, &half, 2);
        }
    }
}

// Entries that are asked for in time.
constexpr Index AHEAD = 512;

// n numbers, or `dead` where the mask has a 0; `to` may be where they are.
template <class T>
APART void mask_run(const char* mask, Index stride, T dead, const T* from, T* to, Index n) {
    constexpr int LANES = Lanes<T>::count;
    Index i = 0;
    if (stride == 1)
        for (; i + LANES <= n; i += LANES) {
            // Short rows end before the processor sees where they lead. Behind scratch memory lies another thread's.
            if (from != to) __builtin_prefetch(from + i + AHEAD);
            __builtin_prefetch(mask + i + AHEAD);
            store(to + i, select(marked<T>(mask + i), load(from + i), all(dead)));
        }
    for (; i < n; ++i) to[i] = mask[i * stride] != 0 ? from[i] : dead;
}

// The same of n entries of any type that lie `step` bytes apart.
template <class T>
APART void read_masked_run(Type type, const char* from, Index step, const char* mask, Index stride, T dead, T* to, Index n) {
    const bool is_direct = step == static_cast<Index>(sizeof(T)) && size_of(type) == step &&
                           reinterpret_cast<std::uintptr_t>(from) % sizeof(T) == 0;
    if (!is_direct) read_run<T>(type, from, step, to, n);
    mask_run<T>(mask, stride, dead, is_direct ? reinterpret_cast<const T*>(from) : to, to, n);
}

// -- rows of an array -------------------------------------------------------------------------------------------------------

// Where a row begins.
INLINE char* row_of(const Call& call, const Array& array, Index row) {
    char* place = array.data;
    if (call.batch_axes == 1) return place + row * array.strides[0];
    for (int axis = call.batch_axes - 1; axis >= 0; --axis) {
        const Index size = call.shape[axis];
        place += row % size * array.strides[axis];
        row /= size;
    }
    return place;
}

// body(offset in bytes from the row's first entry, position in the row) for every run along the last axis.
template <class Body>
INLINE void each_run(const Call& call, const Array& array, Body body) {
    const int first = call.batch_axes, last = call.batch_axes + call.row_axes - 1;
    Index runs = 1;
    for (int axis = first; axis < last; ++axis) runs *= call.shape[axis];
    for (Index run = 0; run < runs; ++run) {
        Index offset = 0, left = run;
        for (int axis = last - 1; axis >= first; --axis) {
            offset += left % call.shape[axis] * array.strides[axis];
            left /= call.shape[axis];
        }
        body(offset, run * call.shape[last]);
    }
}
INLINE Index run_length(const Call& call) { return call.shape[call.batch_axes + call.row_axes - 1]; }
INLINE Index run_stride(const Call& call, const Array& array) { return array.strides[call.batch_axes + call.row_axes - 1]; }

template <class T>
APART void read_row(const Call& call, const Array& array, Type type, Index row, T* to) {
    const char* const place = row_of(call, array, row);
    each_run(call, array, [&](Index offset, Index position) {
        read_run<T>(type, place + offset, run_stride(call, array), to + position, run_length(call));
    });
}
template <class T>
APART void write_row(const Call& call, const Array& array, Type type, Index row, const T* from) {
    char* const place = row_of(call, array, row);
    each_run(call, array, [&](Index offset, Index position) {
        write_run<T>(type, from + position, place + offset, run_stride(call, array), run_length(call));
    });
}
// `value` where masked.
template <class T>
APART void mask_row(const Call& call, Index row, T value, T* to) {
    const char* const place = row_of(call, call.mask, row);
    each_run(call, call.mask, [&](Index offset, Index position) {
        mask_run<T>(place + offset, run_stride(call, call.mask), value, to + position, to + position, run_length(call));
    });
}

// -- neighbouring rows, the axis being strided ---------------------------------------------------------------------------------

typedef float Four __attribute__((vector_size(16)));
typedef std::int32_t FourPlaces __attribute__((vector_size(16)));

INLINE void transpose(Four& a, Four& b, Four& c, Four& d) {
    const Four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const Four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    a = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
    b = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
    c = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
    d = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
}

// Neighbouring rows that are brought in together: at most so many, so that they fill a cache line.
constexpr Index TILE = 32;
// Entries of each row that are turned at a time.
constexpr int TURNED = 4;

// Lines of a tile, each one entry of every row, into rows, or back.
template <class T>
INLINE void rows_from_lines(const T* const (&lines)[TURNED], T* to, Index pitch, Index rows) {
    Index r = 0;
    if constexpr (sizeof(T) == 4) {
        for (; r + 4 <= rows; r += 4) {
            Four part[4];
            for (int k = 0; k < 4; ++k) std::memcpy(&part[k], lines[k] + r, 16);
            transpose(part[0], part[1], part[2], part[3]);
            for (int k = 0; k < 4; ++k) std::memcpy(to + (r + k) * pitch, &part[k], 16);
        }
    }
    for (; r < rows; ++r)
        for (int k = 0; k < TURNED; ++k) to[r * pitch + k] = lines[k][r];
}
template <class T>
INLINE void lines_from_rows(const T* from, Index pitch, T* const (&lines)[TURNED], Index rows) {
    Index r = 0;
    if constexpr (sizeof(T) == 4) {
        for (; r + 4 <= rows; r += 4) {
            Four part[4];
            for (int k = 0; k < 4; ++k) std::memcpy(&part[k], from + (r + k) * pitch, 16);
            transpose(part[0], part[1], part[2], part[3]);
            for (int k = 0; k < 4; ++k) std::memcpy(lines[k] + r, &part[k], 16);
        }
    }
    for (; r < rows; ++r)
        for (int k = 0; k < TURNED; ++k) lines[k][r] = from[r * pitch + k];
}

// Where a tile lies: its first entry, the bytes between two entries of a row and between two rows.
struct TilePlace {
    char* first;
    Index stride, step;
};

// Whether the lines of a tile can be used where they lie.
template <class T>
INLINE bool is_whole(Type type, const TilePlace& place) {
    const Index size = static_cast<Index>(sizeof(T));
    return size_of(type) == size && reinterpret_cast<std::uintptr_t>(place.first) % sizeof(T) == 0 && place.stride % size == 0;
}

// A tile of `rows` by n entries that are neighbours across rows; `dead` where the mask, if there is one, says so.
template <class T>
APART void read_tile(Type type, const TilePlace& place, const TilePlace& mask, T dead, T* to, Index pitch, Index rows, Index n) {
    const Index size = size_of(type);
    const bool is_direct = mask.first == nullptr && is_whole<T>(type, place);
    T turned[TURNED][TILE];
    for (Index i = 0; i < n; i += TURNED) {
        const T* lines[TURNED];
        for (int k = 0; k < TURNED; ++k) {
            // Past the end the last line is taken again; the rows have room for it.
            const Index at = i + k < n ? i + k : n - 1;
            const char* const line = place.first + at * place.stride;
            __builtin_prefetch(line + 4 * TURNED * place.stride);
            lines[k] = is_direct ? reinterpret_cast<const T*>(line) : turned[k];
            if (is_direct) continue;
            if (mask.first == nullptr)
                read_run<T>(type, line, size, turned[k], rows);
            else
                read_masked_run<T>(type, line, size, mask.first + at * mask.stride, mask.step, dead, turned[k], rows);
        }
        rows_from_lines<T>(lines, to + i, pitch, rows);
    }
}
template <class T>
APART void write_tile(Type type, const T* from, Index pitch, const TilePlace& place, Index rows, Index n) {
    const Index size = size_of(type);
    const bool is_direct = is_whole<T>(type, place) && rows == Lanes<T>::count;
    T turned[TURNED][TILE];
    T* const lines[TURNED] = {turned[0], turned[1], turned[2], turned[3]};
    for (Index i = 0; i < n; i += TURNED) {
        lines_from_rows<T>(from + i, pitch, lines, rows);
        for (int k = 0; k < TURNED && i + k < n; ++k) {
            char* const line = place.first + (i + k) * place.stride;
            if (is_direct)
                store(reinterpret_cast<T*>(line), load(turned[k]));
            else
                write_run<T>(type, turned[k], line, size, rows);
        }
    }
}

}  // namespace softplex::SOFTPLEX_ISA
