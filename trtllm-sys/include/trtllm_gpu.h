/*
 * The boundary between trtllm-sys and libtrtllm_gpu.so, the shim over TensorRT-LLM: one table of C functions.
 *
 * Both sides are built from this file. Every function returns 0, or the kind of the exception that was caught, with its
 * message in `error`; nothing unwinds. Whatever a response points to belongs to the batch that it came in.
 */
#ifndef TRTLLM_GPU_H
#define TRTLLM_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Changes whenever anything below does. */
#define TRTLLM_GPU_ABI 4

/* The name of the function that gives the table. */
#define TRTLLM_GPU_ENTRY "trtllm_gpu"

enum {
    TRTLLM_GPU_OK = 0,
    /* An exception that TensorRT-LLM threw. */
    TRTLLM_GPU_EXCEPTION = 1,
    /* Something was thrown that is no std::exception. */
    TRTLLM_GPU_UNKNOWN_EXCEPTION = 2,
    /* The library that was loaded does not have what was asked for. */
    TRTLLM_GPU_UNSUPPORTED = 3,
    /* `progress` said to stop. */
    TRTLLM_GPU_CANCELLED = 4,
    /* The process builds engines and was to open one, or the reverse: see `begin_build`. */
    TRTLLM_GPU_BUSY = 5,
};

typedef struct trtllm_gpu_executor trtllm_gpu_executor;
typedef struct trtllm_gpu_responses trtllm_gpu_responses;
typedef struct trtllm_gpu_text trtllm_gpu_text;

typedef struct {
    const int32_t *data;
    size_t len;
} trtllm_gpu_ids;

/* Where a message goes; NUL-terminated, cut off where it is longer. */
typedef struct {
    char message[2048];
} trtllm_gpu_error;

/* What a setting holds. */
enum {
    TRTLLM_GPU_BOOL = 0,
    TRTLLM_GPU_INTEGER = 1,
    TRTLLM_GPU_NUMBER = 2,
    TRTLLM_GPU_TEXT = 3,
    /* Lists of lists end each inner list with -1. */
    TRTLLM_GPU_INTEGERS = 4,
};

/*
 * One setting of the executor, by the name of TensorRT-LLM's own in snake_case, below the class that has it:
 * `kv_cache.max_tokens`. One that the shim or the library does not know is refused by name.
 */
typedef struct {
    const char *name;
    int32_t kind;
    /* A boolean too. */
    int64_t integer;
    double number;
    const char *text;
    trtllm_gpu_ids integers;
} trtllm_gpu_setting;

/* The tokenizer, for guided decoding. */
typedef struct {
    /* The text of tokenizer.json. */
    const char *tokenizer_json;
    /* In the order of the ids. */
    const char *const *vocabulary;
    size_t vocabulary_len;
    trtllm_gpu_ids stop_token_ids;
} trtllm_gpu_tokenizer;

/* An adapter: as tensorrt_llm::executor::LoraConfig. */
typedef struct {
    uint64_t task_id;
    /* bf16, `[rows, columns]`; NULL where the executor has it already. */
    const uint16_t *weights;
    size_t columns;
    /* `[rows, config_columns]`. */
    const int32_t *config;
    size_t config_columns;
    size_t rows;
} trtllm_gpu_lora;

/* How long blocks of these prompt tokens stay: as KvCacheRetentionConfig::TokenRangeRetentionConfig. */
typedef struct {
    int32_t token_start;
    /* Negative: to the end. */
    int32_t token_end;
    /* 0 to 100. */
    int32_t priority;
    /* 0: without limit. */
    uint64_t duration_ms;
} trtllm_gpu_retention_range;

typedef struct {
    const trtllm_gpu_retention_range *ranges;
    size_t num_ranges;
    int32_t decode_priority;
    /* 0: without limit. */
    uint64_t decode_duration_ms;
} trtllm_gpu_retention;

typedef struct {
    trtllm_gpu_ids input_token_ids;
    int32_t max_tokens;
    bool streaming;
    /* Negative: none. */
    int32_t end_id;
    const trtllm_gpu_ids *stop_words;
    size_t num_stop_words;
    const trtllm_gpu_ids *bad_words;
    size_t num_bad_words;
    /* One number for each token of the vocabulary, or NULL. */
    const float *embedding_bias;
    size_t embedding_bias_len;
    float priority;
    /* 0: none. */
    uint64_t allotted_time_ms;
    bool has_cache_salt_id;
    uint64_t cache_salt_id;
    /* As GuidedDecodingParams::GuideType; negative: none. */
    int32_t guide_type;
    const char *guide;
    /* NULL for none. */
    const trtllm_gpu_lora *lora;
    const trtllm_gpu_retention *retention;

    /* Sampling. */
    int32_t beam_width;
    int32_t num_return_sequences;
    int32_t top_k;
    float top_p;
    float min_p;
    float temperature;
    uint64_t seed;
    int32_t min_tokens;
    float repetition_penalty;
    float presence_penalty;
    float frequency_penalty;
    int32_t prompt_ignore_length;
    float length_penalty;
    int32_t early_stopping;
    int32_t no_repeat_ngram_size;

    bool return_log_probs;
    bool return_context_logits;
    bool return_perf_metrics;
    /* With one beam only. */
    bool return_generation_logits;
} trtllm_gpu_request;

/* How a logit is written. */
enum {
    TRTLLM_GPU_LOGITS_F32 = 0,
    TRTLLM_GPU_LOGITS_F16 = 1,
    TRTLLM_GPU_LOGITS_BF16 = 2,
};

/* `[rows, columns]` in TensorRT-LLM's own memory, or nothing: data is NULL. */
typedef struct {
    const void *data;
    int32_t dtype;
    size_t rows;
    size_t columns;
} trtllm_gpu_logits;

/* One beam, or one sequence, of a response. */
typedef struct {
    trtllm_gpu_ids token_ids;
    /* Of the whole sequence so far, or NULL. */
    const float *log_probs;
    size_t num_log_probs;
    float cum_log_prob;
    bool has_cum_log_prob;
    /* As tensorrt_llm::executor::FinishReason, or a number that it does not have. */
    int32_t finish_reason;
    /* First those of `token_ids`. */
    trtllm_gpu_logits generation_logits;
} trtllm_gpu_output;

/* As RequestPerfMetrics; times since the request's arrival. */
typedef struct {
    uint64_t first_scheduled_ns;
    uint64_t first_token_ns;
    uint64_t last_token_ns;
    uint64_t first_iter;
    uint64_t last_iter;
    int32_t num_total_allocated_blocks;
    int32_t num_new_allocated_blocks;
    int32_t num_reused_blocks;
    int32_t num_missed_blocks;
    int32_t num_draft_tokens;
    int32_t num_accepted_draft_tokens;
} trtllm_gpu_perf_metrics;

typedef struct {
    uint64_t request_id;
    /* Not NULL: the request failed, or this response of it cannot be converted; of what is below, only `is_final` counts. */
    const char *error;
    int32_t sequence_index;
    bool is_sequence_final;
    /* TensorRT-LLM is done with the request. */
    bool is_final;
    const trtllm_gpu_output *outputs;
    size_t num_outputs;
    trtllm_gpu_logits context_logits;
    /* NULL where there are none. */
    const trtllm_gpu_perf_metrics *perf_metrics;
} trtllm_gpu_response;

typedef struct {
    uint64_t iter;
    double iter_latency_ms;
    double new_active_requests_queue_latency_ms;
    int32_t num_new_active_requests;
    int32_t num_active_requests;
    int32_t num_queued_requests;
    int32_t num_completed_requests;
    int32_t num_scheduled_requests;
    int32_t num_context_requests;
    int32_t num_gen_requests;
    int32_t num_paused_requests;
    int32_t num_ctx_tokens;
    int32_t kv_max_num_blocks;
    int32_t kv_free_num_blocks;
    int32_t kv_used_num_blocks;
    int32_t kv_tokens_per_block;
    int32_t kv_alloc_total_blocks;
    int32_t kv_alloc_new_blocks;
    int32_t kv_reused_blocks;
    int32_t kv_missed_blocks;
} trtllm_gpu_iteration_stats;

/* Takes a line of what TensorRT-LLM logs, on any thread. `severity`: 0 error, 1 warning, 2 information, 3 anything finer. */
typedef void (*trtllm_gpu_log)(void *user_data, int32_t severity, const char *line);

/* The same; false to let the line go where it would have gone. */
typedef bool (*trtllm_gpu_take_line)(void *user_data, int32_t severity, const char *line);

/* What a node of a network does. Numbers of types and kinds are nvinfer1's own. */
enum {
    TRTLLM_GPU_CONSTANT = 0,
    TRTLLM_GPU_GATHER = 1,
    TRTLLM_GPU_MATRIX_MULTIPLY = 2,
    TRTLLM_GPU_ELEMENT_WISE = 3,
    TRTLLM_GPU_UNARY = 4,
    TRTLLM_GPU_REDUCE = 5,
    TRTLLM_GPU_ACTIVATION = 6,
    TRTLLM_GPU_CAST = 7,
    TRTLLM_GPU_SHUFFLE = 8,
    TRTLLM_GPU_PLUGIN = 9,
    TRTLLM_GPU_CONCATENATION = 10,
};

typedef struct trtllm_gpu_network trtllm_gpu_network;

/* Tensors are numbered in the order in which inputs and nodes are added: each makes one. -1 is a size known at run time. */
typedef struct {
    const char *name;
    /* nvinfer1::DataType. */
    int32_t dtype;
    size_t rank;
    const int64_t *shape;
    /* `[rank]`; NULL for a dimension without a name. */
    const char *const *dimension_names;
    /* `[num_profiles, 3, rank]`: the least, the best and the greatest shape. Every input has as many. */
    const int64_t *profiles;
    size_t num_profiles;
} trtllm_gpu_network_input;

typedef struct {
    const char *name;
    /* nvinfer1::PluginFieldType. */
    int32_t type;
    const void *data;
    int32_t len;
} trtllm_gpu_plugin_field;

typedef struct {
    int32_t op;
    const char *name;
    const uint32_t *inputs;
    size_t num_inputs;
    /* ElementWiseOperation, UnaryOperation, ReduceOperation or ActivationType. */
    int32_t kind;
    /* Of a gather and a concatenation the axis; of a reduction a bit for each axis, which stays with size 1. */
    int32_t axis;
    /* Of a matrix product: the second one. */
    bool transpose;
    /* What is made: asked for by constants and casts, else compared with what TensorRT says. */
    int32_t dtype;
    const int64_t *shape;
    size_t rank;
    /* Of a constant: its elements, which have to outlive the network, and the name of the weight, or NULL. */
    const void *data;
    int64_t count;
    const char *weight;
    /* Of a shuffle: the shape, and then the order of the axes, or NULL. */
    const int64_t *reshape;
    const int32_t *permutation;
    size_t reshape_rank;
    /* Of a plugin. */
    const char *plugin;
    const char *plugin_version;
    const char *plugin_namespace;
    const trtllm_gpu_plugin_field *fields;
    size_t num_fields;
} trtllm_gpu_network_node;

/*
 * How far TensorRT is: `step` of `steps` of a phase, which belongs to `parent` (NULL: to none). A phase begins with step 0 and
 * ends with `steps`. On any thread. False to stop.
 */
typedef bool (*trtllm_gpu_build_progress)(void *user_data, const char *phase, const char *parent, int32_t step,
                                          int32_t steps);

/* Takes bytes, in order. False when they cannot be kept. */
typedef bool (*trtllm_gpu_build_write)(void *user_data, const void *data, size_t len);

typedef struct {
    /* What an earlier build gave to `write_timing_cache`, or nothing. */
    const void *timing_cache;
    size_t timing_cache_len;
    /* NULL: not wanted. */
    trtllm_gpu_build_write write_timing_cache;
    trtllm_gpu_build_write write_plan;
    /* NULL: none. */
    trtllm_gpu_build_progress progress;
    /* Of the three functions. */
    void *user_data;
} trtllm_gpu_build;

typedef struct {
    /* TRTLLM_GPU_ABI of the shim; looked at before anything else. */
    uint32_t abi;
    /* Not NULL: why the shim was built without TensorRT-LLM. Nothing below it is set then. */
    const char *unavailable;
    /* Version of TensorRT-LLM whose headers the shim was compiled against. */
    const char *built_against;
    /* Version of TensorRT-LLM that was loaded. */
    const char *(*version)(void);
    /*
     * Offers what the library writes to std::cout and std::cerr, line by line, to `take`, for as long as the process runs. It
     * writes nowhere else. With `everything`, everybody's lines through those two streams are offered, else those that begin with
     * the library's mark, `[TensorRT-LLM]`. What is written from within `take` is not offered.
     */
    void (*capture_log)(trtllm_gpu_take_line take, bool everything, void *user_data);

    /* `tokenizer` may be NULL: no guided decoding. */
    int32_t (*open)(const char *engine_dir, const trtllm_gpu_setting *settings, size_t num_settings,
                    const trtllm_gpu_tokenizer *tokenizer, trtllm_gpu_executor **executor, trtllm_gpu_error *error);
    /* Whether this process may enqueue and await: with several ranks, the leader or the orchestrator. */
    bool (*can_enqueue)(const trtllm_gpu_executor *executor);
    /* Waits for everything that was enqueued; on a rank that may not enqueue, for the leader's close. Then the executor is no more, whatever is returned. */
    int32_t (*close)(trtllm_gpu_executor *executor, trtllm_gpu_error *error);
    int32_t (*enqueue)(trtllm_gpu_executor *executor, const trtllm_gpu_request *request, uint64_t *id,
                       trtllm_gpu_error *error);
    /* At most `timeout_ms`; NULL where nothing came. */
    int32_t (*await)(trtllm_gpu_executor *executor, uint64_t timeout_ms, trtllm_gpu_responses **responses,
                     trtllm_gpu_error *error);
    const trtllm_gpu_response *(*responses_data)(const trtllm_gpu_responses *responses, size_t *count);
    void (*free_responses)(trtllm_gpu_responses *responses);
    int32_t (*cancel)(trtllm_gpu_executor *executor, uint64_t id, trtllm_gpu_error *error);
    /* Writes at most `capacity`, oldest first; the rest comes with the next call. */
    int32_t (*iteration_stats)(trtllm_gpu_executor *executor, trtllm_gpu_iteration_stats *stats, size_t capacity,
                               size_t *count, trtllm_gpu_error *error);
    /* Statistics of each request in each iteration since the last call, as TensorRT-LLM's JSON, one object a line. */
    int32_t (*request_stats)(trtllm_gpu_executor *executor, trtllm_gpu_text **lines, trtllm_gpu_error *error);
    /* Events of the KV cache since the last call, one JSON object a line; waits at most `timeout_ms` for one. */
    int32_t (*kv_cache_events)(trtllm_gpu_executor *executor, uint64_t timeout_ms, trtllm_gpu_text **lines,
                               trtllm_gpu_error *error);
    const char *(*text_data)(const trtllm_gpu_text *text);
    void (*free_text)(trtllm_gpu_text *text);

    /* Version of TensorRT that is loaded, as `10.14.1`; empty where the shim was built without its headers: it makes no networks then. */
    const char *(*tensorrt_version)(void);
    /* Version of TensorRT whose headers the shim was compiled against, or empty. */
    const char *tensorrt_built_against;
    /*
     * For the GPU that CUDA calls `device`, which is chosen for the calling thread. `log` takes what TensorRT says of this network, on
     * any thread, until it is freed.
     */
    int32_t (*network_create)(const char *name, int32_t device, trtllm_gpu_log log, void *user_data,
                              trtllm_gpu_network **network, trtllm_gpu_error *error);
    /* A name that TensorRT does not take, of the network or of anything in it, is an error. */
    int32_t (*network_add_input)(trtllm_gpu_network *network, const trtllm_gpu_network_input *input,
                                 trtllm_gpu_error *error);
    int32_t (*network_add_node)(trtllm_gpu_network *network, const trtllm_gpu_network_node *node,
                                trtllm_gpu_error *error);
    int32_t (*network_mark_output)(trtllm_gpu_network *network, uint32_t tensor, const char *name,
                                   trtllm_gpu_error *error);
    /* Sets IS_BUILDING in the environment meanwhile: see `begin_build`. */
    int32_t (*network_build)(trtllm_gpu_network *network, const trtllm_gpu_build *build, trtllm_gpu_error *error);
    void (*free_network)(trtllm_gpu_network *network);

    /*
     * A build begins, and ends with `end_build`. While builds are under way `open` is refused, and while executors are open this is
     * (TRTLLM_GPU_BUSY), because the plugins of an engine that runs while another is built compute nothing. A network counts as a
     * build from network_create to free_network, an executor from the beginning of `open` to the end of `close`.
     */
    int32_t (*begin_build)(trtllm_gpu_error *error);
    void (*end_build)(void);
} trtllm_gpu_table;

/* TRTLLM_GPU_ENTRY; never NULL, and valid for ever. */
__attribute__((visibility("default"))) const trtllm_gpu_table *trtllm_gpu(void);

#ifdef __cplusplus
}
#endif

#endif /* TRTLLM_GPU_H */
