// Source: the parsers of TensorRT-LLM 1.2's plugins (cpp/tensorrt_llm/plugins) and what its functional.py gives them. 1.0 and 1.1 are taken to have the same ones.
#include "plugin_fields.h"

#include <map>

namespace stand_in {

namespace {

using Type = nvinfer1::PluginFieldType;

std::vector<FieldRule> const kAttention{
    {"layer_idx", Type::kINT32},
    {"num_heads", Type::kINT32},
    {"vision_start", Type::kINT32},
    {"vision_length", Type::kINT32},
    {"num_kv_heads", Type::kINT32},
    {"num_kv_heads_origin", Type::kINT32},
    {"head_size", Type::kINT32},
    {"unidirectional", Type::kINT32},
    {"q_scaling", Type::kFLOAT32},
    {"attn_logit_softcapping_scale", Type::kFLOAT32},
    {"position_embedding_type", Type::kINT8},
    {"rotary_embedding_dim", Type::kINT32},
    {"rotary_embedding_base", Type::kFLOAT32},
    {"rotary_embedding_scale_type", Type::kINT8},
    {"rotary_embedding_scale", Type::kFLOAT32},
    {"rotary_embedding_short_m_scale", Type::kFLOAT32},
    {"rotary_embedding_long_m_scale", Type::kFLOAT32},
    {"rotary_embedding_max_positions", Type::kINT32},
    {"rotary_embedding_original_max_positions", Type::kINT32},
    {"tp_size", Type::kINT32},
    {"tp_rank", Type::kINT32},
    {"unfuse_qkv_gemm", Type::kINT8},
    {"context_fmha_type", Type::kINT8},
    {"kv_cache_quant_mode", Type::kINT32},
    {"remove_input_padding", Type::kINT8},
    {"mask_type", Type::kINT32},
    {"block_sparse_block_size", Type::kINT32},
    {"block_sparse_homo_head_pattern", Type::kINT8},
    {"block_sparse_num_local_blocks", Type::kINT32},
    {"block_sparse_vertical_stride", Type::kINT32},
    {"paged_kv_cache", Type::kINT32},
    {"tokens_per_block", Type::kINT32},
    {"type_id", Type::kINT32},
    {"max_context_length", Type::kINT32},
    {"qkv_bias_enabled", Type::kINT8},
    {"do_cross_attention", Type::kINT8},
    {"max_distance", Type::kINT32},
    {"pos_shift_enabled", Type::kINT8},
    {"dense_context_fmha", Type::kINT8},
    {"use_paged_context_fmha", Type::kINT8},
    {"use_fp8_context_fmha", Type::kINT8},
    {"has_full_attention_mask", Type::kINT8},
    {"use_cache", Type::kINT32},
    {"is_spec_decoding_enabled", Type::kINT8},
    {"spec_decoding_is_generation_length_variable", Type::kINT8},
    {"spec_decoding_max_generation_length", Type::kINT32},
    {"is_mla_enabled", Type::kINT8},
    {"q_lora_rank", Type::kINT32},
    {"kv_lora_rank", Type::kINT32},
    {"qk_nope_head_dim", Type::kINT32},
    {"qk_rope_head_dim", Type::kINT32},
    {"v_head_dim", Type::kINT32},
    {"fuse_fp4_quant", Type::kINT8},
    {"skip_attn", Type::kINT8},
    {"cp_size", Type::kINT32},
    {"cp_rank", Type::kINT32},
    {"cp_group", Type::kINT32, false},
    {"use_logn_scaling", Type::kINT8},
};

std::vector<FieldRule> const kAllReduce{
    {"group", Type::kINT32, false}, {"type_id", Type::kINT32}, {"strategy", Type::kINT8}, {"fusion_op", Type::kINT8},
    {"eps", Type::kFLOAT32},        {"affine", Type::kINT8},   {"bias", Type::kINT8},     {"scale", Type::kINT8},
};

std::vector<FieldRule> const kAllGather{{"group", Type::kINT32, false}, {"type_id", Type::kINT32}};
std::vector<FieldRule> const kSend{{"tgt_rank", Type::kINT32}, {"type_id", Type::kINT32}};
std::vector<FieldRule> const kRecv{{"src_rank", Type::kINT32}, {"type_id", Type::kINT32}};

std::vector<FieldRule> const kGemm{
    {"transa", Type::kINT32},  {"transb", Type::kINT32},  {"pad_lda", Type::kINT32}, {"pad_ldb", Type::kINT32},
    {"pad_ldc", Type::kINT32}, {"type_id", Type::kINT32}, {"use_fp8", Type::kINT32}, {"alpha", Type::kFLOAT32},
};

// The real creator takes a missing field for zero and says nothing; here a missing one is refused like any other's.
std::vector<FieldRule> const kLora{
    {"in_hidden_size", Type::kINT32}, {"transa", Type::kINT32},
    {"transb", Type::kINT32},         {"num_lora_modules", Type::kINT32},
    {"type_id", Type::kINT32},        {"remove_input_padding", Type::kINT8},
    {"max_low_rank", Type::kINT32},   {"weight_index", Type::kINT32},
    {"out_hidden_size_0", Type::kINT32},
};

}  // namespace

std::vector<FieldRule> rules_of(std::string const& plugin, int release) {
    static std::map<std::string, std::vector<FieldRule> const*> const all{
        {"GPTAttention", &kAttention}, {"AllReduce", &kAllReduce}, {"AllGather", &kAllGather},
        {"Send", &kSend},              {"Recv", &kRecv},           {"Gemm", &kGemm},             {"Lora", &kLora},
    };
    std::vector<FieldRule> rules;
    auto const found = all.find(plugin);
    if (found != all.end()) {
        for (FieldRule const& rule : *found->second) {
            if (rule.since <= release && release < rule.until) {
                rules.push_back(rule);
            }
        }
    }
    return rules;
}

}  // namespace stand_in
