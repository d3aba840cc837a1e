// Rows of floats or halves that lie across the memory, sixteen side by side: each has a lane of every vector, and none is turned.
// What is done with sixteen stands in strips.h. Longer rows live in far_columns.h, the way back in columns_backward.h.
#pragma once

#include "memory.h"
#include "strips.h"

namespace softplex::SOFTPLEX_ISA {

// Entries of strips that lie side by side, wherever and of whatever type: so many bytes from line to line and from strip to strip.
struct Field {
    static constexpr int COUNT = Strip::COUNT;

    const char* first = nullptr;
    Index line = 0, strip = 0;
    Type type = Type::float32;
    // Rows of a strip of floats; the others are ones, and nothing of theirs is read.
    int count = COUNT;
    bool is_plain = type == Type::float32 && count == COUNT;

    INLINE const char* place(int s, Index i) const { return first + s * strip + i * line; }
    INLINE Floats at(int s, Index i) const { return at(place(s, i)); }
    INLINE Floats at(const char* here) const { return is_plain ? load(reinterpret_cast<const float*>(here)) : others_at(here); }

  private:
    INLINE Floats others_at(const char* here) const {
        if (type == Type::float32) return load_some<float>(reinterpret_cast<const float*>(here), count, 1.0f);
        const std::uint16_t* const narrow = reinterpret_cast<const std::uint16_t*>(here);
        return type == Type::float16 ? load_narrow<Type::float16>(narrow) : load_narrow<Type::bfloat16>(narrow);
    }
};

// The same of floats, as is known when a loop over them begins.
struct FloatField : Field {
    explicit INLINE FloatField(const Field& field) : Field(field) {}
    INLINE Floats at(int s, Index i) const { return at(place(s, i)); }
    INLINE Floats at(const char* here) const { return load(reinterpret_cast<const float*>(here)); }
};

// Scores as the map sees them, -inf where a mask says so.
struct Scores {
    Field field;
    // A byte for each column of a line, or one for all.
    TilePlace mask;
    Ints sign;

    static INLINE bool knows(const TilePlace& mask) { return mask.first == nullptr || mask.step == 1 || mask.step == 0; }
    INLINE Floats at(int s, Index i) const {
        const Floats scores = flipped(field.at(s, i), sign), dead = all(-INFINITE<float>);
        if (mask.first == nullptr) return scores;
        const char* const bytes = mask.first + i * mask.stride;
        if (mask.step == 0) return *bytes != 0 ? scores : dead;
        return select(marked<float>(bytes + s * Strip::COUNT, field.count), scores, dead);
    }
};

// Strips of rows that lie side by side: what lies together in memory is read and written together.
struct Lines {
    static constexpr int STRIPS = 16, COUNT = Strip::COUNT, MOST = STRIPS * COUNT;
    static constexpr Index LONGEST = Strip::LONGEST;
    // Lines that are read strip by strip, while the next ones are asked for.
    static constexpr Index AT_ONCE = 8;
    // From a line that is written to the one that is asked for meanwhile, as is what goes there.
    static constexpr Index NEXT = 4;

    Type type;
    Index n;
    // Rows; where they do not fill their strip, which is alone, it is filled up with ones.
    Index columns;
    int strips = static_cast<int>((columns + COUNT - 1) / COUNT);

    INLINE bool is_full() const { return columns == strips * COUNT; }
    // From strip to strip: no power of 2, for caches keep few lines that are so far apart.
    INLINE Index pitch() const { return (n | 1) * COUNT; }
    INLINE FloatField packed(const float* at) const {
        const Index line = COUNT * static_cast<Index>(sizeof(float));
        return FloatField({reinterpret_cast<const char*>(at), line, pitch() * static_cast<Index>(sizeof(float)), Type::float32});
    }
    INLINE bool is_at_hand(const TilePlace& from, const TilePlace& mask) const {
        const Index size = size_of(type), misfits = static_cast<Index>(reinterpret_cast<std::uintptr_t>(from.first)) | from.stride;
        const bool is_known = size <= static_cast<Index>(sizeof(float)) && (is_full() || reads_parts(type, n));
        return mask.first == nullptr && is_known && misfits % size == 0;
    }
    // Whether part of a strip is read where it lies. Short ones cost less once they are packed, and so do halves.
    static INLINE bool reads_parts(Type type, Index n) { return type == Type::float32 && n > Softmax<float>::SHORT; }
    INLINE Field in_place(const TilePlace& from) const {
        return {from.first, from.stride, COUNT * size_of(type), type, static_cast<int>(is_full() ? COUNT : columns)};
    }
    // Where they lie, or packed in `room`.
    INLINE Field field(const TilePlace& from, float* room) const {
        if (is_at_hand(from, {})) return in_place(from);
        copy(from, {}, false, room);
        return packed(room);
    }
    // The same of scores.
    INLINE Scores scores(const TilePlace& from, const TilePlace& mask, bool is_negated, float* room) const {
        if (is_at_hand(from, mask)) return {in_place(from), {}, bits_of<Ints>(all(is_negated ? -0.0f : 0.0f))};
        copy(from, mask, is_negated, room);
        return {packed(room), {}, bits_of<Ints>(all(0.0f))};
    }

    // As packed, from rows that lie each in one piece, `step` bytes apart.
    INLINE void turn_rows(const TilePlace& from, float* to) const {
        for (int s = 0; s < strips; ++s) {
            const Strip strip{to + s * pitch(), n};
            strip.from_rows(reinterpret_cast<const float*>(from.first + s * COUNT * from.step), from.step / static_cast<Index>(sizeof(float)));
        }
    }

    // The scores and the largest of each row; false if they are not near 0, or NaN. `dead` where the mask, if there is one,
    // says so.
    INLINE bool read_scores(const TilePlace& from, const TilePlace& mask, bool is_negated, float* to, Floats* tops) const {
        const Ints sign = bits_of<Ints>(all(is_negated ? -0.0f : 0.0f));
        const Index apart = pitch();
        auto bad = unordered(all(0.0f), all(0.0f));
        for (int s = 0; s < strips; ++s) tops[s] = all(-INFINITE<float>);
        read(from, mask, is_negated ? INFINITE<float> : -INFINITE<float>, [&](int s, Index at, Index count, const float* entries, Index step) BODY {
            float* const place = to + s * apart + at * COUNT;
            auto is_bad = bad;
            Floats top = tops[s];
            for (Index i = 0; i < count; ++i) {
                const Floats scores = flipped(load(entries + i * step), sign);
                is_bad = is_bad | unordered(scores, scores);
                top = larger(scores, top);
                store(place + i * COUNT, scores);
            }
            tops[s] = top;
            bad = is_bad;
        });
        bool are_near = !any(bad);
        for (int s = 0; s < strips; ++s) are_near &= is_near(tops[s]);
        return are_near;
    }
    // Whether these tops are near 0.
    static INLINE bool is_near(Floats& tops) {
        // -0 and 0 must not be told apart by the order of the entries.
        tops = tops + all(0.0f);
        return bits(larger(tops, -tops) < all(512.0f)) == Strip::ALL;
    }
    // The largest of the first entries of each row, which is not a short one.
    INLINE void guess_tops(const TilePlace& from, const TilePlace& mask, bool is_negated, Floats* tops) const {
        const Ints sign = bits_of<Ints>(all(is_negated ? -0.0f : 0.0f));
        for (int s = 0; s < strips; ++s) tops[s] = all(-INFINITE<float>);
        const Lines first{type, COUNT, columns};
        first.read(from, mask, is_negated ? INFINITE<float> : -INFINITE<float>, [&](int s, Index, Index count, const float* entries, Index step) BODY {
            for (Index i = 0; i < count; ++i) tops[s] = larger(flipped(load(entries + i * step), sign), tops[s]);
        });
    }
    // Terms and what is found of them, or for their logarithms scores; false if a row is not near 0, or has NaN.
    template <bool LOG>
    INLINE bool walk(const TilePlace& from, const TilePlace& mask, bool is_negated, float* to, const Floats* guesses, WalkedStrip* walked) const {
        const Ints sign = bits_of<Ints>(all(is_negated ? -0.0f : 0.0f));
        const Index apart = pitch();
        auto bad = unordered(all(0.0f), all(0.0f));
        for (int s = 0; s < strips; ++s)
            if (!walked[s].start(guesses[s])) return false;
        read(from, mask, is_negated ? INFINITE<float> : -INFINITE<float>, [&](int s, Index at, Index count, const float* entries, Index step) BODY {
            WalkedStrip& own = walked[s];
            const Powers powers(own.magic, own.floor);
            float* const place = to + s * apart + at * COUNT;
            alignas(64) float room[LOG ? AT_ONCE * COUNT : 1];
            float* const terms = LOG ? room : place;
            auto is_bad = bad;
            Floats top = own.top;
            Index i = 0;
            for (; i + SEVERAL <= count; i += SEVERAL) {
                SeveralOf<float> x;
                for (int j = 0; j < SEVERAL; ++j) set_one_of(x, j, load(entries + (i + j) * step));
                x = flipped(x, sign);
                for (int j = 0; j < SEVERAL; j += 2) is_bad = is_bad | unordered(one_of(x, j), one_of(x, j + 1));
                for (int j = 0; j < SEVERAL; ++j) top = larger(one_of(x, j), top);
                if constexpr (LOG) store(place + i * COUNT, x);
                store(terms + i * COUNT, powers(x));
            }
            for (; i < count; ++i) {
                const Floats x = flipped(load(entries + i * step), sign);
                is_bad = is_bad | unordered(x, x);
                top = larger(x, top);
                if constexpr (LOG) store(place + i * COUNT, x);
                store(terms + i * COUNT, powers(x));
            }
            own.top = top;
            bad = is_bad;
            own.add(terms, at, count);
            if constexpr (LOG) return;
            for (Index j = 0; j < count; ++j) own.look_for_most(load(terms + j * COUNT));
        });
        bool are_near = !any(bad);
        for (int s = 0; s < strips; ++s) are_near &= is_near(walked[s].top);
        return are_near;
    }
    // As they are, but for the sign; -inf where the mask, if there is one, says so.
    INLINE void copy(const TilePlace& from, const TilePlace& mask, bool is_negated, float* to) const {
        const Ints sign = bits_of<Ints>(all(is_negated ? -0.0f : 0.0f));
        const Index apart = pitch();
        read(from, mask, is_negated ? INFINITE<float> : -INFINITE<float>, [&](int s, Index at, Index count, const float* entries, Index step) BODY {
            float* const place = to + s * apart + at * COUNT;
            for (Index i = 0; i < count; ++i) store(place + i * COUNT, flipped(load(entries + i * step), sign));
        });
    }
    // Writes body(strip, line), from what is kept, and perhaps from what is kept beside it.
    template <class Body>
    INLINE void write(const TilePlace& to, bool streams, const Field& kept, const Field& others, const Body& body) const {
        const bool is_plain = is_whole<float>(type, to), is_direct = is_full() && is_plain;
        const bool is_aligned = (reinterpret_cast<std::uintptr_t>(to.first) | static_cast<std::uintptr_t>(to.stride)) % 64 == 0;
        const bool is_streamed = streams && is_direct && is_aligned;
        const Index length = n, stride = to.stride, run = COUNT * size_of(type);
        const int width = strips;
        float room[MOST];
        for (Index i = 0; i < length; ++i) {
            char* const line = to.first + i * stride;
            char* const next = line + NEXT * stride;
            float* const entries = is_direct ? reinterpret_cast<float*>(line) : room;
            for (int s = 0; s < width; ++s) {
                __builtin_prefetch(kept.place(s, i + NEXT));
                if (others.first != nullptr) __builtin_prefetch(others.place(s, i + NEXT));
                if (is_streamed) {
                    stream<float>(entries + s * COUNT, body(s, i));
                    continue;
                }
                __builtin_prefetch(next + s * run, 1);
                store(entries + s * COUNT, body(s, i));
            }
            if (is_direct) continue;
            if (is_plain)
                store_some<float>(reinterpret_cast<float*>(line), load(room), static_cast<int>(columns));
            else
                write_run<float>(type, room, line, size_of(type), columns);
        }
    }

  private:
    // body(strip, first line, how many, entries of sixteen rows, from line to line).
    template <class Body>
    INLINE void read(const TilePlace& from, const TilePlace& mask, float dead, Body body) const {
        const Index size = size_of(type), length = n;
        const int width = strips;
        const bool is_plain = mask.first == nullptr && is_whole<float>(type, from), is_direct = is_full() && is_plain;
        float room[AT_ONCE * MOST];
        if (!is_full() && !is_plain)
            for (Index i = 0; i < AT_ONCE; ++i) store(room + i * MOST, all(1.0f));
        for (Index begin = 0; begin < length; begin += AT_ONCE) {
            const Index count = length - begin < AT_ONCE ? length - begin : AT_ONCE;
            const char* const line = from.first + begin * from.stride;
            for (Index i = 0; i < count && !is_direct; ++i) {
                float* const to = room + i * MOST;
                if (is_plain)
                    store(to, load_some<float>(reinterpret_cast<const float*>(line + i * from.stride), static_cast<int>(columns), 1.0f));
                else if (mask.first != nullptr)
                    read_masked_run<float>(type, line + i * from.stride, size, mask.first + (begin + i) * mask.stride, mask.step, dead, to, columns);
                else
                    read_run<float>(type, line + i * from.stride, size, to, columns);
            }
            const char* const next = line + AT_ONCE * from.stride;
            for (int s = 0; s < width; ++s) {
                for (Index i = 0; i < AT_ONCE; ++i) __builtin_prefetch(next + i * from.stride + s * COUNT * size);
                body(s, begin, count, (is_direct ? reinterpret_cast<const float*>(line) : room) + s * COUNT,
                     is_direct ? from.stride / 4 : MOST);
            }
        }
    }
};

// Values of softmax and its logarithm.
struct Columns {
    Lines lines;
    TilePlace x, result, mask;
    // Room for all entries.
    float* terms;
    // Of a sparse map; none: they are all 1.
    const double* temperatures;
    bool is_negated;
    bool streams;

    // False, and nothing written but the terms, if one of the rows needs more care.
    template <bool LOG>
    INLINE bool compute() const {
        if (lines.n <= 4) return compute_few<LOG, 4>();
        if (lines.n <= Strip::COUNT) return compute_few<LOG, Strip::COUNT>();
        return Strip{terms, lines.n}.is_short() ? compute_short<LOG>() : compute_long<LOG>();
    }

    // The same of a sparse map; careful(strip) sees to strips that need more care.
    template <class Pieces, class Careful>
    APART void solve(const Careful& careful) const {
        Floats tops[Lines::STRIPS];
        const bool are_near = lines.read_scores(x, mask, is_negated, terms, tops);
        for (int s = 0; s < lines.strips; ++s) {
            const Strip strip{terms + s * lines.pitch(), lines.n};
            if (!are_near || !solve_strip<Pieces>(strip, tops[s], s)) careful(s, strip);
        }
        const FloatField weights = lines.packed(terms);
        lines.write(result, streams, weights, {}, [weights](int s, Index i) BODY { return weights.at(s, i); });
    }

  private:
    template <class Pieces>
    INLINE bool solve_strip(const Strip& strip, const Floats& tops, int s) const {
        if (temperatures == nullptr) return strip.template solve<Pieces, false>(tops, nullptr);
        const double* const own = temperatures + s * Strip::COUNT;
        return Strip::are_tempered(own) && strip.template solve<Pieces, true>(tops, own);
    }
    // Of rows with at most so many entries, each of which has a lane of the sum for itself.
    template <bool LOG, int MOST>
    APART bool compute_few() const {
        const Scores scores = lines.scores(x, mask, is_negated, terms);
        Floats tops[Lines::STRIPS];
        Wide sums[Lines::STRIPS];
        Numbers numbers[Lines::STRIPS];
        if (!sum_few<!LOG, MOST>(scores, tops, sums)) return false;
        // Quotients wait for each other alone.
        for (int s = 0; s < lines.strips; ++s) {
            const auto bring = [&, own = strip(s)] {
                for (Index i = 0; i < own.n; ++i) store(own.terms + i * Strip::COUNT, scores.at(s, i));
            };
            if constexpr (LOG)
                strip(s).set_shifts(tops[s], sums[s], numbers[s], bring);
            else
                Strip::set_scales(sums[s], numbers[s]);
        }
        if constexpr (!LOG) {
            write<false, true>(numbers);
        } else {
            lines.write(result, streams, scores.field, {}, [&numbers, scores](int s, Index i) BODY {
                return Strip::finished<true, true>(scores.at(s, i), numbers[s]);
            });
        }
        return true;
    }
    // Their tops and the sums of their terms, which may be kept; false if one is not near 0, or NaN.
    template <bool KEEPS, int MOST>
    INLINE bool sum_few(const Scores& scores, Floats* tops, Wide* sums) const {
        const Index n = lines.n;
        Wide lanes[MOST];
        for (Wide& lane : lanes) lane = {{all(0.0), all(0.0)}};
        bool are_near = true;
        for (int s = 0; s < lines.strips; ++s) {
            Floats top = all(-INFINITE<float>);
            auto bad = unordered(top, top);
            for (Index i = 0; i < n; ++i) {
                const Floats one = scores.at(s, i);
                bad = bad | unordered(one, one);
                top = larger(one, top);
            }
            are_near &= !any(bad) && Lines::is_near(top);
            const NearExponential exponential{NearExponential::Constants<Floats>(top)};
            for (Index i = 0; i < n; ++i) {
                const Floats e = exponential(scores.at(s, i));
                const Halves wide = widened(e);
                lanes[i] = {{wide.low, wide.high}};
                if constexpr (KEEPS) store(strip(s).terms + i * Strip::COUNT, e);
            }
            tops[s] = top;
            sums[s] = sum_of_lanes(lanes);
        }
        return are_near;
    }
    template <bool LOG>
    APART bool compute_short() const {
        Floats tops[Lines::STRIPS];
        Numbers numbers[Lines::STRIPS];
        if (!lines.read_scores(x, mask, is_negated, terms, tops)) return false;
        for (int s = 0; s < lines.strips; ++s) strip(s).template prepare_short<LOG>(tops[s], numbers[s]);
        write<LOG, true>(numbers);
        return true;
    }
    template <bool LOG>
    APART bool compute_long() const {
        Floats guesses[Lines::STRIPS];
        WalkedStrip walked[Lines::STRIPS];
        Numbers numbers[Lines::STRIPS];
        lines.guess_tops(x, mask, is_negated, guesses);
        if (!lines.walk<LOG>(x, mask, is_negated, terms, guesses, walked)) return false;
        bool are_reached = true;
        for (int s = 0; s < lines.strips; ++s) {
            are_reached &= walked[s].is_reached(lines.n);
            guesses[s] = walked[s].top;
        }
        if (!are_reached && !lines.walk<LOG>(x, mask, is_negated, terms, guesses, walked)) return false;
        for (int s = 0; s < lines.strips; ++s) {
            walked[s].end_block();
            walked[s].finish<LOG>(strip(s), numbers[s]);
        }
        write<LOG, false>(numbers);
        return true;
    }
    template <bool LOG, bool IS_SHORT>
    INLINE void write(const Numbers* numbers) const {
        bool are_faint = false;
        for (int s = 0; !LOG && s < lines.strips; ++s) are_faint |= strip(s).is_faint(numbers[s]);
        const FloatField kept = lines.packed(terms);
        if (are_faint)
            return lines.write(result, streams, kept, {}, [numbers, kept](int s, Index i) BODY {
                const Floats e = kept.at(s, i);
                return Strip::weighed<IS_SHORT>(e, numbers[s], Faint(numbers[s].hi, numbers[s].lo).weight(e));
            });
        lines.write(result, streams, kept, {}, [numbers, kept](int s, Index i) BODY {
            return Strip::finished<LOG, IS_SHORT>(kept.at(s, i), numbers[s]);
        });
    }
    INLINE Strip strip(int s) const { return {terms + s * lines.pitch(), lines.n}; }
};

// The same of rows with temperatures, or short ones with sinks, as ShortRows and Softmax.
struct TemperedColumns {
    static constexpr int COUNT = Strip::COUNT;

    Lines lines;
    TilePlace x, result, mask;
    // Room for all entries.
    float* terms;
    const double* temperatures;
    // None: there are none.
    const double* sinks;
    bool is_negated;
    bool streams;

    // False, and nothing written but the terms, if one of the rows needs more care.
    template <bool LOG>
    APART bool compute() const {
        Floats tops[Lines::STRIPS];
        Strip::Reciprocals at[Lines::STRIPS];
        Numbers numbers[Lines::STRIPS];
        Sunk sunk[Lines::STRIPS];
        if (!lines.read_scores(x, mask, is_negated, terms, tops)) return false;
        const bool are_plain = Strip::are_all_one(temperatures);
        for (int s = 0; s < lines.strips; ++s) {
            const double* const own = temperatures + s * COUNT;
            if (sinks != nullptr && !Strip::sink(sinks + s * COUNT, own, tops[s], sunk[s])) return false;
            if (are_plain ? !Strip::are_all_one(own) : !Strip::temper(tops[s], own, at[s])) return false;
        }
        bool are_faint = false;
        for (int s = 0; s < lines.strips; ++s) {
            const Strip strip{terms + s * lines.pitch(), lines.n};
            if (are_plain)
                strip.template prepare_short<LOG>(tops[s], numbers[s], sunk[s]);
            else
                strip.template prepare_tempered<LOG>(at[s], numbers[s], sunk[s]);
            are_faint |= !LOG && strip.is_faint(numbers[s]);
        }
        const FloatField kept = lines.packed(terms);
        if (LOG && are_plain) {
            lines.write(result, streams, kept, {}, [&numbers, kept](int s, Index i) BODY {
                return Strip::finished<true, true>(kept.at(s, i), numbers[s]);
            });
        } else if constexpr (LOG) {
            lines.write(result, streams, kept, {}, [&at, &numbers, kept](int s, Index i) BODY {
                const Pair<Floats> gap = TemperedExponential(at[s]).gap(kept.at(s, i));
                return (gap.hi - numbers[s].hi) + (gap.lo - numbers[s].lo);
            });
        } else if (are_faint) {
            lines.write(result, streams, kept, {}, [&numbers, kept](int s, Index i) BODY {
                return Faint(numbers[s].hi, numbers[s].lo).weight(kept.at(s, i));
            });
        } else {
            lines.write(result, streams, kept, {}, [&numbers, kept](int s, Index i) BODY {
                return weight_of(kept.at(s, i), numbers[s].hi, numbers[s].lo);
            });
        }
        return true;
    }
};

// The derivative of softmax, from scores.
struct ColumnsDerivative {
    Lines lines;
    TilePlace x, operand, result, mask;
    // Room for all entries of each.
    float *terms, *cotangents;
    // Of short rows; none: they are all 1, and there are no sinks.
    const double *temperatures, *sinks;
    alignas(64) double outer[Lines::MOST];
    bool is_negated;
    bool streams;

    // False, and nothing written but the terms, if one of the rows needs more care.
    APART bool run() const {
        Floats tops[Lines::STRIPS], factors[Lines::STRIPS];
        Numbers numbers[Lines::STRIPS];
        if (!lines.read_scores(x, mask, is_negated, terms, tops)) return false;
        lines.copy(operand, {}, false, cotangents);
        const Index pitch = lines.pitch();
        for (int s = 0; s < lines.strips; ++s) {
            if (!prepare({terms + s * pitch, lines.n}, s, tops[s], numbers[s])) return false;
            factors[s] = narrowed(load(outer + s * Strip::COUNT), load(outer + s * Strip::COUNT + Strip::HALF)) *
                         all(static_cast<float>(1.0 / Softmax<float>::LIFT));
        }
        const FloatField e = lines.packed(terms), g = lines.packed(cotangents);
        lines.write(result, streams, e, g, [&, e, g](int s, Index i) BODY {
            return Strip::differentiated(e.at(s, i), g.at(s, i), numbers[s], factors[s]);
        });
        return true;
    }

  private:
    INLINE bool prepare(const Strip& strip, int s, const Floats& tops, Numbers& numbers) const {
        const float* const g = cotangents + s * lines.pitch();
        if (temperatures == nullptr) return strip.prepare_derivative(tops, g, numbers);
        const double* const own = temperatures + s * Strip::COUNT;
        Floats leading = tops;
        Strip::Reciprocals at;
        Sunk sunk;
        if (sinks != nullptr && !Strip::sink(sinks + s * Strip::COUNT, own, leading, sunk)) return false;
        if (Strip::are_all_one(own)) return strip.prepare_sunk_derivative(leading, g, numbers, sunk);
        return Strip::temper(leading, own, at) && strip.prepare_tempered_derivative(at, g, numbers, sunk);
    }
};

}  // namespace softplex::SOFTPLEX_ISA
