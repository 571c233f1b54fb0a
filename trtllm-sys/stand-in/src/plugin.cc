// The plugin library: creators that take fields as TensorRT-LLM's do, and plugins that know what comes out of them.
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>

#include "nvinfer_plugin.h"
#include "plugin_fields.h"
#include "tensorrt_llm/executor/version.h"

namespace stand_in {

using nvinfer1::DataType;
using nvinfer1::PluginFieldType;

namespace {

constexpr char const* kNamespace = "tensorrt_llm";

// TensorRT-LLM's own log, which is not TensorRT's.
void log(char const* severity, std::string const& line) {
    std::cout << "[TensorRT-LLM][" << severity << "] " << line << std::endl;
}

class RecordedPlugin : public Plugin {
public:
    RecordedPlugin(std::string kind, std::vector<Field> fields) : mKind(std::move(kind)), mFields(std::move(fields)) {}

    char const* getPluginType() const noexcept override { return mKind.c_str(); }
    char const* getPluginVersion() const noexcept override { return "1"; }
    char const* getPluginNamespace() const noexcept override { return kNamespace; }
    void destroy() noexcept override { delete this; }
    nvinfer1::IPluginV2* clone() const noexcept override { return new RecordedPlugin(*this); }
    std::vector<Field> const& fields() const override { return mFields; }

    Shape output(std::vector<Shape> const& inputs) const override {
        if (inputs.empty() || inputs[0].dims.empty()) {
            throw std::runtime_error("stand-in: plugin " + mKind + " reads nothing");
        }
        Shape made = inputs[0];
        if (mKind == "GPTAttention") {
            made.dims.back() = number("num_heads") * number("head_size");
        } else if (mKind == "Lora") {
            made.dims.back() = number("out_hidden_size_0");
        } else if (mKind == "AllGather" && made.dims[0] >= 0) {
            made.dims[0] *= static_cast<std::int64_t>(field("group").values.size());
        } else if (mKind == "Gemm" && inputs.size() == 2 && inputs[1].dims.size() == 2) {
            made.dims.back() = inputs[1].dims[number("transb") != 0 ? 0 : 1];
        }
        return made;
    }

    std::string problem(std::vector<Shape> const& inputs) const override {
        auto const data = static_cast<DataType>(number("type_id"));
        if (mKind == "GPTAttention") {
            return attention_problem(inputs, data);
        }
        if (mKind == "Lora") {
            return lora_problem(inputs, data);
        }
        std::size_t const count = mKind == "Gemm" || (mKind == "AllReduce" && needs_workspace()) ? 2 : 1;
        if (inputs.size() != count) {
            return "plugin " + mKind + " reads " + std::to_string(inputs.size()) + " tensors, and not " +
                   std::to_string(count);
        }
        if (inputs[0].type != data || (mKind == "Gemm" && inputs[1].type != data)) {
            return "plugin " + mKind + ": its input is not of the type that type_id says";
        }
        return "";
    }

private:
    Field const& field(std::string const& name) const {
        for (Field const& one : mFields) {
            if (one.name == name) {
                return one;
            }
        }
        throw std::runtime_error("stand-in: no field " + name);
    }

    std::int64_t number(std::string const& name) const { return static_cast<std::int64_t>(field(name).values.at(0)); }

    // Neither NCCL (0) nor user buffers (2).
    bool needs_workspace() const { return number("strategy") != 0 && number("strategy") != 2; }

    // Of one module with a packed input: x, request types, ranks, three addresses a sequence, context lengths.
    std::string lora_problem(std::vector<Shape> const& inputs, DataType data) const {
        std::vector<DataType> const types{data, DataType::kINT32, DataType::kINT32, DataType::kINT64, DataType::kINT32};
        bool fits = number("num_lora_modules") == 1 && inputs.size() == types.size();
        for (std::size_t i = 0; fits && i < types.size(); i++) {
            fits = inputs[i].type == types[i] && inputs[i].dims.size() == (i == 0 || i == 3 ? 2u : 1u);
        }
        if (!fits || inputs[3].dims[1] != 3) {
            return "plugin Lora: its inputs are not x, request types, ranks, addresses and context lengths";
        }
        if (inputs[0].dims[1] >= 0 && inputs[0].dims[1] != number("in_hidden_size")) {
            return "plugin Lora: x is not in_hidden_size wide";
        }
        return "";
    }

    // Of what GPTAttention reads with a packed input, a paged cache that is not quantized, and rotary embedding.
    std::string attention_problem(std::vector<Shape> const& inputs, DataType data) const {
        struct Rule {
            char const* name;
            DataType type;
            std::size_t rank;
        };
        std::vector<Rule> const rules{
            {"qkv", data, 2},
            {"sequence_length", DataType::kINT32, 1},
            {"host_past_key_value_lengths", DataType::kINT32, 1},
            {"host_max_attention_window_sizes", DataType::kINT32, 1},
            {"host_sink_token_length", DataType::kINT32, 1},
            {"context_lengths", DataType::kINT32, 1},
            {"cache_indirection", DataType::kINT32, 3},
            {"host_request_types", DataType::kINT32, 1},
            {"kv_cache_block_offsets", DataType::kINT32, 4},
            {"host_kv_cache_block_offsets", DataType::kINT32, 4},
            {"host_kv_cache_pool_pointers", DataType::kINT64, 2},
            {"host_kv_cache_pool_mapping", DataType::kINT32, 2},
            {"rotary_inv_freq", DataType::kFLOAT, 1},
            {"rotary_cos_sin", DataType::kFLOAT, 2},
            {"host_context_lengths", DataType::kINT32, 1},
            {"host_runtime_perf_knobs", DataType::kINT64, 1},
            {"host_context_progress", DataType::kINT64, 1},
        };
        if (inputs.size() != rules.size()) {
            return "plugin GPTAttention reads " + std::to_string(inputs.size()) + " tensors, and not " +
                   std::to_string(rules.size());
        }
        for (std::size_t i = 0; i < rules.size(); i++) {
            if (inputs[i].type != rules[i].type || inputs[i].dims.size() != rules[i].rank) {
                return "plugin GPTAttention: input " + std::to_string(i) + " is not " + rules[i].name +
                       ": another type or rank";
            }
        }
        auto const width = (number("num_heads") + 2 * number("num_kv_heads")) * number("head_size");
        if (inputs[0].dims[1] >= 0 && inputs[0].dims[1] != width) {
            return "plugin GPTAttention: qkv is not " + std::to_string(width) + " wide";
        }
        return "";
    }

    std::string mKind;
    std::vector<Field> mFields;
};

std::vector<double> values_of(nvinfer1::PluginField const& field) {
    std::vector<double> values;
    for (std::int32_t i = 0; i < field.length; i++) {
        switch (field.type) {
        case PluginFieldType::kINT8: values.push_back(static_cast<std::int8_t const*>(field.data)[i]); break;
        case PluginFieldType::kINT32: values.push_back(static_cast<std::int32_t const*>(field.data)[i]); break;
        case PluginFieldType::kFLOAT32:
            values.push_back(static_cast<double>(static_cast<float const*>(field.data)[i]));
            break;
        default: break;
        }
    }
    return values;
}

class Creator : public nvinfer1::IPluginCreator {
public:
    Creator(std::string kind, int release) : mKind(std::move(kind)), mRules(rules_of(mKind, release)) {}

    char const* getPluginName() const noexcept override { return mKind.c_str(); }
    char const* getPluginVersion() const noexcept override { return "1"; }

    nvinfer1::IPluginV2* createPlugin(char const* name, nvinfer1::PluginFieldCollection const* given) noexcept override {
        try {
            std::map<std::string, FieldRule const*> missing;
            for (FieldRule const& rule : mRules) {
                missing[rule.name] = &rule;
            }
            std::vector<Field> fields;
            for (std::int32_t i = 0; i < given->nbFields; i++) {
                auto const& field = given->fields[i];
                auto const found = missing.find(field.name);
                if (found == missing.end()) {
                    log("ERROR", mKind + ": field " + field.name + " of " + name + " is not known, or given twice");
                    continue;
                }
                FieldRule const& rule = *found->second;
                if (field.type != rule.type || field.length < 1 || (rule.scalar && field.length != 1)) {
                    log("ERROR", mKind + ": field " + field.name + " of " + name + " has another type or length");
                    return nullptr;
                }
                fields.push_back({field.name, field.type, values_of(field)});
                missing.erase(found);
            }
            if (!missing.empty()) {
                log("ERROR", mKind + ": field " + missing.begin()->first + " of " + name + " is missing");
                return nullptr;
            }
            return new RecordedPlugin(mKind, std::move(fields));
        } catch (std::exception const& exception) {
            log("ERROR", exception.what());
            return nullptr;
        }
    }

private:
    std::string mKind;
    std::vector<FieldRule> mRules;
};

// major * 100 + minor of the version that the stand-in's headers have.
int release() {
    char* end = nullptr;
    auto const major = std::strtol(tensorrt_llm::executor::kTensorRtLlmVersion, &end, 10);
    return static_cast<int>(major * 100 + (*end == '.' ? std::strtol(end + 1, nullptr, 10) : 0));
}

}  // namespace
}  // namespace stand_in

extern "C" bool initTrtLlmPlugins(void*, char const* libNamespace) {
    // TensorRT keeps pointers to them.
    static auto* const creators = [libNamespace] {
        auto* const made = new std::vector<std::unique_ptr<stand_in::Creator>>;
        for (char const* const kind : {"GPTAttention", "AllReduce", "AllGather", "Send", "Recv", "Gemm", "Lora"}) {
            made->push_back(std::make_unique<stand_in::Creator>(kind, stand_in::release()));
            getPluginRegistry()->registerCreator(*made->back(), libNamespace);
        }
        return made;
    }();
    return !creators->empty();
}
