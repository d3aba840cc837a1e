// A frame of XLA's, of which nothing is trusted: its attributes and arrays, or a refusal. What they mean to a map is not
// known here.
#pragma once

#include <cstring>
#include <optional>
#include <string>

#include "call.h"
#include "xla_abi.h"

namespace softplex::xla {

// Thrown within the handler, and an error of XLA at its end.
struct Refusal {
    std::string why;
};

[[noreturn]] inline void refuse(const char* name, const std::string& why) {
    throw Refusal{"softplex: " + std::string(name) + " " + why};
}

// -- the frame ---------------------------------------------------------------------------------------------------------------

// Structs within another must be as large as we know them, or what follows lies elsewhere.
inline void check_frame(const Frame& frame) {
    if (frame.struct_size < sizeof(Frame) || frame.arguments.struct_size != sizeof(Buffers) ||
        frame.results.struct_size != sizeof(Buffers) || frame.attributes.struct_size < sizeof(Attributes)) {
        refuse("the frame of the call", "is of a version of XLA's interface that is not known; softplex knows 0.3");
    }
    if (frame.stage != Stage::execute) refuse("the handler", "was called at another stage than that of execution");
}

// Null, and so no error, where XLA gives no means to make one.
inline Error* error_of(const Frame& frame, ErrorCode code, const char* message) {
    constexpr std::size_t ENOUGH = offsetof(Api, create_error) + sizeof(Api::create_error);
    if (frame.struct_size < offsetof(Frame, api) + sizeof(Frame::api) || frame.api == nullptr ||
        frame.api->struct_size < ENOUGH || frame.api->create_error == nullptr) {
        return nullptr;
    }
    ErrorArguments arguments{offsetof(ErrorArguments, code) + sizeof(ErrorArguments::code), nullptr, message, code};
    return frame.api->create_error(&arguments);
}

// -- the handshake -----------------------------------------------------------------------------------------------------------

// What XLA wants to know before any call, if that is what the frame asks.
inline Metadata* asked_metadata(const Frame& frame) {
    if (frame.struct_size < offsetof(Frame, extensions) + sizeof(Frame::extensions)) return nullptr;
    for (Extension* each = frame.extensions; each != nullptr; each = each->next) {
        if (each->type == ExtensionType::metadata && each->struct_size >= sizeof(Extension)) {
            return reinterpret_cast<MetadataExtension*>(each)->metadata;
        }
    }
    return nullptr;
}

constexpr int OLDEST_MINOR_VERSION = 1;

// The version spoken is the older of theirs and ours: all that is read has been there since 0.0, and its size is checked.
// Runtimes that do not tell theirs are of 0.1 (jaxlib 0.7).
inline int spoken_minor_version(const Frame& frame) {
    constexpr std::size_t ENOUGH = offsetof(Api, version) + sizeof(Version);
    const bool has_api = frame.struct_size >= offsetof(Frame, api) + sizeof(Frame::api) && frame.api != nullptr;
    if (!has_api || frame.api->struct_size < ENOUGH) return OLDEST_MINOR_VERSION;
    if (frame.api->version.major_version != MAJOR_VERSION) return MINOR_VERSION;
    const int theirs = frame.api->version.minor_version;
    return theirs < MINOR_VERSION ? theirs : MINOR_VERSION;
}

inline void answer(const Frame& frame, Metadata& metadata) {
    if (metadata.struct_size >= offsetof(Metadata, version) + sizeof(Version)) {
        metadata.version = {sizeof(Version), nullptr, MAJOR_VERSION, spoken_minor_version(frame)};
    }
    if (metadata.struct_size >= offsetof(Metadata, traits) + sizeof(Metadata::traits)) metadata.traits = 0;
}

// -- attributes --------------------------------------------------------------------------------------------------------------

// All of them are integers; numbers come as their bits.
struct Settings {
    std::optional<Index> map, method, negated, axes, given, empty, temperature, sink, alpha, scale, gradient;
};

struct NamedSetting {
    const char* name;
    std::optional<Index> Settings::*place;
};
constexpr NamedSetting SETTINGS[] = {
    {"map", &Settings::map},     {"method", &Settings::method}, {"negated", &Settings::negated},
    {"axes", &Settings::axes},   {"given", &Settings::given},   {"empty", &Settings::empty},
    {"sink", &Settings::sink},   {"alpha", &Settings::alpha},   {"temperature", &Settings::temperature},
    {"scale", &Settings::scale}, {"gradient", &Settings::gradient},
};

inline const NamedSetting& setting_of(const Text& name) {
    for (const NamedSetting& each : SETTINGS) {
        if (std::strlen(each.name) == name.length && std::memcmp(each.name, name.begin, name.length) == 0) return each;
    }
    refuse("the attribute", std::string(name.begin, name.length) + " is not known");
}

inline Settings read_settings(const Attributes& attributes) {
    Settings settings;
    for (std::int64_t i = 0; i < attributes.count; ++i) {
        const NamedSetting& setting = setting_of(*attributes.names[i]);
        const auto* scalar = static_cast<const Scalar*>(attributes.values[i]);
        if (attributes.kinds[i] != AttributeKind::scalar || scalar->type != DataType::int64) {
            refuse(setting.name, "is not an attribute of type int64");
        }
        Index value = 0;
        std::memcpy(&value, scalar->value, sizeof value);
        settings.*setting.place = value;
    }
    return settings;
}

inline Index required(const std::optional<Index>& setting, const char* name) {
    if (!setting.has_value()) refuse(name, "is missing among the attributes");
    return *setting;
}

// The number whose bits an attribute holds.
inline double number_of(Index bits) {
    double number = 0.0;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

// -- arrays ------------------------------------------------------------------------------------------------------------------

inline Index size_of(const Buffer& buffer) {
    Index size = 1;
    for (std::int64_t axis = 0; axis < buffer.rank; ++axis) size *= buffer.shape[axis];
    return size;
}

// One number in float64 whose bits lie in two integers: programs that know no float64 hand it on in all its digits.
inline double number_in(const Buffer& bits, const char* name) {
    double number = 0.0;
    if (size_of(bits) != 2 || bits.shape[bits.rank - 1] != 2) refuse(name, "holds integers that are not the bits of one number");
    std::memcpy(&number, bits.data, sizeof number);
    return number;
}

inline const Buffer& buffer_at(const Buffers& all, std::int64_t place, const char* name) {
    if (place >= all.count) refuse(name, "is missing among the arrays");
    const auto* buffer = static_cast<const Buffer*>(all.buffers[place]);
    if (all.kinds[place] != BufferKind::buffer || buffer == nullptr || buffer->struct_size < sizeof(Buffer)) {
        refuse(name, "is not an array as XLA's interface 0.3 has it");
    }
    if (buffer->rank < 0 || buffer->rank > MAX_AXES) refuse(name, "has too many axes; there may be 64");
    for (std::int64_t axis = 0; axis < buffer->rank; ++axis) {
        if (buffer->shape[axis] < 0) refuse(name, "has a size below 0");
    }
    if (buffer->data == nullptr && size_of(*buffer) != 0) refuse(name, "has no data");
    return *buffer;
}

}  // namespace softplex::xla
