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
#define TRTLLM_GPU_ABI 1

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
};

typedef struct trtllm_gpu_executor trtllm_gpu_executor;
typedef struct trtllm_gpu_responses trtllm_gpu_responses;

typedef struct {
    const int32_t *data;
    size_t len;
} trtllm_gpu_ids;

/* Where a message goes; NUL-terminated, cut off where it is longer. */
typedef struct {
    char message[2048];
} trtllm_gpu_error;

/* What is negative is left to TensorRT-LLM, unless said otherwise. */
typedef struct {
    int32_t max_beam_width;
    int32_t max_batch_size;
    int32_t max_num_tokens;
    int32_t max_queue_size;
    int32_t iter_stats_max_iterations;
    /* As tensorrt_llm::executor::CapacitySchedulerPolicy. */
    int32_t capacity_scheduler_policy;
    bool enable_chunked_context;
    bool enable_block_reuse;
    int32_t kv_cache_max_tokens;
    float kv_cache_free_gpu_memory_fraction;
    int64_t kv_cache_host_bytes;
    /* Spawns a process for each rank instead of being one. */
    bool is_orchestrator;
    /* With is_orchestrator: the worker's executable, or NULL. */
    const char *worker_executable;
    /* The text of tokenizer.json and the vocabulary in the order of its ids, for guided decoding; NULL for none. */
    const char *tokenizer_json;
    const char *const *vocabulary;
    size_t vocabulary_len;
    trtllm_gpu_ids stop_token_ids;
} trtllm_gpu_config;

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
} trtllm_gpu_request;

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
} trtllm_gpu_output;

typedef struct {
    uint64_t request_id;
    /* Not NULL: the request failed, and nothing below counts. */
    const char *error;
    int32_t sequence_index;
    bool is_sequence_final;
    bool is_final;
    const trtllm_gpu_output *outputs;
    size_t num_outputs;
    /* `[rows, columns]`, or NULL. */
    const float *context_logits;
    size_t context_logits_rows;
    size_t context_logits_columns;
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

typedef struct {
    /* TRTLLM_GPU_ABI of the shim; looked at before anything else. */
    uint32_t abi;
    /* Version of TensorRT-LLM that was loaded. */
    const char *(*version)(void);

    int32_t (*open)(const char *engine_dir, const trtllm_gpu_config *config, trtllm_gpu_executor **executor,
                    trtllm_gpu_error *error);
    /* Waits for everything that was enqueued; then the executor is no more, whatever is returned. */
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
} trtllm_gpu_table;

__attribute__((visibility("default"))) const trtllm_gpu_table *trtllm_gpu(void);

#ifdef __cplusplus
}
#endif

#endif /* TRTLLM_GPU_H */
