// The part of XLA's stable C interface for foreign functions (xla/ffi/api/c_api.h, version 0.3) that a handler of calls
// needs: what a compiled program hands over arrays in. It is declared anew, so that building needs nothing of XLA; a test
// holds it against the header that comes with jaxlib. Nothing is done here.
//
// Each struct begins with its size as the other side knows it. Ours end where what is read of them ends.
#pragma once

#include <cstddef>
#include <cstdint>

namespace softplex::xla {

constexpr int MAJOR_VERSION = 0;
constexpr int MINOR_VERSION = 3;

// -- errors ------------------------------------------------------------------------------------------------------------

struct Error;

enum class ErrorCode : int { invalid_argument = 3, resource_exhausted = 8, internal = 13 };

// -- extensions and versions -------------------------------------------------------------------------------------------

enum class ExtensionType : int { metadata = 1 };

struct Extension {
    std::size_t struct_size;
    ExtensionType type;
    Extension* next;
};

struct Version {
    std::size_t struct_size;
    Extension* extensions;
    int major_version;
    int minor_version;
};

// What XLA asks of a handler before it is called.
struct Metadata {
    std::size_t struct_size;
    Version version;
    std::uint32_t traits;
};

struct MetadataExtension {
    Extension base;
    Metadata* metadata;
};

// -- what may be asked of XLA ----------------------------------------------------------------------------------------------

struct ErrorArguments {
    std::size_t struct_size;
    Extension* extensions;
    const char* message;
    ErrorCode code;
};

struct Api {
    std::size_t struct_size;
    Extension* extensions;
    Version version;
    const void* internal;
    Error* (*create_error)(ErrorArguments*);
};

// -- arrays and attributes -------------------------------------------------------------------------------------------------

enum class DataType : int {
    boolean = 1,
    int32 = 4,
    int64 = 5,
    float16 = 10,
    float32 = 11,
    float64 = 12,
    bfloat16 = 16,
};

// Row-major.
struct Buffer {
    std::size_t struct_size;
    Extension* extensions;
    DataType type;
    void* data;
    std::int64_t rank;
    std::int64_t* shape;
};

enum class BufferKind : int { buffer = 1 };  // of arguments and results; there is no other yet
enum class AttributeKind : int { scalar = 3 };

// Not ended by a zero.
struct Text {
    const char* begin;
    std::size_t length;
};

struct Scalar {
    DataType type;
    void* value;
};

// -- calls -----------------------------------------------------------------------------------------------------------------

enum class Stage : int { execute = 3 };

// The arguments of a call, or its results.
struct Buffers {
    std::size_t struct_size;
    Extension* extensions;
    std::int64_t count;
    BufferKind* kinds;
    void** buffers;
};

struct Attributes {
    std::size_t struct_size;
    Extension* extensions;
    std::int64_t count;
    AttributeKind* kinds;
    Text** names;
    void** values;
};

struct Frame {
    std::size_t struct_size;
    Extension* extensions;
    const Api* api;
    void* context;
    Stage stage;
    Buffers arguments;
    Buffers results;
    Attributes attributes;
};

}  // namespace softplex::xla
