// From a frame of XLA's to a Call, and to the types of its results. What could crash the process is refused here, what
// cannot be looked at earlier becomes NaN; nothing is computed.
#include "xla.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <utility>
#include <vector>

#include "axes.h"
#include "call.h"
#include "float_mode.h"
#include "layout.h"
#include "settings.h"
#include "xla_frame.h"

namespace softplex {
namespace {

using xla::Buffer;
using xla::DataType;
using xla::refuse;

// What may follow x, in this order.
enum Operand { OPERAND, INDEX, MASK, TEMPERATURE, SINK, ALPHA, SCALE, INVALID, OPERANDS };
constexpr const char* NAMES[OPERANDS] = {"operand", "index", "mask", "temperature", "sink", "alpha", "scale", "invalid"};

constexpr double NOT_A_NUMBER = std::numeric_limits<double>::quiet_NaN();
constexpr double INFINITE = std::numeric_limits<double>::infinity();

bool is_any(double) { return true; }
bool is_temperature(double value) { return value > 0.0 && value < INFINITE; }
bool is_alpha(double value) { return value >= 1.0; }

template <class Enum>
Enum read_enum(const std::optional<Index>& setting, Enum last, const char* name) {
    const Index number = xla::required(setting, name);
    if (number < 0 || number > static_cast<Index>(last)) refuse(name, "is not known");
    return static_cast<Enum>(number);
}

Type type_of(const Buffer& x) {
    switch (x.type) {
        case DataType::float64: return Type::float64;
        case DataType::float32: return Type::float32;
        case DataType::float16: return Type::float16;
        case DataType::bfloat16: return Type::bfloat16;
        case DataType::boolean:
        case DataType::int32:
        case DataType::int64: break;
    }
    refuse("x", "holds none of float64, float32, float16 and bfloat16");
}

Index bytes_of(Type type) { return type == Type::float64 ? 8 : type == Type::float32 ? 4 : 2; }

// The numbers of an array as the kernels take them.
template <class To, class From>
void widen(std::vector<To>& to, const Buffer& from) {
    const auto* data = static_cast<const From*>(from.data);
    to.assign(data, data + xla::size_of(from));
}

template <class To, class From>
void narrow(const std::vector<From>& from, const Buffer& to) {
    auto* data = static_cast<To*>(to.data);
    for (const From& each : from) *data++ = static_cast<To>(each);
}

void put_zeros(const Buffer& to) {
    const bool is_wide = to.type == DataType::float64 || to.type == DataType::int64;
    const bool is_narrow = to.type == DataType::float16 || to.type == DataType::bfloat16;
    const Index bytes = xla::size_of(to) * (is_wide ? 8 : is_narrow ? 2 : 4);
    if (bytes > 0) std::memset(to.data, 0, static_cast<std::size_t>(bytes));
}

// One frame as a call, and what the call needs that the frame has in other types.
class Reading {
  public:
    explicit Reading(const xla::Frame& frame);
    void run();

  private:
    void read_shape(const Buffer& x, Index axes);
    void find_operands(const xla::Buffers& arguments, Index given);
    const Buffer* operand(Operand which, Shape shape);
    void read_arrays(const Buffer& x, const Layout& layout);
    void read_classes(const Buffer& buffer);
    void read_parameter(Parameter& parameter, Operand which, const std::optional<Index>& fixed, bool (*is_allowed)(double));
    void read_invalid();
    void turn_into_gradient();
    void read_result(const xla::Buffers& results, const Layout& layout);

    void point_at(Array& array, const Buffer& buffer, void* data, Index bytes, const char* name) const;
    void point_at_shape(Array& array, Shape shape, const Buffer& buffer, void* data, Index bytes, const char* name) const;
    void point_at_numbers(Array& array, const Buffer& buffer, void* data, Index bytes, const char* name) const;
    void check_type(const Buffer& buffer, const char* name) const;

    Index offset_of(const Array& array, int axis, int end, Index number) const;
    double number_of(const Parameter& parameter, Index row) const;
    void mark(Index row);
    void mark(const Array& flags);
    void spoil(Index row) const;
    Index unmasked(Index row) const;

    Call call_;
    xla::Settings settings_;
    DataType x_type_ = DataType::float32;
    int rank_ = 0;
    int place_[MAX_AXES] = {};  // of x's axes among the call's
    Index rows_ = 1, length_ = 1;
    const Buffer* given_[OPERANDS] = {};
    const Buffer* result_ = nullptr;
    std::vector<double> numbers_[OPERANDS];
    std::vector<Index> classes_;
    std::vector<double> losses_;
    std::vector<Index> counts_;
    std::vector<char> bad_;  // the rows that become NaN; empty: none
};

// -- reading -------------------------------------------------------------------------------------------------------------

Reading::Reading(const xla::Frame& frame) {
    xla::check_frame(frame);
    settings_ = xla::read_settings(frame.attributes);
    call_.map = read_enum(settings_.map, Map::maxout, "map");
    call_.method = read_enum(settings_.method, Method::smooth_max, "method");
    if (!has_method(call_.map, call_.method)) refuse("method", "is not one that this map has");
    call_.negated = xla::required(settings_.negated, "negated") != 0;
    call_.empty = xla::number_of(xla::required(settings_.empty, "empty"));
    call_.threads = thread_count.load(std::memory_order_relaxed);
    call_.is_result_new = true;  // programs allocate their memory anew each time they run

    const Buffer& x = xla::buffer_at(frame.arguments, 0, "x");
    call_.type = type_of(x);
    x_type_ = x.type;
    read_shape(x, xla::required(settings_.axes, "axes"));
    find_operands(frame.arguments, xla::required(settings_.given, "given"));
    const Layout layout = layout_of(call_.map, call_.method);
    read_arrays(x, layout);
    read_parameter(call_.temperature, TEMPERATURE, settings_.temperature, is_temperature);
    read_parameter(call_.sink, SINK, settings_.sink, is_any);
    read_parameter(call_.alpha, ALPHA, settings_.alpha, is_alpha);
    read_parameter(call_.scale, SCALE, settings_.scale, is_any);
    call_.has_sink = given_[SINK] != nullptr || settings_.sink.has_value();
    read_invalid();
    if (settings_.gradient.value_or(0) != 0) turn_into_gradient();
    if (is_scaled(call_) && !takes_scale(call_.method)) refuse("scale", "has no meaning for this method");
    if (!is_known_from_weights(call_)) refuse("method", "has no meaning for a mask, nor for a sink of this map");
    read_result(frame.results, layout);
}

void Reading::read_shape(const Buffer& x, Index axes) {
    rank_ = static_cast<int>(x.rank);
    const auto bits = static_cast<std::uint64_t>(axes);
    if (bits == 0 || (rank_ < 64 && bits >> rank_ != 0)) refuse("axes", "names no axis of x, or one that x does not have");
    int next = 0;
    for (const std::uint64_t wanted : {0, 1}) {
        for (int axis = 0; axis < rank_; ++axis) {
            if ((bits >> axis & 1) != wanted) continue;
            place_[axis] = next;
            call_.shape[next++] = x.shape[axis];
            (wanted == 0 ? rows_ : length_) *= x.shape[axis];
        }
        if (wanted == 0) call_.batch_axes = next;
    }
    call_.row_axes = rank_ - call_.batch_axes;
}

void Reading::find_operands(const xla::Buffers& arguments, Index given) {
    if (given < 0 || given >> OPERANDS != 0) refuse("given", "names an operand that is not known");
    std::int64_t place = 1;
    for (int which = 0; which < OPERANDS; ++which) {
        if ((given >> which & 1) != 0) given_[which] = &xla::buffer_at(arguments, place++, NAMES[which]);
    }
    if (place != arguments.count) refuse("the call", "has more arrays than its attributes name");
}

// An operand that the method takes, or takes not.
const Buffer* Reading::operand(Operand which, Shape shape) {
    if ((shape == Shape::none) != (given_[which] == nullptr)) {
        refuse(NAMES[which], shape == Shape::none ? "has no meaning for this method" : "is missing");
    }
    return given_[which];
}

void Reading::check_type(const Buffer& buffer, const char* name) const {
    if (buffer.type != x_type_) refuse(name, "does not hold the dtype of x");
}

void Reading::read_arrays(const Buffer& x, const Layout& layout) {
    const Index bytes = bytes_of(call_.type);
    point_at_shape(call_.x, Shape::entries, x, x.data, bytes, "x");
    if (const Buffer* buffer = operand(OPERAND, layout.operand)) {
        check_type(*buffer, "operand");
        point_at_shape(call_.operand, layout.operand, *buffer, buffer->data, bytes, "operand");
    }
    if (const Buffer* buffer = operand(INDEX, layout.index)) read_classes(*buffer);
    if (const Buffer* mask = given_[MASK]) {
        if (mask->type != DataType::boolean) refuse("mask", "does not hold booleans");
        if (call_.map == Map::maxout) refuse("mask", "has no meaning for maxout");
        point_at(call_.mask, *mask, mask->data, 1, "mask");
    }
}

void Reading::read_classes(const Buffer& buffer) {
    if (buffer.type == DataType::int64) {
        widen<Index, std::int64_t>(classes_, buffer);
    } else if (buffer.type == DataType::int32) {
        widen<Index, std::int32_t>(classes_, buffer);
    } else {
        refuse("index", "holds neither int64 nor int32");
    }
    point_at_shape(call_.index, Shape::rows, buffer, classes_.data(), sizeof(Index), "index");
    for (Index row = 0; row < rows_; ++row) {
        Index& index = classes_[static_cast<std::size_t>(row)];
        if (index >= 0 && index < length_) continue;
        index = 0;
        mark(row);
    }
}

void Reading::read_parameter(Parameter& parameter, Operand which, const std::optional<Index>& fixed,
                             bool (*is_allowed)(double)) {
    const Buffer* buffer = given_[which];
    const char* name = NAMES[which];
    if (buffer != nullptr && fixed.has_value()) refuse(name, "is given both as an attribute and as an array");
    if (buffer == nullptr || buffer->type == DataType::int32) {
        if (fixed.has_value()) parameter.fixed = xla::number_of(*fixed);
        if (buffer != nullptr) parameter.fixed = xla::number_in(*buffer, name);
        if (!is_allowed(parameter.fixed)) refuse(name, "is not a number that is allowed");
        return;
    }
    std::vector<double>& numbers = numbers_[which];
    if (buffer->type == DataType::float64) {
        widen<double, double>(numbers, *buffer);
    } else if (buffer->type == DataType::float32) {
        widen<double, float>(numbers, *buffer);
    } else {
        refuse(name, "holds neither float64 nor float32, nor the bits of a number");
    }
    point_at_numbers(parameter.rows, *buffer, numbers.data(), sizeof(double), name);
    std::vector<char> flags;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        if (is_allowed(numbers[i])) continue;
        flags.resize(numbers.size());
        flags[i] = 1;
        numbers[i] = parameter.fixed;
    }
    if (flags.empty()) return;
    Array array;
    point_at_numbers(array, *buffer, flags.data(), 1, name);
    mark(array);
}

void Reading::read_invalid() {
    const Buffer* invalid = given_[INVALID];
    if (invalid == nullptr) return;
    if (invalid->type != DataType::boolean) refuse("invalid", "does not hold booleans");
    if (call_.map == Map::maxout) refuse("invalid", "has no meaning for maxout");
    Array array;
    point_at_numbers(array, *invalid, invalid->data, 1, "invalid");
    const auto count = static_cast<std::size_t>(xla::size_of(*invalid));
    if (count > 0 && std::memchr(invalid->data, 1, count) != nullptr) mark(array);
}

void Reading::turn_into_gradient() {
    const double sign = call_.negated ? -1.0 : 1.0;
    std::vector<double> scales(static_cast<std::size_t>(rows_));
    for (Index row = 0; row < rows_; ++row) {
        scales[static_cast<std::size_t>(row)] = sign * number_of(call_.scale, row) / number_of(call_.temperature, row);
    }
    numbers_[SCALE] = std::move(scales);
    Index bytes = sizeof(double);
    for (int axis = call_.batch_axes - 1; axis >= 0; --axis) {
        call_.scale.rows.strides[axis] = bytes;
        bytes *= call_.shape[axis];
    }
    call_.scale.rows.data = reinterpret_cast<char*>(numbers_[SCALE].data());
}

void Reading::read_result(const xla::Buffers& results, const Layout& layout) {
    result_ = &xla::buffer_at(results, 0, "the result");
    if (results.count != 1) refuse("the call", "has more results than one");
    void* data = result_->data;
    Index bytes = sizeof(double);
    if (layout.element == Element::of_type) {
        check_type(*result_, "the result");
        bytes = bytes_of(call_.type);
    } else if (layout.element == Element::float64 && result_->type == DataType::float32) {
        losses_.resize(static_cast<std::size_t>(rows_));
        data = losses_.data();
    } else if (layout.element == Element::int64 && result_->type == DataType::int32) {
        counts_.resize(static_cast<std::size_t>(rows_));
        data = counts_.data();
    } else if (result_->type != (layout.element == Element::float64 ? DataType::float64 : DataType::int64)) {
        refuse("the result", layout.element == Element::float64 ? "holds neither float64 nor float32"
                                                                : "holds neither int64 nor int32");
    }
    point_at_shape(call_.result, layout.result, *result_, data, bytes, "the result");
}

// -- where arrays lie ------------------------------------------------------------------------------------------------------

// Points at what broadcasts to x.
void Reading::point_at(Array& array, const Buffer& buffer, void* data, Index bytes, const char* name) const {
    const int missing = rank_ - static_cast<int>(buffer.rank);
    if (missing < 0) refuse(name, "has more axes than x");
    for (int axis = static_cast<int>(buffer.rank) - 1; axis >= 0; --axis) {
        const int place = place_[missing + axis];
        const Index size = buffer.shape[axis], whole = call_.shape[place];
        if (size != whole && size != 1) refuse(name, "has a shape that does not fit that of x");
        array.strides[place] = size == whole ? bytes : 0;
        bytes *= size;
    }
    array.data = static_cast<char*>(data);
}

// Points at what has the shape of x, or that without the normalised axes.
void Reading::point_at_shape(Array& array, Shape shape, const Buffer& buffer, void* data, Index bytes,
                             const char* name) const {
    const int axes = shape == Shape::entries ? rank_ : call_.batch_axes;
    bool fits = buffer.rank == axes;
    for (int axis = axes - 1; fits && axis >= 0; --axis) {
        const int place = shape == Shape::entries ? place_[axis] : axis;
        fits = buffer.shape[axis] == call_.shape[place];
        array.strides[place] = bytes;
        bytes *= buffer.shape[axis];
    }
    if (!fits) refuse(name, "has the wrong shape");
    array.data = static_cast<char*>(data);
}

// Points at a number a row, as deep as x.
void Reading::point_at_numbers(Array& array, const Buffer& buffer, void* data, Index bytes, const char* name) const {
    point_at(array, buffer, data, bytes, name);
    const int missing = rank_ - static_cast<int>(buffer.rank);
    for (int axis = missing; axis < rank_; ++axis) {
        if (place_[axis] < call_.batch_axes) continue;
        if (buffer.shape[axis - missing] != 1) refuse(name, "has more than one number a row");
        array.strides[place_[axis]] = 0;
    }
}

// From the first entry to that of a number, counted in C order over the axes from `axis` to `end`.
Index Reading::offset_of(const Array& array, int axis, int end, Index number) const {
    Index offset = 0;
    while (end-- > axis) {
        offset += number % call_.shape[end] * array.strides[end];
        number /= call_.shape[end];
    }
    return offset;
}

double Reading::number_of(const Parameter& parameter, Index row) const {
    if (parameter.rows.data == nullptr) return parameter.fixed;
    double number = 0.0;
    std::memcpy(&number, parameter.rows.data + offset_of(parameter.rows, 0, call_.batch_axes, row), sizeof number);
    return number;
}

// -- rows that become NaN ----------------------------------------------------------------------------------------------------

void Reading::mark(Index row) {
    if (bad_.empty()) bad_.resize(static_cast<std::size_t>(rows_));
    bad_[static_cast<std::size_t>(row)] = 1;
}

void Reading::mark(const Array& flags) {
    for (Index row = 0; row < rows_; ++row) {
        if (flags.data[offset_of(flags, 0, call_.batch_axes, row)] != 0) mark(row);
    }
}

void put_nan(Type type, char* to) {
    constexpr std::uint16_t FLOAT16 = 0x7e00, BFLOAT16 = 0x7fc0;
    constexpr float SINGLE = std::numeric_limits<float>::quiet_NaN();
    if (type == Type::float64) {
        std::memcpy(to, &NOT_A_NUMBER, sizeof NOT_A_NUMBER);
    } else if (type == Type::float32) {
        std::memcpy(to, &SINGLE, sizeof SINGLE);
    } else {
        std::memcpy(to, type == Type::float16 ? &FLOAT16 : &BFLOAT16, sizeof FLOAT16);
    }
}

Index Reading::unmasked(Index row) const {
    if (call_.mask.data == nullptr) return length_;
    const char* mask = call_.mask.data + offset_of(call_.mask, 0, call_.batch_axes, row);
    Index count = 0;
    for (Index entry = 0; entry < length_; ++entry) {
        count += mask[offset_of(call_.mask, call_.batch_axes, rank_, entry)] != 0 ? 1 : 0;
    }
    return count;
}

// What the kernel made of a row with a harmless number in place of the bad one: masked entries stay, and the rest is NaN.
void Reading::spoil(Index row) const {
    char* to = call_.result.data + offset_of(call_.result, 0, call_.batch_axes, row);
    if (call_.method == Method::support_size) {
        const Index count = unmasked(row);
        std::memcpy(to, &count, sizeof count);
        return;
    }
    const bool is_wide = call_.method == Method::loss || call_.method == Method::loss_of_index || call_.method == Method::smooth_max;
    if (is_wide) return put_nan(Type::float64, to);
    if (number_of(call_.scale, row) == 0.0) return;
    const char* mask = call_.mask.data;
    if (mask != nullptr) mask += offset_of(call_.mask, 0, call_.batch_axes, row);
    for (Index entry = 0; entry < length_; ++entry) {
        if (mask != nullptr && mask[offset_of(call_.mask, call_.batch_axes, rank_, entry)] == 0) continue;
        put_nan(call_.type, to + offset_of(call_.result, call_.batch_axes, rank_, entry));
    }
}

// -- running -----------------------------------------------------------------------------------------------------------------

void Reading::run() {
    const bool writes_winners_alone = call_.map == Map::maxout && call_.method == Method::vjp;
    if (rows_ == 0) return;
    if (length_ == 0 || writes_winners_alone) put_zeros(*result_);
    if (length_ == 0) return;
    Call merged = call_;
    merge_axes(merged);
    if (softplex::run(merged) == Outcome::out_of_memory) throw std::bad_alloc();
    for (Index row = 0; row < static_cast<Index>(bad_.size()); ++row) {
        if (bad_[static_cast<std::size_t>(row)] != 0) spoil(row);
    }
    if (!losses_.empty()) narrow<float>(losses_, *result_);
    if (!counts_.empty()) narrow<std::int32_t>(counts_, *result_);
}

}  // namespace

xla::Error* xla_handler(xla::Frame* frame) noexcept {
    if (frame == nullptr) return nullptr;
    if (xla::Metadata* metadata = xla::asked_metadata(*frame)) {
        xla::answer(*frame, *metadata);
        return nullptr;
    }
    try {
        const WithFloatMode usual(USUAL_FLOAT_MODE);  // XLA's own flushes subnormals
        Reading(*frame).run();
        return nullptr;
    } catch (const xla::Refusal& refusal) {
        return xla::error_of(*frame, xla::ErrorCode::invalid_argument, refusal.why.c_str());
    } catch (const std::bad_alloc&) {
        return xla::error_of(*frame, xla::ErrorCode::resource_exhausted,
                             "softplex: there is not enough memory for what a kernel needs beside its arrays");
    } catch (...) {
        return xla::error_of(*frame, xla::ErrorCode::internal, "softplex: the kernel failed");
    }
}

}  // namespace softplex
