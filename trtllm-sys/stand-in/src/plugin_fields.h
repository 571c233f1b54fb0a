// The fields that TensorRT-LLM's plugins are created with.
#pragma once

#include <string>
#include <vector>

#include "NvInfer.h"

namespace stand_in {

struct FieldRule {
    char const* name;
    nvinfer1::PluginFieldType type;
    // Else as many as there are.
    bool scalar = true;
    // The first release that has it, and the first that does not: major * 100 + minor.
    int since = 0;
    int until = 1 << 20;
};

// Of the plugin of this name in a release; empty: there is no such plugin.
std::vector<FieldRule> rules_of(std::string const& plugin, int release);

}  // namespace stand_in
