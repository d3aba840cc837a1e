// maxout (Goodfellow et al. 2013): the maximum over the pieces of each unit, and which piece wins first. NaN wins;
// infinities are numbers; -0 and 0 are equal, so that the first of them wins.
//
// A unit is a row of the call, its pieces are the row's entries. Nothing is rounded: what is done in which order changes
// no bit. Units are taken in tiles, in the way that reads memory as it lies: many units at once piece by piece (`along`),
// a few units at once whose pieces are neighbours (`across`), or unit by unit (`apart`). Entries that do not lie so, or
// are no working type, are brought into scratch memory first. Threads share the tiles, or the pieces of large ones.
#pragma once

#include <cstdlib>

#include "memory.h"
#include "threads.h"

namespace softplex::SOFTPLEX_ISA {

// -- vectors of units --------------------------------------------------------------------------------------------------

// The best of each lane so far, and which piece that was.
template <class T, bool WINS>
struct Best {
    using Whole = typename Lanes<T>::Integers;
    using Int = decltype(first_of(Whole{}));
    Vector<T> value;
    Whole piece;

    // Later pieces win only by being larger, or the first NaN.
    INLINE void meet(const Vector<T>& v, Int number) {
        if constexpr (WINS) {
            const auto wins = ((v > value) | unordered(v, v)) & (value == value);
            value = select(wins, v, value);
            piece = bits_of<Whole>(select(wins, bits_of<Vector<T>>(all(number)), bits_of<Vector<T>>(piece)));
        } else {
            value = select(unordered(v, v), v, larger(v, value));
        }
    }
};

// The same for the few lanes of a part.
template <class T>
struct Part;
template <>
struct Part<float> {
    using Vector = Four;
    using Whole = FourPlaces;
    using Int = std::int32_t;
    static constexpr int count = 4;
    static INLINE void turn(Vector (&part)[4]) { transpose(part[0], part[1], part[2], part[3]); }
};
template <>
struct Part<double> {
    typedef double Vector __attribute__((vector_size(16)));
    typedef std::int64_t Whole __attribute__((vector_size(16)));
    using Int = std::int64_t;
    static constexpr int count = 2;
    static INLINE void turn(Vector (&part)[2]) {
        const Vector first = part[0];
        part[0] = Vector{first[0], part[1][0]};
        part[1] = Vector{first[1], part[1][1]};
    }
};

template <class T, bool WINS>
struct BestPart {
    typename Part<T>::Vector value = typename Part<T>::Vector{} - INFINITE<T>;
    typename Part<T>::Whole piece = {};

    INLINE void meet(const typename Part<T>::Vector& v, typename Part<T>::Int number) {
        if constexpr (WINS) {
            const auto wins = ((v > value) | (v != v)) & (value == value);
            value = wins ? v : value;
            piece = wins ? number - typename Part<T>::Whole{} : piece;
        } else {
            const auto wins = (v > value) | (v != v);
            value = wins ? v : value;
        }
    }
};

// -- tiles ---------------------------------------------------------------------------------------------------------------

// Units that are found together, and the entries that are brought in at a time.
constexpr int TILE_UNITS = 1024;
constexpr Index TILE_ROOM = 4096;

template <class T>
struct Tile {
    using Int = typename Part<T>::Int;
    // Whole vectors are written.
    alignas(64) T best[TILE_UNITS + 16];
    alignas(64) Int piece[TILE_UNITS + 16];
    alignas(64) T room[TILE_ROOM + 16];
};

// Pieces that are walked at once, so that the best is seldom put down.
constexpr int TOGETHER = 8;

// `count` pieces of neighbouring units; the first is the number `first`.
template <class T, bool WINS>
APART void meet_along(const T* const* pieces, int count, Index first, int units, Tile<T>& tile) {
    using Whole = typename Lanes<T>::Integers;
    each_vector<T>(0, units, [&](Index u, int lanes) BODY {
        Best<T, WINS> best;
        best.value = load(tile.best + u);
        if constexpr (WINS) std::memcpy(&best.piece, tile.piece + u, sizeof(Whole));
        for (int k = 0; k < count; ++k)
            best.meet(take<T>(pieces[k] + u, lanes, -INFINITE<T>), static_cast<typename Part<T>::Int>(first + k));
        store(tile.best + u, best.value);
        if constexpr (WINS) std::memcpy(tile.piece + u, &best.piece, sizeof(Whole));
    });
}

// Units of a few neighbouring pieces, `step` entries apart.
template <class T, bool WINS>
APART void meet_across(const T* x, Index step, Index pieces, Index units, Tile<T>& tile) {
    using Vector = typename Part<T>::Vector;
    using Int = typename Part<T>::Int;
    constexpr Index LANES = Part<T>::count;
    const auto put = [&](Index u, const BestPart<T, WINS>& best) BODY {
        std::memcpy(tile.best + u, &best.value, 16);
        if constexpr (WINS) std::memcpy(tile.piece + u, &best.piece, 16);
    };
    Index u = 0;
    if constexpr (LANES == 4)
        if (pieces == 2 && step == 2)
            for (; u + LANES <= units; u += LANES) {
                Vector a, b;
                std::memcpy(&a, x + 2 * u, 16);
                std::memcpy(&b, x + 2 * u + 4, 16);
                BestPart<T, WINS> best;
                best.meet(Vector{a[0], a[2], b[0], b[2]}, 0);
                best.meet(Vector{a[1], a[3], b[1], b[3]}, 1);
                put(u, best);
            }
    // Where a unit is shorter than a part the next one is read into, so there must be one.
    const Index end = pieces < LANES ? units - 1 : units;
    for (; u + LANES <= end; u += LANES) {
        BestPart<T, WINS> best;
        for (Index j = 0; j < pieces; j += LANES) {
            // The last part takes some pieces again, which changes nothing.
            const Index at = j + LANES <= pieces || pieces < LANES ? j : pieces - LANES;
            Vector part[LANES];
            for (int r = 0; r < LANES; ++r) std::memcpy(&part[r], x + (u + r) * step + at, 16);
            Part<T>::turn(part);
            for (int k = 0; k < LANES; ++k)
                if (k < pieces) best.meet(part[k], static_cast<Int>(at + k));
        }
        put(u, best);
    }
    for (; u < units; ++u) {
        const T* const unit = x + u * step;
        Index winner = 0;
        for (Index i = 1; i < pieces && unit[winner] == unit[winner]; ++i)
            if (!(unit[i] <= unit[winner])) winner = i;
        tile.best[u] = unit[winner];
        tile.piece[u] = static_cast<Int>(winner);
    }
}

// NaN if there is one, else the largest; which of -0 and 0 is left open.
template <class T>
APART T top_among(const T* x, Index n) {
    constexpr int LANES = Lanes<T>::count, CHAINS = PARTS == 4 ? 2 : 4;
    Vector<T> top[CHAINS];
    for (int k = 0; k < CHAINS; ++k) top[k] = all(-INFINITE<T>);
    auto bad = unordered(top[0], top[0]);
    Index i = 0;
    for (; i + CHAINS * LANES <= n; i += CHAINS * LANES)
        for (int k = 0; k < CHAINS; k += 2) {
            const Vector<T> a = load(x + i + k * LANES), b = load(x + i + (k + 1) * LANES);
            bad = bad | unordered(a, b);
            top[k] = larger(a, top[k]);
            top[k + 1] = larger(b, top[k + 1]);
        }
    each_vector_once<T>(i, n, [&](Index at, int count) BODY {
        const Vector<T> a = take<T>(x + at, count, -INFINITE<T>);
        bad = bad | unordered(a, a);
        top[0] = larger(a, top[0]);
    });
    if (any(bad)) return static_cast<T>(__builtin_nan(""));
    for (int k = 1; k < CHAINS; ++k) top[0] = larger(top[k], top[0]);
    return largest_of(top[0]);
}

// Where the first of the largest stands, or of NaN.
template <class T>
APART Index place_among(const T* x, Index n, T top) {
    constexpr int LANES = Lanes<T>::count;
    const Vector<T> sought = all(top);
    Index i = 0;
    for (; i + LANES <= n; i += LANES) {
        const Vector<T> v = load(x + i);
        const unsigned found = top == top ? bits(v == sought) : bits(unordered(v, v));
        if (found != 0) return i + __builtin_ctz(found);
    }
    while (i < n - 1 && !(top == top ? x[i] == top : x[i] != x[i])) ++i;
    return i;
}

// -- a call ----------------------------------------------------------------------------------------------------------------

template <class T>
class Maxout {
  public:
    explicit Maxout(const Call& call) : call_(call) {
        choose_axis();
        for (int axis = 0; axis < call.row_axes; ++axis) pieces_ *= call.shape[call.batch_axes + axis];
        choose_way();
        choose_tiles();
    }

    Outcome run() {
        if (lines_ * units_ == 0 || pieces_ == 0) return Outcome::done;
        if (lines_ * units_ * pieces_ < SHARED) {
            Tile<T> tile;
            for (Index place = 0; place < tiles(); ++place) finish(place, tile);
            return Outcome::done;
        }
        const Interrupt interrupt{call_.is_interrupted, call_.interrupt_state, nullptr};
        if (chunks_ == 1) {
            const Work work = [](void* state, Index job, int) {
                const Maxout& mine = *static_cast<const Maxout*>(state);
                Tile<T> tile;
                const Index end = (job + 1) * mine.tiles_a_job_;
                for (Index place = job * mine.tiles_a_job_; place < end && place < mine.tiles(); ++place)
                    mine.finish(place, tile);
                if (mine.streams_) finish_streaming();
            };
            const Index jobs = (tiles() + tiles_a_job_ - 1) / tiles_a_job_;
            return share(jobs, call_.threads, false, work, this, interrupt) ? Outcome::done : Outcome::interrupted;
        }
        return run_in_chunks(interrupt);
    }

  private:
    using Int = typename Part<T>::Int;
    enum class Way { along, across, apart };

    static constexpr Index SHARED = 1 << 15;     // entries from which on threads are woken
    static constexpr Index JOB = 1 << 15;        // entries that a thread takes at a time
    static constexpr Index CHUNK = 1 << 16;      // the least of a tile that is worth a thread
    static constexpr Index MOST_CHUNKS = 64;
    static constexpr Index HUGE_TILE = 1 << 24;  // taken in chunks so that it can be interrupted
    static constexpr Index MOST_PIECES = 1 << 30;  // so that a chunk's can be counted in 32 bits
    static constexpr Index LONG = 256;           // pieces of a unit that are worth a walk of their own

    const Call& call_;
    Index units_ = 1;   // along the axis that tiles are taken of
    Index lines_ = 1;   // of such units
    Index pieces_ = 1;  // of a unit
    Index x_step_ = 0, result_step_ = 0, operand_step_ = 0;  // from a unit to the next, in bytes
    int axis_ = -1;
    Way way_ = Way::along;
    bool is_direct_ = false;  // x is read where it is
    bool streams_ = false;    // the result is larger than the caches and written past them
    Index tile_units_ = 1, tiles_a_line_ = 1, tiles_a_job_ = 1;
    Index chunks_ = 1, chunk_pieces_ = 1;
    T* chunk_best_ = nullptr;
    Index* chunk_winner_ = nullptr;

    bool wins() const { return call_.method != Method::value; }
    Index tiles() const { return lines_ * tiles_a_line_; }
    Index run_pieces() const { return run_length(call_); }
    Index piece_step() const { return run_stride(call_, call_.x); }
    static Index size_of_step(Index step) { return step < 0 ? -step : step; }

    // Tiles are taken of the batch axis whose units are nearest to each other, unless it is very short.
    void choose_axis() {
        const auto rank = [&](int axis) {
            const Index size = call_.shape[axis], step = size_of_step(call_.x.strides[axis]);
            return (size < 2 ? 3 : step == 0 ? 2 : size < 8 ? 1 : 0);
        };
        for (int axis = 0; axis < call_.batch_axes; ++axis) {
            lines_ *= call_.shape[axis];
            if (axis_ < 0 || rank(axis) < rank(axis_) ||
                (rank(axis) == rank(axis_) &&
                 size_of_step(call_.x.strides[axis]) <= size_of_step(call_.x.strides[axis_])))
                axis_ = axis;
        }
        if (axis_ < 0 || lines_ == 0) return;
        units_ = call_.shape[axis_];
        lines_ /= units_;
        x_step_ = call_.x.strides[axis_];
        result_step_ = call_.result.strides[axis_];
        operand_step_ = call_.operand.strides[axis_];
    }

    void choose_way() {
        const Index size = size_of(call_.type);
        const bool are_pieces_packed = piece_step() == size || run_pieces() == 1;
        const bool are_pieces_nearer = size_of_step(piece_step()) < size_of_step(x_step_);
        Index misfits = static_cast<Index>(reinterpret_cast<std::uintptr_t>(call_.x.data));
        for (int axis = 0; axis < call_.batch_axes + call_.row_axes; ++axis) misfits |= call_.x.strides[axis];
        is_direct_ = size == static_cast<Index>(sizeof(T)) && misfits % size == 0;
        if ((units_ < 8 || are_pieces_nearer) && (pieces_ >= LONG || units_ == 1)) {
            way_ = Way::apart;
            is_direct_ = is_direct_ && are_pieces_packed && call_.row_axes == 1;
        } else if (are_pieces_packed && call_.row_axes == 1 && pieces_ > 1 && pieces_ < LONG &&
                   (x_step_ == pieces_ * size || (is_direct_ && x_step_ > pieces_ * size))) {
            way_ = Way::across;
        } else {
            way_ = Way::along;
            is_direct_ = is_direct_ && (x_step_ == size || units_ == 1);
        }
    }

    void choose_tiles() {
        const Index most = way_ == Way::apart    ? JOB / pieces_ > 1 ? JOB / pieces_ : 1
                           : way_ == Way::across ? TILE_ROOM / pieces_
                                                 : TILE_UNITS;
        tile_units_ = most < TILE_UNITS ? most : TILE_UNITS;
        if (tile_units_ > units_) tile_units_ = units_ > 0 ? units_ : 1;
        tiles_a_line_ = (units_ + tile_units_ - 1) / tile_units_;
        const Index entries = tile_units_ * pieces_;
        tiles_a_job_ = entries > 0 && entries < JOB ? JOB / entries : 1;
        const bool are_few = tiles() < 2 * call_.threads && call_.threads > 1 && entries >= 2 * CHUNK;
        if (are_few || entries >= HUGE_TILE) {
            chunks_ = entries / CHUNK < MOST_CHUNKS ? entries / CHUNK : MOST_CHUNKS;
            if (chunks_ > pieces_) chunks_ = pieces_;
            if (pieces_ / chunks_ >= MOST_PIECES) chunks_ = pieces_ / MOST_PIECES + 1;
        }
        chunk_pieces_ = chunks_ > 1 ? (pieces_ + chunks_ - 1) / chunks_ : pieces_;
        if (chunks_ > 1) chunks_ = (pieces_ + chunk_pieces_ - 1) / chunk_pieces_;
        const Index size = static_cast<Index>(sizeof(T));
        streams_ = !call_.is_result_new && call_.method == Method::value && size_of(call_.type) == size && result_step_ == size &&
                   is_beyond_cache(lines_ * units_ * (pieces_ + 1) * size, call_);
    }

    // The first unit of a tile.
    struct Spot {
        Index line, unit;
        int units;
    };
    Spot spot(Index place) const {
        const Index unit = place % tiles_a_line_ * tile_units_;
        const Index left = units_ - unit;
        return {place / tiles_a_line_, unit, static_cast<int>(left < tile_units_ ? left : tile_units_)};
    }
    char* unit_of(const Array& array, const Spot& at) const {
        Index line = at.line;
        char* from = array.data;
        if (axis_ >= 0) from += at.unit * array.strides[axis_];
        for (int axis = call_.batch_axes - 1; axis >= 0; --axis) {
            if (axis == axis_) continue;
            from += line % call_.shape[axis] * array.strides[axis];
            line /= call_.shape[axis];
        }
        return from;
    }
    // From a unit's first piece to another, in bytes.
    Index piece_of(const Array& array, Index piece) const {
        if (call_.row_axes == 1) return piece * array.strides[call_.batch_axes];
        Index offset = 0;
        for (int axis = call_.batch_axes + call_.row_axes - 1; axis >= call_.batch_axes; --axis) {
            offset += piece % call_.shape[axis] * array.strides[axis];
            piece /= call_.shape[axis];
        }
        return offset;
    }

    // -- the best of a tile's units among the pieces from `first` to `end`, counted from `first`

    template <bool WINS>
    void find(const Spot& at, Index first, Index end, Tile<T>& tile) const {
        const char* const from = unit_of(call_.x, at);
        if (way_ == Way::along) return find_along<WINS>(from, first, end, at.units, tile);
        if (way_ == Way::apart) return find_apart<WINS>(from, first, end, at.units, tile);
        const Index size = static_cast<Index>(sizeof(T));
        if (is_direct_)
            return meet_across<T, WINS>(reinterpret_cast<const T*>(from), x_step_ / size, pieces_, at.units, tile);
        read_run<T>(call_.type, from, size_of(call_.type), tile.room, at.units * pieces_);
        meet_across<T, WINS>(tile.room, pieces_, pieces_, at.units, tile);
    }

    template <bool WINS>
    void find_along(const char* from, Index first, Index end, int units, Tile<T>& tile) const {
        for (int u = 0; u < units + 16; ++u) tile.best[u] = -INFINITE<T>;
        if constexpr (WINS)
            for (int u = 0; u < units + 16; ++u) tile.piece[u] = 0;
        const T* together[TOGETHER];
        const Index most = is_direct_ || units * TOGETHER <= TILE_ROOM ? TOGETHER : TILE_ROOM / units;
        for (Index piece = first; piece < end; piece += most) {
            const int count = static_cast<int>(end - piece < most ? end - piece : most);
            for (int k = 0; k < count; ++k) {
                const char* const place = from + piece_of(call_.x, piece + k);
                T* const room = tile.room + k * units;
                if (!is_direct_) read_run<T>(call_.type, place, x_step_, room, units);
                together[k] = is_direct_ ? reinterpret_cast<const T*>(place) : room;
            }
            meet_along<T, WINS>(together, count, piece - first, units, tile);
        }
    }

    template <bool WINS>
    void find_apart(const char* from, Index first, Index end, int units, Tile<T>& tile) const {
        const Index block = is_direct_ ? BLOCK : TILE_ROOM;
        for (int u = 0; u < units; ++u) {
            const char* const unit = from + u * x_step_;
            T top = -INFINITE<T>;
            Index reached = first;
            for (Index begin = first; begin < end && top == top; begin += block) {
                const Index n = end - begin < block ? end - begin : block;
                const T found = top_among(brought(unit, begin, n, tile), n);
                if (!(found <= top)) {
                    top = found;
                    reached = begin;
                }
            }
            Index winner = 0;
            if (WINS || top == T(0)) {
                const Index n = end - reached < block ? end - reached : block;
                const T* const x = brought(unit, reached, n, tile);
                const Index place = place_among(x, n, top);
                winner = reached - first + place;
                top = x[place];
            }
            tile.best[u] = top;
            tile.piece[u] = static_cast<Int>(winner);
        }
    }
    // Consecutive pieces of a unit as neighbours.
    const T* brought(const char* unit, Index first, Index n, Tile<T>& tile) const {
        if (is_direct_) return reinterpret_cast<const T*>(unit) + first;
        const Index run = run_pieces();
        for (Index done = 0; done < n;) {
            const Index left = run - (first + done) % run, count = left < n - done ? left : n - done;
            read_run<T>(call_.type, unit + piece_of(call_.x, first + done), piece_step(), tile.room + done, count);
            done += count;
        }
        return tile.room;
    }

    // -- what is made of it

    void finish(Index place, Tile<T>& tile) const {
        const Spot at = spot(place);
        if (wins())
            find<true>(at, 0, pieces_, tile);
        else
            find<false>(at, 0, pieces_, tile);
        if (call_.method == Method::value) return put_values(at, tile.best);
        put_winners(at, [&](int u) { return static_cast<Index>(tile.piece[u]); });
    }

    void put_values(const Spot& at, const T* best) const {
        char* const to = unit_of(call_.result, at);
        const Index size = static_cast<Index>(sizeof(T));
        const bool is_whole = reinterpret_cast<std::uintptr_t>(to) % sizeof(T) == 0;
        if (result_step_ != size || size_of(call_.type) != size || !is_whole)
            return write_run<T>(call_.type, best, to, result_step_, at.units);
        T* const result = reinterpret_cast<T*>(to);
        if (!streams_) {
            std::memcpy(result, best, static_cast<std::size_t>(at.units) * sizeof(T));
            return;
        }
        constexpr Index LANES = Lanes<T>::count;
        Index u = 0;
        for (; u < at.units && reinterpret_cast<std::uintptr_t>(result + u) % 64 != 0; ++u) result[u] = best[u];
        for (; u + LANES <= at.units; u += LANES) stream(result + u, load(best + u));
        for (; u < at.units; ++u) result[u] = best[u];
    }

    // winner_of(unit of the tile)
    template <class WinnerOf>
    INLINE void put_winners(const Spot& at, WinnerOf winner_of) const {
        char* const to = unit_of(call_.result, at);
        if (call_.method == Method::winner) {
            for (int u = 0; u < at.units; ++u) {
                const Index winner = winner_of(u);
                std::memcpy(to + u * result_step_, &winner, sizeof(winner));
            }
            return;
        }
        // A cotangent goes to its winner, the other entries being 0 already; a tangent comes from there.
        const char* const from = unit_of(call_.operand, at);
        const bool is_cotangent = call_.method == Method::vjp;
        for (int u = 0; u < at.units; ++u) {
            const Index winner = winner_of(u);
            char* const target = to + u * result_step_ + (is_cotangent ? piece_of(call_.result, winner) : 0);
            const char* const source = from + u * operand_step_ + (is_cotangent ? 0 : piece_of(call_.operand, winner));
            copy_entry(target, source);
        }
    }
    INLINE void copy_entry(char* to, const char* from) const {
        if (sizeof(T) == 8)
            std::memcpy(to, from, 8);
        else if (call_.type == Type::float32)
            std::memcpy(to, from, 4);
        else
            std::memcpy(to, from, 2);
    }

    // -- tiles of many pieces: chunk by chunk, then the chunks' winners in their order

    Outcome run_in_chunks(const Interrupt& interrupt) {
        const std::size_t count = static_cast<std::size_t>(lines_ * units_ * chunks_);
        void* const memory = std::malloc(count * (sizeof(T) + sizeof(Index)));
        if (memory == nullptr) return Outcome::out_of_memory;
        chunk_winner_ = static_cast<Index*>(memory);
        chunk_best_ = reinterpret_cast<T*>(chunk_winner_ + count);
        const Work work = [](void* state, Index job, int) {
            const Maxout& mine = *static_cast<const Maxout*>(state);
            Tile<T> tile;
            mine.find_chunk(job / mine.chunks_, job % mine.chunks_, tile);
        };
        const bool is_done = share(tiles() * chunks_, call_.threads, false, work, this, interrupt);
        if (is_done)
            for (Index place = 0; place < tiles(); ++place) join_chunks(spot(place));
        if (streams_) finish_streaming();
        std::free(memory);
        return is_done ? Outcome::done : Outcome::interrupted;
    }
    void find_chunk(Index place, Index chunk, Tile<T>& tile) const {
        const Spot at = spot(place);
        const Index first = chunk * chunk_pieces_ < pieces_ ? chunk * chunk_pieces_ : pieces_;
        const Index end = first + chunk_pieces_ < pieces_ ? first + chunk_pieces_ : pieces_;
        if (wins())
            find<true>(at, first, end, tile);
        else
            find<false>(at, first, end, tile);
        const Index row = row_of_chunk(at, chunk);
        for (int u = 0; u < at.units; ++u) {
            chunk_best_[row + u] = tile.best[u];
            chunk_winner_[row + u] = wins() ? first + static_cast<Index>(tile.piece[u]) : 0;
        }
    }
    void join_chunks(const Spot& at) const {
        T* const best = chunk_best_ + row_of_chunk(at, 0);
        Index* const winner = chunk_winner_ + row_of_chunk(at, 0);
        for (Index chunk = 1; chunk < chunks_; ++chunk) {
            const Index row = row_of_chunk(at, chunk);
            for (int u = 0; u < at.units; ++u)
                if (best[u] == best[u] && !(chunk_best_[row + u] <= best[u])) {
                    best[u] = chunk_best_[row + u];
                    winner[u] = chunk_winner_[row + u];
                }
        }
        if (call_.method == Method::value) return put_values(at, best);
        put_winners(at, [&](int u) { return winner[u]; });
    }
    Index row_of_chunk(const Spot& at, Index chunk) const {
        return chunk * lines_ * units_ + at.line * units_ + at.unit;
    }
};

inline Outcome run_maxout(const Call& call) {
    if (call.type == Type::float64) return Maxout<double>(call).run();
    return Maxout<float>(call).run();
}

}  // namespace softplex::SOFTPLEX_ISA
