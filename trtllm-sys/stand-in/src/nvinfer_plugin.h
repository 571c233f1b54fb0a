// What the stand-in's TensorRT asks the stand-in's plugins, beside what TensorRT asks.
#pragma once

#include <string>
#include <vector>

#include "NvInfer.h"

namespace stand_in {

struct Shape {
    nvinfer1::DataType type;
    std::vector<std::int64_t> dims;
};

// A field that a plugin was created with, copied.
struct Field {
    std::string name;
    nvinfer1::PluginFieldType type;
    std::vector<double> values;
};

class Plugin : public nvinfer1::IPluginV2 {
public:
    // The output; throws std::runtime_error.
    virtual Shape output(std::vector<Shape> const& inputs) const = 0;
    // What is wrong with the inputs, found when an engine is built; or nothing.
    virtual std::string problem(std::vector<Shape> const& inputs) const = 0;
    virtual std::vector<Field> const& fields() const = 0;
};

}  // namespace stand_in
