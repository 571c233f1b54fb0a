// What a plan says.
#include <algorithm>

#include "nvinfer_builder.h"
#include "nvinfer_json.h"

namespace stand_in {

using nvinfer1::OptProfileSelector;

std::string plan_header(Network const& network, Config const& config) {
    auto const inputs = list(network.mInputs, [&](Tensor const* input) {
        std::string dims;
        for (auto const& [axis, name] : input->mDimensions) {
            dims += (dims.empty() ? "" : ",") + quote(std::to_string(axis)) + ":" + quote(name);
        }
        std::vector<Profile const*> told;
        for (Profile const* const profile : config.mProfiles) {
            if (profile->mShapes.count(input->mName) > 0) {
                told.push_back(profile);
            }
        }
        auto const profiles = list(told, [&](Profile const* profile) {
            auto const& shapes = profile->mShapes.at(input->mName);
            return "{\"min\":" + integers(shapes.at(OptProfileSelector::kMIN)) +
                   ",\"opt\":" + integers(shapes.at(OptProfileSelector::kOPT)) +
                   ",\"max\":" + integers(shapes.at(OptProfileSelector::kMAX)) + "}";
        });
        return "{\"name\":" + quote(input->mName) + ",\"dtype\":" + quote(name_of(input->mShape.type)) +
               ",\"shape\":" + integers(input->mShape.dims) + ",\"dims\":{" + dims + "},\"profiles\":" + profiles + "}";
    });
    std::size_t offset = 0;
    auto const layers = list(network.mNodes, [&](Node const& node) {
        std::string more = node.more;
        if (node.kind == "Constant") {
            auto const weight = std::find_if(network.mWeights.begin(), network.mWeights.end(), [&](auto const& named) {
                return named.second.values == node.weights.values;
            });
            auto const bytes = static_cast<std::size_t>(node.weights.count) * bytes_of(node.weights.type);
            more = "\"of\":" + quote(weight == network.mWeights.end() ? node.name : weight->first) +
                   ",\"offset\":" + std::to_string(offset) + ",\"bytes\":" + std::to_string(bytes);
            offset += bytes;
        }
        return "{\"id\":" + quote(node.output->mId) + ",\"name\":" + quote(node.name) + ",\"kind\":" + quote(node.kind) +
               ",\"in\":" + list(node.inputs, [](Tensor const* input) { return quote(input->mId); }) +
               ",\"dtype\":" + quote(name_of(node.output->mShape.type)) +
               ",\"shape\":" + integers(node.output->mShape.dims) + "," + more + "}";
    });
    auto const outputs = list(network.mOutputs, [](Tensor const* output) {
        return "[" + quote(output->mName) + "," + quote(name_of(output->mShape.type)) + "," +
               integers(output->mShape.dims) + "," + quote(output->mId) + "]";
    });
    auto const json = "{\"name\":" + quote(network.mName) + ",\"flags\":[\"STRONGLY_TYPED\"],\"inputs\":" + inputs +
                      ",\"layers\":" + layers + ",\"outputs\":" + outputs + "}";
    std::string header = "TRTLLM-STAND-IN-PLAN\n";
    for (std::size_t i = 0; i < 8; i++) {
        header += static_cast<char>(json.size() >> (8 * i) & 0xff);
    }
    return header + json;
}

}  // namespace stand_in
