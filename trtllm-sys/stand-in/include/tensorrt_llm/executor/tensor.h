// A stand-in for TensorRT-LLM's header of this name: tensors in this process's memory. See types.h.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "tensorrt_llm/executor/types.h"

namespace tensorrt_llm::executor {

// A view of dimensions that belong to somebody else.
class Shape {
public:
    using DimType64 = std::int64_t;

    Shape() = default;
    Shape(DimType64 const* data, std::size_t size) : mData(data), mSize(size) {}

    [[nodiscard]] std::size_t size() const { return mSize; }
    [[nodiscard]] DimType64 const* begin() const { return mData; }
    [[nodiscard]] DimType64 const* end() const { return mData + mSize; }
    DimType64 operator[](std::size_t index) const { return mData[index]; }

private:
    DimType64 const* mData = nullptr;
    std::size_t mSize = 0;
};

class Tensor {
public:
    Tensor() = default;

    static Tensor cpu(DataType dataType, Shape shape = {});
    // The memory stays the caller's.
    static Tensor of(DataType dataType, void* data, Shape shape);

    [[nodiscard]] Tensor copyToCpu(StreamPtr stream = nullptr) const;
    [[nodiscard]] void* getData();
    [[nodiscard]] void const* getData() const;
    [[nodiscard]] DataType getDataType() const;
    [[nodiscard]] MemoryType getMemoryType() const;
    [[nodiscard]] Shape getShape() const;
    [[nodiscard]] std::size_t getSize() const;
    [[nodiscard]] std::size_t getSizeInBytes() const;
    // The stand-in's own: pinned host memory, of which a copy is an error, or memory that only a copy shows.
    void pretend(MemoryType memory);
    explicit operator bool() const { return mImpl != nullptr; }

private:
    struct Impl;
    std::shared_ptr<Impl> mImpl;
};

}  // namespace tensorrt_llm::executor
