/*
 * trtllm: Mistral and Llama models from Hugging Face to an engine, and in-flight batched generation from it.
 *
 * The shape of it:
 *
 *     trtllm_engine *engine;
 *     trtllm_open_engine(TRTLLM_STR("engine"), NULL, &engine);
 *     trtllm_request request;
 *     trtllm_init_request(&request, sizeof request);
 *     request.prompt = TRTLLM_STR("Jupiter is");
 *     uint64_t id;
 *     trtllm_enqueue(engine, &request, &id);
 *     trtllm_responses *responses;
 *     while (trtllm_await_responses(engine, TRTLLM_WAIT_FOREVER, &responses) == TRTLLM_STATUS_OK) {
 *         const trtllm_response *const *array;
 *         size_t count;
 *         trtllm_view_responses(responses, &array, &count);
 *         ...
 *         trtllm_free_responses(responses);
 *     }
 *     trtllm_close_engine(engine);
 *
 * What holds for every function:
 *
 * - It returns a status (but those that cannot fail). After anything but TRTLLM_STATUS_OK it has done nothing, no
 *   out-parameter was written, and trtllm_last_error() of the same thread says why.
 * - It is thread-safe: any thread may call it at any time, with the same handle too, unless its comment says otherwise. One pair
 *   excludes each other in a process: an engine for a GPU is built, or such engines are open. Who comes second is answered with
 *   TRTLLM_STATUS_BUSY.
 *   Freeing or closing a handle while another thread looks at what was viewed through it is the host's mistake.
 * - A handle (a pointer to a type without members) has one owner, the host, who frees it once with the function that its
 *   comment names. Handles are numbers in the shape of pointers: a NULL, a freed or a foreign one is answered with
 *   TRTLLM_STATUS_INVALID_HANDLE.
 * - Texts are UTF-8, with their length. Numbers of bytes, tokens and elements are size_t, times are in the unit that the
 *   name ends with.
 * - A struct that the host fills begins with struct_size, so that it can grow: initialise it with its trtllm_init_
 *   function. Fields that an older host does not have keep their defaults. New fields begin behind the end that a struct had in
 *   the version before, never in what padded it. So of a struct that the library fills, a field is there where
 *   offsetof(type, field) < struct_size, whatever the library's version.
 * - Callbacks get the user_data that came with them. Nothing may unwind out of one.
 * - Nothing is printed. No signal handler is installed, and no global state of the process is changed, but for Rust's
 *   panic hook, to which one that calls the former is added when the first guide is compiled, and for what engines for a GPU
 *   bring:
 *
 * TensorRT-LLM, for engines for a GPU:
 *
 * - TensorRT-LLM and MPI install signal handlers while they start. All signals do after trtllm_open_engine what they did before.
 *   Do not change a handler while it runs.
 * - MPI is initialized when the first such engine is opened, unless the host has done it, and finalized by a function of atexit().
 *   Close engines before the process exits.
 * - While trtllm_build_engine compiles, the environment variable IS_BUILDING is set. Threads of the host must not read or write
 *   the environment meanwhile (getenv, setenv). Building in a process of its own avoids that: the program build-engine.
 * - A fault in TensorRT-LLM, its plugins or NCCL can end the process: std::terminate(), exit(). An engine that is run by workers
 *   (communication_mode "orchestrator" of trtllm_engine_config.tensorrt_llm) ends these and not the host: docs/embedding.md.
 *
 * The host's threads, and the library's:
 *
 * - A thread that calls the library needs a stack of 256 KiB. Callbacks and logits_post_processors run on threads of the library,
 *   with stacks of 2 MiB.
 * - An engine has threads of its own: trtllm-session, which calls callbacks, and for the CPU executor trtllm-executor and
 *   trtllm-cpu-0 and so on, as many as the configuration's `threads`. Builds have trtllm-build-0 and so on. All names begin with
 *   trtllm-. trtllm_close_engine, trtllm_build_engine and whatever else starts threads return when they have ended
 *   (/proc/self/task may show one for some microseconds longer).
 * - All signals are blocked in them but those that report a fault of the thread itself, such as SIGSEGV, so no handler of the host
 *   runs there.
 * - They run on the processors that the thread which opened the engine may run on, and `threads` 0 counts their cores: to keep an engine
 *   on some processors, set the affinity of the thread that opens it.
 * - Results do not depend on the host's floating-point mode: the library computes in the default mode, and leaves the host's as
 *   it is. Environment variables of rayon are not looked at.
 * - On a CPU with AMX the library asks Linux for the permission to use its tiles, for the whole process and for good. From then on
 *   sigaltstack() refuses stacks that are too small for the tiles' state (getauxval(AT_MINSIGSTKSZ) says how large). With
 *   TRTLLM_CPU_ISA=avx512 in the environment it does not ask.
 *
 * Memory that the system refuses is TRTLLM_STATUS_SYSTEM while an engine is opened, and a failed response of one request later.
 * Where a small allocation of the library's own is refused, the process ends, as with C++'s std::bad_alloc that nobody catches.
 *
 * The library stays loaded after dlclose().
 *
 * Fork before an engine is opened or built. The child of a later fork() has none of the library's threads: there every function
 * is answered with TRTLLM_STATUS_SHUT_DOWN, but for the trtllm_init_ functions and those that cannot fail. It may exit, with
 * destructors that close and free, or exec() another program.
 */


#ifndef TRTLLM_H
#define TRTLLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A trtllm_str of a string literal. */
#ifdef __cplusplus
#define TRTLLM_STR(literal) (trtllm_str{"" literal, sizeof(literal) - 1})
#else
#define TRTLLM_STR(literal) ((trtllm_str){"" literal, sizeof(literal) - 1})
#endif

/**
 * No limit, for `trtllm_await_responses`.
 */
#define TRTLLM_WAIT_FOREVER 18446744073709551615ull

/**
 * The version that this header belongs to. Within a major version, and before 1.0 within a minor one, a program built with
 * an older header runs with a newer library.
 */
#define TRTLLM_VERSION_MAJOR 0

/**
 * See `TRTLLM_VERSION_MAJOR`.
 */
#define TRTLLM_VERSION_MINOR 1

/**
 * See `TRTLLM_VERSION_MAJOR`.
 */
#define TRTLLM_VERSION_PATCH 0

/**
 * The version in one number that grows: major * 10000 + minor * 100 + patch.
 */
#define TRTLLM_VERSION_NUMBER 100

/**
 * The text of a sequence while its tokens arrive. Made by `trtllm_new_detokenizer`, freed by `trtllm_free_detokenizer`.
 */
typedef struct trtllm_detokenizer trtllm_detokenizer;

/**
 * An engine that runs: its executor, its tokenizer, and the thread that brings its responses. Made by
 * `trtllm_open_engine`, ended by `trtllm_close_engine`.
 */
typedef struct trtllm_engine trtllm_engine;

/**
 * Statistics that the library made and the host frees, with `trtllm_free_iteration_stats`.
 */
typedef struct trtllm_iteration_stats_list trtllm_iteration_stats_list;

/**
 * A queue for the responses of some of an engine's requests. Made by `trtllm_new_queue`, ended by `trtllm_free_queue`.
 */
typedef struct trtllm_queue trtllm_queue;

/**
 * Responses that the library made and the host frees, with `trtllm_free_responses`.
 */
typedef struct trtllm_responses trtllm_responses;

/**
 * A text that the library made and the host frees, with `trtllm_free_string`.
 */
typedef struct trtllm_string trtllm_string;

/**
 * Token ids that the library made and the host frees, with `trtllm_free_token_ids`.
 */
typedef struct trtllm_token_ids trtllm_token_ids;

/**
 * What a function returns: `TRTLLM_STATUS_OK`, or why it did nothing. Out-parameters are written only with
 * `TRTLLM_STATUS_OK`. Later versions may return codes that this header does not list.
 */
typedef int32_t trtllm_status;

/**
 * A text that belongs to somebody else: `len` bytes of UTF-8 at `data`, not necessarily NUL-terminated. Zeros where
 * there is none.
 *
 * What the host hands in is read during the call only. What the library hands out says how long it is valid.
 */
typedef struct trtllm_str {
    /**
     * The first byte.
     */
    const char *data;
    /**
     * Bytes.
     */
    size_t len;
} trtllm_str;

/**
 * How far a long task is. The library fills it; later versions may make it longer.
 */
typedef struct trtllm_progress {
    /**
     * Bytes of this struct.
     */
    size_t struct_size;
    /**
     * What is being done, or was done last, for example `writing rank0.weights`; empty before the first task.
     */
    struct trtllm_str task;
    /**
     * Bytes of the task that are done; thousandths of each rank's engine while TensorRT compiles. Goes up until another task
     * begins.
     */
    uint64_t done_bytes;
    /**
     * The whole task, in the same unit.
     */
    uint64_t total_bytes;
    /**
     * Where there is something to say beside that: a sentence for the user. Else empty.
     */
    struct trtllm_str note;
} trtllm_progress;

/**
 * Told how far a task is, a few times for every hundred megabytes: on any thread, but never twice at the same time. Returns 0
 * to go on; anything else stops the task, which then leaves nothing behind. The pointer is valid during the call. It must not
 * unwind: no C++ exception may leave it.
 */
typedef int32_t (*trtllm_progress_callback)(void *user_data, const struct trtllm_progress *progress);

/**
 * What to build. Fill it with `trtllm_init_build_options`, give `model`, and `output` or `checkpoint` or both.
 */
typedef struct trtllm_build_options {
    /**
     * `sizeof(trtllm_build_options)`.
     */
    size_t struct_size;
    /**
     * The model: a directory, an `org/name` of the Hugging Face hub, or a TensorRT-LLM checkpoint that this library wrote.
     * Default: none.
     */
    struct trtllm_str model;
    /**
     * The engine directory to make. It appears whole or not at all. Default: none.
     */
    struct trtllm_str output;
    /**
     * The TensorRT-LLM checkpoint directory to make. Default: none.
     */
    struct trtllm_str checkpoint;
    /**
     * The target: `none` for the CPU, `auto`, or the name of a GPU, for example `a100`. Empty: a GPU that is here, else the
     * CPU. Default: none.
     */
    struct trtllm_str gpu;
    /**
     * Tensor-parallel size; 0 for the model's, or 1. Default: 0.
     */
    size_t tp_size;
    /**
     * Pipeline-parallel size; 0 for the model's, or 1. Default: 0.
     */
    size_t pp_size;
    /**
     * Tokens of the longest sequence; 0 for the library's choice. Default: 0.
     */
    size_t max_seq_len;
    /**
     * Sequences in one iteration; 0 for the library's choice. Default: 0.
     */
    size_t max_batch_size;
    /**
     * Tokens in one iteration; 0 for the library's choice. Default: 0.
     */
    size_t max_num_tokens;
    /**
     * Told how far the build is, and asked whether to go on; NULL for nobody. Default: none.
     */
    trtllm_progress_callback on_progress;
    /**
     * Given to `on_progress`. Default: none.
     */
    void *user_data;
    /**
     * Whether outputs that are there already are replaced. Default: false.
     */
    bool force;
    /**
     * Whether the model may be fetched from the Hugging Face hub. Default: false.
     */
    bool download;
    /**
     * GPU engines: logits of every token of a prompt can be had. TensorRT-LLM then reuses no KV-cache block of any request.
     * Default: false.
     */
    bool gather_context_logits;
    /**
     * GPU engines: logits of generated tokens can be had. Default: false.
     */
    bool gather_generation_logits;
    /**
     * GPU engines: matrix products by TensorRT-LLM's Gemm plugin. Default: false.
     */
    bool gemm_plugin;
    /**
     * GPU engines: who compiles, `tensorrt` or `trtllm-build`; empty for the first. Default: none.
     */
    struct trtllm_str compiler;
    /**
     * GPU engines: a file that keeps what TensorRT measures, for the next build; empty for none. Default: none.
     */
    struct trtllm_str timing_cache;
    /**
     * GPU engines: beams of a sequence; 0 for one. Default: 0.
     */
    size_t max_beam_width;
    /**
     * GPU engines: tokens of the iteration that tactics are chosen for, in one optimization profile; 0 for several profiles, between
     * the runtime's split points. Default: 0.
     */
    size_t opt_num_tokens;
    /**
     * GPU engines: ranks that are compiled at the same time; 0 for one. Default: 0.
     */
    size_t workers;
    /**
     * Whether weights may be infinite or NaN, or too large for bfloat16. Without, a model that has such weights is refused with
     * `TRTLLM_STATUS_INVALID_FILES`, and the first one is named. Default: false.
     */
    bool allow_non_finite;
    /**
     * GPU engines: type of the residual stream, `float32` or `bfloat16`; empty for the first. Default: none.
     */
    struct trtllm_str residual_dtype;
    /**
     * What a CPU engine's matrices are stored as: `bf16`, `int8` or `int4`; empty for the first. Default: none.
     */
    struct trtllm_str weights;
} trtllm_build_options;

/**
 * Which requests run when the KV cache cannot hold all.
 */
typedef uint32_t trtllm_capacity_scheduler_policy;

/**
 * How an engine is run. Fill it with `trtllm_init_engine_config` and change what you need. A number that is 0 leaves the
 * choice to the library unless its comment says otherwise.
 */
typedef struct trtllm_engine_config {
    /**
     * `sizeof(trtllm_engine_config)`.
     */
    size_t struct_size;
    /**
     * Worker threads of the CPU executor; 0 for one per physical core that the process may use. Default: 0.
     */
    size_t threads;
    /**
     * Tokens of the longest sequence, prompt and output together; lowers the engine's limit. Default: 0.
     */
    size_t max_seq_len;
    /**
     * Sequences in one iteration; lowers the engine's limit. Default: 0.
     */
    size_t max_batch_size;
    /**
     * Tokens in one iteration; lowers the engine's limit. Default: 0.
     */
    size_t max_num_tokens;
    /**
     * Tokens that the KV cache holds, rounded up to whole blocks; 0 for as many as `kv_cache_free_memory_fraction` allows and
     * the limits can use. Default: 0.
     */
    size_t kv_cache_max_tokens;
    /**
     * Share of free memory that the KV cache may take, above 0 and at most 1. Default: 0.9.
     */
    double kv_cache_free_memory_fraction;
    /**
     * Tokens of one block of the KV cache, from 1 to 1024. Default: 32.
     */
    size_t tokens_per_block;
    /**
     * Requests that may wait; further ones are refused with `TRTLLM_STATUS_QUEUE_FULL`. Default: 65536.
     */
    size_t max_queue_size;
    /**
     * Iterations whose statistics are kept until they are taken; 0 for none. Default: 1000.
     */
    size_t iter_stats_max_iterations;
    /**
     * `TRTLLM_GUARANTEED_NO_EVICT` or `TRTLLM_MAX_UTILIZATION`. Default: `TRTLLM_GUARANTEED_NO_EVICT`.
     */
    trtllm_capacity_scheduler_policy capacity_scheduler_policy;
    /**
     * Whether a prompt may be processed over several iterations; without, it must fit into `max_num_tokens`. Default: true.
     */
    bool enable_chunked_context;
    /**
     * Whether requests share the KV-cache blocks of equal prefixes. Default: true.
     */
    bool enable_block_reuse;
    /**
     * What only TensorRT-LLM's executor can be told: the content of the table `[tensorrt_llm]` of a configuration file
     * (docs/configuration.md), as TOML, without that line; empty for its defaults. Names that do not exist are refused.
     * Default: none.
     */
    struct trtllm_str tensorrt_llm;
    /**
     * Bytes that the KV cache takes at most, on each rank; 0 for as many as `kv_cache_max_tokens` and
     * `kv_cache_free_memory_fraction` allow. A host with several engines in one process should set it: an engine that is opened
     * is promised the memory of its whole cache, and the next one gets its share of what is left. Default: 0.
     */
    size_t kv_cache_max_bytes;
    /**
     * What a CPU engine stores keys and values as: `bf16`, or `int8`, which takes about half the memory; empty for `bf16`.
     * That of a TensorRT engine is built in: any but `bf16` is refused. Default: none.
     */
    struct trtllm_str kv_cache_dtype;
} trtllm_engine_config;

/**
 * What runs an engine.
 */
typedef uint32_t trtllm_executor_kind;

/**
 * What an engine is and what it takes.
 */
typedef struct trtllm_engine_info {
    /**
     * `sizeof(trtllm_engine_info)`: set it before the call.
     */
    size_t struct_size;
    /**
     * Tokens of the longest sequence, prompt and output together.
     */
    size_t max_seq_len;
    /**
     * Sequences in one iteration.
     */
    size_t max_batch_size;
    /**
     * Tokens in one iteration.
     */
    size_t max_num_tokens;
    /**
     * Tokens of the model's vocabulary: the length of its logits.
     */
    size_t vocab_size;
    /**
     * Tokens that the KV cache holds.
     */
    size_t kv_cache_tokens;
    /**
     * Bytes of the KV cache, when full.
     */
    size_t kv_cache_bytes;
    /**
     * Worker threads of the CPU executor.
     */
    size_t threads;
    /**
     * The instruction set of the CPU executor's kernels, for example `avx512`. Valid as long as the engine.
     */
    struct trtllm_str instruction_set;
    /**
     * Which executor runs it.
     */
    trtllm_executor_kind executor;
    /**
     * Whether it has a tokenizer: takes and gives text.
     */
    bool has_tokenizer;
    /**
     * Whether it has a chat template that can be used.
     */
    bool has_chat_template;
    /**
     * The model that it was built from, as whoever built it named it; empty where it is not known. Valid as long as the engine.
     */
    struct trtllm_str model;
    /**
     * The type that the model computes in: `bfloat16`. Always valid.
     */
    struct trtllm_str dtype;
    /**
     * The target that it was built for: `none` for the CPU, or a GPU's name. Valid as long as the engine.
     */
    struct trtllm_str target;
    /**
     * Beams of one request.
     */
    size_t max_beam_width;
    /**
     * What a CPU engine's matrices are stored as: `bf16`, `int8` or `int4`; else empty. Always valid.
     */
    struct trtllm_str weights;
    /**
     * What a CPU engine stores keys and values as: `bf16` or `int8`; else empty. Always valid.
     */
    struct trtllm_str kv_cache_dtype;
} trtllm_engine_info;

/**
 * How `trtllm_shutdown_engine` treats requests that have not ended.
 */
typedef uint32_t trtllm_shutdown;

/**
 * How grave a message of the log is. A level includes those before it.
 */
typedef uint32_t trtllm_log_level;

/**
 * A message of the log. The library fills it; later versions may make it longer.
 */
typedef struct trtllm_log_record {
    /**
     * Bytes of this struct.
     */
    size_t struct_size;
    /**
     * Who says it: a part of the library, for example `runner::engine`, or `tensorrt_llm`.
     */
    struct trtllm_str target;
    /**
     * What: a sentence, or of TensorRT-LLM a line with its own marks.
     */
    struct trtllm_str message;
    /**
     * How grave it is.
     */
    trtllm_log_level level;
} trtllm_log_record;

/**
 * Takes a message of the log, on whichever thread it comes from: one of the host's in a call of this library, or one of the
 * library's; from several at the same time. The record is valid during the call.
 *
 * The library may hold locks meanwhile. So every function of this header that returns a status answers
 * `TRTLLM_STATUS_WRONG_THREAD` here, and the callback must not wait for another thread that may be in such a function. It must not
 * unwind: no C++ exception may leave it.
 */
typedef void (*trtllm_log_callback)(void *user_data, const struct trtllm_log_record *record);

/**
 * The memory plan of a model on a target, for the rank that needs most. An estimate: what a TensorRT engine takes is known
 * when it is built.
 */
typedef struct trtllm_memory_plan {
    /**
     * `sizeof(trtllm_memory_plan)`: set it before the call.
     */
    size_t struct_size;
    /**
     * The target's name, as `gpu` takes it: `none` where `auto` found no GPU. Always valid.
     */
    struct trtllm_str target;
    /**
     * Bytes of memory.
     */
    uint64_t memory_bytes;
    /**
     * Bytes of weights.
     */
    uint64_t weights_bytes;
    /**
     * Bytes of activations at these limits.
     */
    uint64_t activation_bytes;
    /**
     * Bytes set aside for the runtime.
     */
    uint64_t reserve_bytes;
    /**
     * Bytes of keys and values of one token.
     */
    uint64_t kv_bytes_per_token;
    /**
     * Bytes that the KV cache gets.
     */
    uint64_t kv_cache_bytes;
    /**
     * Bytes that are lacking before one sequence of `max_seq_len` tokens can run; 0 when it fits.
     */
    uint64_t missing_bytes;
    /**
     * Most sequences of `max_seq_len` tokens at once.
     */
    uint64_t largest_batch;
    /**
     * Tokens of the longest sequence that fits alone.
     */
    uint64_t longest_sequence;
    /**
     * The limits asked for, or chosen.
     */
    size_t max_seq_len;
    /**
     * See `max_seq_len`.
     */
    size_t max_batch_size;
    /**
     * See `max_seq_len`.
     */
    size_t max_num_tokens;
    /**
     * Tensor-parallel size.
     */
    size_t tp_size;
    /**
     * Pipeline-parallel size.
     */
    size_t pp_size;
    /**
     * When it does not fit on a GPU: the smallest larger tensor-parallel size with which it would; else 0.
     */
    size_t smallest_tp_size;
} trtllm_memory_plan;

/**
 * Token ids that belong to somebody else. Zeros where there are none.
 */
typedef struct trtllm_ids {
    /**
     * The first id.
     */
    const uint32_t *data;
    /**
     * Ids.
     */
    size_t len;
} trtllm_ids;

/**
 * A number that is added to the logit of a token.
 */
typedef struct trtllm_token_bias {
    /**
     * The token.
     */
    uint32_t token_id;
    /**
     * What is added; finite.
     */
    float bias;
} trtllm_token_bias;

/**
 * A token and its natural log-probability.
 */
typedef struct trtllm_token_log_prob {
    /**
     * The token.
     */
    uint32_t token_id;
    /**
     * Its log-probability under the raw logits.
     */
    float log_prob;
} trtllm_token_log_prob;

/**
 * Why a sequence ended.
 */
typedef uint32_t trtllm_finish_reason;

/**
 * News of one sequence of a request. The library fills it, and what it points to belongs to the library. Later versions may
 * make it longer; it is only ever seen through a pointer.
 */
typedef struct trtllm_response {
    /**
     * Bytes of this struct.
     */
    size_t struct_size;
    /**
     * The request, as `trtllm_enqueue` named it.
     */
    uint64_t request_id;
    /**
     * The request's `user_data`.
     */
    void *user_data;
    /**
     * Number of the sequence, from 0. Beams come best first. Where `status` is not `TRTLLM_STATUS_OK`: the first that had not
     * ended.
     */
    size_t sequence_index;
    /**
     * The sequence's tokens since its last response; may be none in a final one. An end id is among them.
     */
    struct trtllm_ids token_ids;
    /**
     * The text that is new and certain: whole characters, without special tokens and without a stop text, unless the request asks
     * for them. Empty without `return_text`.
     */
    struct trtllm_str text;
    /**
     * With `return_log_probs`: one for each of `token_ids`, else NULL.
     */
    const float *log_probs;
    /**
     * With `top_log_probs`: for each of `token_ids` the `num_top_log_probs` most probable tokens, best first; else NULL.
     */
    const struct trtllm_token_log_prob *top_log_probs;
    /**
     * How many there are for each token.
     */
    size_t num_top_log_probs;
    /**
     * With `return_prompt_log_probs`, in the first response: one for each prompt token after the first; else NULL.
     */
    const float *prompt_log_probs;
    /**
     * How many; also how many rows `prompt_top_log_probs` has.
     */
    size_t num_prompt_log_probs;
    /**
     * Where `status` is not `TRTLLM_STATUS_OK`: why, as a sentence.
     */
    struct trtllm_str error;
    /**
     * When `is_sequence_final`: tokens of the prompt.
     */
    size_t num_prompt_tokens;
    /**
     * When `is_sequence_final`: tokens generated.
     */
    size_t num_output_tokens;
    /**
     * When `is_sequence_final`: nanoseconds from `trtllm_enqueue` to the first token; 0 where there was none.
     */
    uint64_t time_to_first_token_ns;
    /**
     * When `is_sequence_final`: nanoseconds from the first token to the last.
     */
    uint64_t generation_time_ns;
    /**
     * `TRTLLM_STATUS_OK`, or `TRTLLM_STATUS_REQUEST_FAILED`: the request ended with an error, for all its sequences.
     */
    trtllm_status status;
    /**
     * Why the sequence ended, when `is_sequence_final`.
     */
    trtllm_finish_reason finish_reason;
    /**
     * With `return_log_probs`, when `is_sequence_final`: the sum over the sequence's tokens as they were delivered, up to a stop
     * text if one ended it; counts where `has_cum_log_prob` is set.
     */
    float cum_log_prob;
    /**
     * Whether `cum_log_prob` is known.
     */
    bool has_cum_log_prob;
    /**
     * Whether this is the last response of the sequence. An error is the last of every sequence that had not ended.
     */
    bool is_sequence_final;
    /**
     * Whether this is the last response of the request.
     */
    bool is_final;
    /**
     * With `prompt_top_log_probs`, in the first response: `num_prompt_top_log_probs` for each prompt token after the first, best first,
     * row after row; else NULL.
     */
    const struct trtllm_token_log_prob *prompt_top_log_probs;
    /**
     * How many there are for each prompt token.
     */
    size_t num_prompt_top_log_probs;
    /**
     * With `return_context_logits`, once, in the request's first response: `num_context_logits` rows of `vocab_size` numbers, one for
     * each prompt token, of what follows it; else NULL.
     */
    const float *context_logits;
    /**
     * Rows of `context_logits`.
     */
    size_t num_context_logits;
    /**
     * With `return_generation_logits`: a row of `vocab_size` numbers for each of `token_ids`, which it was chosen from; else NULL.
     */
    const float *generation_logits;
    /**
     * Numbers of a row of logits, where there are some.
     */
    size_t vocab_size;
    /**
     * When `is_sequence_final`: the stop text that ended the sequence; empty where none did.
     */
    struct trtllm_str stop_reason;
    /**
     * When `is_sequence_final`: the end id, or the stop word, that ended the sequence; none where neither did.
     */
    struct trtllm_ids stop_reason_ids;
} trtllm_response;

/**
 * Takes the responses of one request, on the engine's response thread, one after the other; all other responses of the
 * engine wait until it returns. The response is valid during the call. After the one with `is_final` there is no further
 * call with this `user_data`.
 *
 * It may call every function but those that wait for the engine (`trtllm_await_responses`, `trtllm_await_queue`,
 * `trtllm_shutdown_engine`, `trtllm_close_engine`), which answer `TRTLLM_STATUS_WRONG_THREAD`. With `trtllm_fail` it ends its
 * request: it is called once more, with that error. It must not unwind: no C++ exception may leave it.
 */
typedef void (*trtllm_response_callback)(void *user_data, const struct trtllm_response *response);

/**
 * What a logits post-processor is told. The library fills it; later versions may make it longer.
 */
typedef struct trtllm_logits_context {
    /**
     * Bytes of this struct.
     */
    size_t struct_size;
    /**
     * The request.
     */
    uint64_t request_id;
    /**
     * Number of the sequence, from 0; in a beam search the number of the beam, whose tokens can change between calls.
     */
    size_t sequence_index;
    /**
     * Prompt and output so far; the logits are those of the token that follows.
     */
    struct trtllm_ids token_ids;
    /**
     * How many of the tokens are the prompt.
     */
    size_t num_prompt_tokens;
} trtllm_logits_context;

/**
 * Sees and edits the raw logits of the next token of a request, `vocab_size` numbers, before everything else that chooses a
 * token: bias, temperature, penalties, guide and filters come after it. Minus infinity excludes a token.
 * Log-probabilities that the request asks for are of the logits before the call.
 *
 * Returns 0; anything else, `trtllm_fail`, a logit that is plus infinity or NaN, or no token left ends the request with an error.
 *
 * Called once for each token of each sequence, on any thread, and for several sequences at the same time. Generation waits
 * for it. There is no call after the request's final response, which waits for those that run. The pointers are valid during the call. It must not unwind (no C++ exception may leave it), and must not call a
 * function that waits for the engine.
 */
typedef int32_t (*trtllm_logits_post_processor)(void *user_data,
                                                const struct trtllm_logits_context *context,
                                                float *logits,
                                                size_t vocab_size);

/**
 * What the output must look like.
 */
typedef uint32_t trtllm_guide_kind;

/**
 * When a beam search ends.
 */
typedef uint32_t trtllm_early_stopping;

/**
 * What to generate, and how. Fill it with `trtllm_init_request` and change what you need; one of `prompt`, `messages` and
 * `token_ids` has to be given. Everything that it points to is read during `trtllm_enqueue` only, but for `user_data`.
 */
typedef struct trtllm_request {
    /**
     * `sizeof(trtllm_request)`.
     */
    size_t struct_size;
    /**
     * The prompt as text, which is encoded with the tokenizer's special tokens. Default: none.
     */
    struct trtllm_str prompt;
    /**
     * A conversation: a JSON list of messages, each an object with `role` and `content`, or a text, which is the user's
     * message. It goes through the model's chat template. Default: none.
     */
    struct trtllm_str messages;
    /**
     * The prompt as token ids. Default: none.
     */
    struct trtllm_ids token_ids;
    /**
     * Tokens to generate at most. Fewer where the engine's `max_seq_len` leaves no room. With 0 every sequence ends
     * with `TRTLLM_FINISH_REASON_LENGTH` and no tokens; `return_prompt_log_probs` is answered. Default: 128.
     */
    size_t max_new_tokens;
    /**
     * Any of these ends a sequence, and is its last token, with `ignore_eos` too; none for the model's own. Default: none.
     */
    struct trtllm_ids end_ids;
    /**
     * Texts that end a sequence, with `streaming` or without; they are not part of its text, unless
     * `include_stop_str_in_output` is set. Special tokens that a text names (`[/INST]`) are found by their ids. They need
     * `return_text`. A beam search runs to its end, and its texts are cut. Default: none.
     */
    const struct trtllm_str *stop;
    /**
     * How many. Default: 0.
     */
    size_t num_stop;
    /**
     * Token sequences that end a sequence; they stay part of its output. Default: none.
     */
    const struct trtllm_ids *stop_words;
    /**
     * How many. Default: 0.
     */
    size_t num_stop_words;
    /**
     * Texts that are not generated: each as the tokenizer encodes it alone, and after a blank. Default: none.
     */
    const struct trtllm_str *bad_words;
    /**
     * How many. Default: 0.
     */
    size_t num_bad_words;
    /**
     * Token sequences that are not generated. Default: none.
     */
    const struct trtllm_ids *bad_token_words;
    /**
     * How many. Default: 0.
     */
    size_t num_bad_token_words;
    /**
     * Numbers that are added to logits. Default: none.
     */
    const struct trtllm_token_bias *embedding_bias;
    /**
     * How many. Default: 0.
     */
    size_t num_embedding_bias;
    /**
     * The schema, pattern or grammar of `guide_kind`. Default: none.
     */
    struct trtllm_str guide;
    /**
     * Seed of the draws; sequence i of a request uses `seed + i`. The same request with the same seed gives the same tokens,
     * whatever runs beside it. Default: 0.
     */
    uint64_t seed;
    /**
     * Ends the request with `TRTLLM_FINISH_REASON_TIMED_OUT` this many milliseconds after it was queued; 0 for never. Default:
     * 0.
     */
    uint64_t allotted_time_ms;
    /**
     * Requests share cached prefixes with those of the same salt only; counts where `has_cache_salt_id` is set. Default: 0.
     */
    uint64_t cache_salt_id;
    /**
     * The `top_k` most probable tokens are kept; 0 for all. Default: 0.
     */
    size_t top_k;
    /**
     * The end ids are not generated before this many tokens. Default: 0.
     */
    size_t min_tokens;
    /**
     * No n-gram of this many tokens occurs twice; 0 for no such rule. Default: 0.
     */
    size_t no_repeat_ngram_size;
    /**
     * How many tokens from the start of the prompt presence and frequency penalty do not count. Default: 0.
     */
    size_t prompt_ignore_length;
    /**
     * Sequences to return; 0 for one, or for all beams. Default: 0.
     */
    size_t num_return_sequences;
    /**
     * Beams of a beam search; 1 for none. Default: 1.
     */
    size_t beam_width;
    /**
     * How many of the most probable tokens to return at each position, with their log-probabilities. Default: 0.
     */
    size_t top_log_probs;
    /**
     * Takes the request's responses; NULL to take them with `trtllm_await_responses`, or from `queue`. Default: none.
     */
    trtllm_response_callback on_response;
    /**
     * Sees and edits the logits; NULL for none. Default: none.
     */
    trtllm_logits_post_processor logits_post_processor;
    /**
     * Given to both callbacks, and back in each response. It has to stay valid until the request's final response has been
     * delivered. Default: none.
     */
    void *user_data;
    /**
     * 0 takes the most probable token. Below 0: 1 where `top_k`, `top_p` or `min_p` is set, else 0. Default: -1.
     */
    float temperature;
    /**
     * The smallest set of most probable tokens whose probabilities reach this much is kept, and at least one; from 0 to 1.
     * Default: 1.
     */
    float top_p;
    /**
     * Tokens less probable than this share of the most probable one are dropped; from 0 to 1. Default: 0.
     */
    float min_p;
    /**
     * Above 1 makes tokens that occurred less likely; 1 for none. Default: 1.
     */
    float repetition_penalty;
    /**
     * Subtracted from the logits of tokens that occurred. Default: 0.
     */
    float presence_penalty;
    /**
     * Subtracted from the logits of tokens for each time that they occurred. Default: 0.
     */
    float frequency_penalty;
    /**
     * Beams are ranked by the sum of their log-probabilities over their length to this power. Default: 0.
     */
    float length_penalty;
    /**
     * From 0 to 1; requests of higher priority are started first. Default: 0.5.
     */
    float priority;
    /**
     * `TRTLLM_GUIDE_NONE`, or what `guide` is. Default: `TRTLLM_GUIDE_NONE`.
     */
    trtllm_guide_kind guide_kind;
    /**
     * When a beam search ends. Default: `TRTLLM_EARLY_STOPPING_YES`.
     */
    trtllm_early_stopping early_stopping;
    /**
     * Whether `cache_salt_id` counts. Default: false.
     */
    bool has_cache_salt_id;
    /**
     * Whether sequences go on beyond the model's end ids. Default: false.
     */
    bool ignore_eos;
    /**
     * Whether responses come as tokens are generated, rather than one at the end of each sequence. Beams come at the end.
     * Default: true.
     */
    bool streaming;
    /**
     * Whether responses carry text; without a tokenizer they do not. Default: true.
     */
    bool return_text;
    /**
     * Whether responses carry the log-probability of each generated token. Default: false.
     */
    bool return_log_probs;
    /**
     * Whether the first response carries the log-probability of each prompt token after the first. Default: false.
     */
    bool return_prompt_log_probs;
    /**
     * The folder of a LoRA adapter that PEFT wrote (docs/lora.md), which is applied to the model; empty for none. Read from
     * disk at its first use. TensorRT-LLM's executor only. Default: none.
     */
    struct trtllm_str lora;
    /**
     * How long the KV-cache blocks of prompt and output are kept for reuse: from 0, to go first, to 100; below 0
     * as the executor chooses. TensorRT-LLM's executor only. Default: -1.
     */
    int32_t retention_priority;
    /**
     * Where the responses go, to be taken with `trtllm_await_queue`; NULL to take them with `trtllm_await_responses`. A queue of
     * the same engine; excludes `on_response`. Default: none.
     */
    struct trtllm_queue *queue;
    /**
     * The model's chat template of this name; empty for the model's choice: `tool_use` where there are tools and it has one,
     * else `default`. This field and the four below it are for `messages`. Default: none.
     */
    struct trtllm_str chat_template;
    /**
     * Further variables of the template, a JSON object; empty for none. Default: none.
     */
    struct trtllm_str chat_template_kwargs;
    /**
     * Functions that the model may call, a JSON list of objects; empty for none. Default: none.
     */
    struct trtllm_str tools;
    /**
     * Texts that the model may use, a JSON list of objects; empty for none. Default: none.
     */
    struct trtllm_str documents;
    /**
     * A system message, for conversations that do not begin with one; empty for none. Default: none.
     */
    struct trtllm_str system;
    /**
     * The only tokens that are generated; none for all. A guide and bad words choose among them. An end id has to be one of them
     * to be generated; a guided output whose end ids are not ends where nothing but an end could follow. Default: none.
     */
    struct trtllm_ids allowed_token_ids;
    /**
     * How many of the most probable tokens to return at the position of each prompt token after the first, with their
     * log-probabilities. Default: 0.
     */
    size_t prompt_top_log_probs;
    /**
     * Whether the first response carries the raw logits of what follows each prompt token: prompt x vocabulary x 4 bytes.
     * Logits that may not fit into memory are refused with `TRTLLM_STATUS_SYSTEM`. Default: false.
     */
    bool return_context_logits;
    /**
     * Whether responses carry the raw logits that each token was chosen from, as the model gave them: before
     * `logits_post_processor`, masks, penalties and temperature. Tokens x vocabulary x 4 bytes for each sequence, as many as may be
     * generated counted before the request is taken. Not with a beam search. Default: false.
     */
    bool return_generation_logits;
    /**
     * Whether the model goes on with the last message, rather than answer it. Default: false.
     */
    bool continue_final_message;
    /**
     * Whether the stop text that ends a sequence is part of its text. Default: false.
     */
    bool include_stop_str_in_output;
    /**
     * Whether texts leave special tokens out. Default: true.
     */
    bool skip_special_tokens;
    /**
     * Whether special tokens that stand in `messages`, `tools`, `documents`, `system` and `chat_template_kwargs` are tokens, rather
     * than text. Default: false.
     */
    bool allow_special_tokens_in_messages;
} trtllm_request;

/**
 * What one iteration did, in TensorRT-LLM's terms. The library fills it; later versions may make it longer.
 */
typedef struct trtllm_iteration_stats {
    /**
     * Bytes of this struct.
     */
    size_t struct_size;
    /**
     * Number of the iteration, from 0.
     */
    uint64_t iter;
    /**
     * Nanoseconds of the whole iteration.
     */
    uint64_t iter_latency_ns;
    /**
     * Nanoseconds of it inside the model.
     */
    uint64_t model_latency_ns;
    /**
     * Nanoseconds that the requests which started in it had waited, in all.
     */
    uint64_t new_active_requests_queue_latency_ns;
    /**
     * Requests that started in it.
     */
    size_t num_new_active_requests;
    /**
     * Requests that have started and not ended.
     */
    size_t num_active_requests;
    /**
     * Requests that wait.
     */
    size_t num_queued_requests;
    /**
     * Requests that ended in it.
     */
    size_t num_completed_requests;
    /**
     * Sequences in it.
     */
    size_t num_scheduled_requests;
    /**
     * Sequences in their context phase.
     */
    size_t num_context_requests;
    /**
     * Sequences in their generation phase.
     */
    size_t num_gen_requests;
    /**
     * Sequences that were paused to make room.
     */
    size_t num_paused_requests;
    /**
     * Prompt tokens processed.
     */
    size_t num_ctx_tokens;
    /**
     * Blocks of the KV cache.
     */
    size_t kv_cache_max_num_blocks;
    /**
     * Blocks that nobody uses.
     */
    size_t kv_cache_free_num_blocks;
    /**
     * Blocks in use.
     */
    size_t kv_cache_used_num_blocks;
    /**
     * Tokens of one block.
     */
    size_t kv_cache_tokens_per_block;
    /**
     * Blocks handed to sequences, new and reused, since the start.
     */
    uint64_t kv_cache_alloc_total_blocks;
    /**
     * Blocks handed to sequences to be filled, since the start.
     */
    uint64_t kv_cache_alloc_new_blocks;
    /**
     * Blocks handed to sequences already filled, since the start.
     */
    uint64_t kv_cache_reused_blocks;
    /**
     * Full blocks of prompts that were looked for and not found, since the start.
     */
    uint64_t kv_cache_missed_blocks;
} trtllm_iteration_stats;

/**
 * The values of `trtllm_capacity_scheduler_policy` that this header knows.
 */
enum trtllm_capacity_scheduler_policy_code {
    /**
     * Only what fits to its end: a request that has started is never paused.
     */
    TRTLLM_GUARANTEED_NO_EVICT = 0,

    /**
     * As many as fit now; when the KV cache is full, the latest are paused and computed again later.
     */
    TRTLLM_MAX_UTILIZATION = 1
};

/**
 * The values of `trtllm_shutdown` that this header knows.
 */
enum trtllm_shutdown_code {
    /**
     * Lets them run to their end.
     */
    TRTLLM_SHUTDOWN_DRAIN = 0,

    /**
     * Ends them with `TRTLLM_FINISH_REASON_CANCELLED`.
     */
    TRTLLM_SHUTDOWN_CANCEL = 1
};

/**
 * The values of `trtllm_log_level` that this header knows.
 */
enum trtllm_log_level_code {
    /**
     * Something failed.
     */
    TRTLLM_LOG_ERROR = 1,

    /**
     * Something may go wrong.
     */
    TRTLLM_LOG_WARNING = 2,

    /**
     * Something happened.
     */
    TRTLLM_LOG_INFO = 3,

    /**
     * Anything finer.
     */
    TRTLLM_LOG_DEBUG = 4
};

/**
 * The values of `trtllm_guide_kind` that this header knows.
 */
enum trtllm_guide_kind_code {
    /**
     * Nothing is asked of it.
     */
    TRTLLM_GUIDE_NONE = 0,

    /**
     * Any JSON value; `guide` is empty.
     */
    TRTLLM_GUIDE_JSON = 1,

    /**
     * JSON that the JSON schema in `guide` admits.
     */
    TRTLLM_GUIDE_JSON_SCHEMA = 2,

    /**
     * Text that the regular expression in `guide` matches as a whole.
     */
    TRTLLM_GUIDE_REGEX = 3,

    /**
     * Text of the EBNF grammar in `guide`.
     */
    TRTLLM_GUIDE_EBNF_GRAMMAR = 4,

    /**
     * Text of the Lark grammar in `guide`; the CPU executor only.
     */
    TRTLLM_GUIDE_LARK_GRAMMAR = 5
};

/**
 * The values of `trtllm_early_stopping` that this header knows.
 */
enum trtllm_early_stopping_code {
    /**
     * When the best running beam is not expected to better the finished ones.
     */
    TRTLLM_EARLY_STOPPING_NO = 0,

    /**
     * As soon as `beam_width` beams have finished.
     */
    TRTLLM_EARLY_STOPPING_YES = 1,

    /**
     * When no running beam can better the finished ones.
     */
    TRTLLM_EARLY_STOPPING_NEVER = 2
};

/**
 * The values of `trtllm_finish_reason` that this header knows.
 */
enum trtllm_finish_reason_code {
    /**
     * It has not.
     */
    TRTLLM_FINISH_REASON_NONE = 0,

    /**
     * An end id was generated; it is the last token.
     */
    TRTLLM_FINISH_REASON_END_ID = 1,

    /**
     * A stop word or a stop text was generated.
     */
    TRTLLM_FINISH_REASON_STOP_WORDS = 2,

    /**
     * `max_new_tokens`, or the engine's `max_seq_len`, was reached.
     */
    TRTLLM_FINISH_REASON_LENGTH = 3,

    /**
     * The request's `allotted_time_ms` was over.
     */
    TRTLLM_FINISH_REASON_TIMED_OUT = 4,

    /**
     * The request was cancelled, or the engine was shut down.
     */
    TRTLLM_FINISH_REASON_CANCELLED = 5,

    /**
     * TensorRT-LLM gave a reason that this library does not know.
     */
    TRTLLM_FINISH_REASON_UNKNOWN = 6
};

/**
 * The values of `trtllm_status` that this header knows.
 */
enum trtllm_status_code {
    /**
     * Done.
     */
    TRTLLM_STATUS_OK = 0,

    /**
     * An argument or a field is wrong: NULL, out of its range, not UTF-8, a struct of an impossible size.
     */
    TRTLLM_STATUS_INVALID_ARGUMENT = 1,

    /**
     * A handle is NULL, of another kind, or was freed.
     */
    TRTLLM_STATUS_INVALID_HANDLE = 2,

    /**
     * Nothing came in time.
     */
    TRTLLM_STATUS_TIMED_OUT = 3,

    /**
     * The engine was shut down: it takes no more requests, and has no more responses. In a `fork()` of the process that opened it, every
     * handle is answered so.
     */
    TRTLLM_STATUS_SHUT_DOWN = 4,

    /**
     * Too many requests wait already.
     */
    TRTLLM_STATUS_QUEUE_FULL = 5,

    /**
     * The engine, or the executor behind it, does not have what was asked for.
     */
    TRTLLM_STATUS_UNSUPPORTED = 6,

    /**
     * This machine lacks what was asked for: a GPU, a library, an instruction set.
     */
    TRTLLM_STATUS_UNAVAILABLE = 7,

    /**
     * A model or an engine directory is invalid, or is not there.
     */
    TRTLLM_STATUS_INVALID_FILES = 8,

    /**
     * The system refused something: a file, memory, a thread, the network.
     */
    TRTLLM_STATUS_SYSTEM = 9,

    /**
     * A callback asked to stop.
     */
    TRTLLM_STATUS_CANCELLED = 10,

    /**
     * The function waits, and must not be called from a callback that the library runs; or it is for callbacks only.
     */
    TRTLLM_STATUS_WRONG_THREAD = 11,

    /**
     * In a response: the request failed while it ran.
     */
    TRTLLM_STATUS_REQUEST_FAILED = 12,

    /**
     * A defect of the library: it caught a panic of its own.
     */
    TRTLLM_STATUS_INTERNAL = 13,

    /**
     * A TensorRT engine is being built in this process and another was to be opened, or the reverse: one process does one of the two at a
     * time.
     */
    TRTLLM_STATUS_BUSY = 14
};

/**
 * The values of `trtllm_executor_kind` that this header knows.
 */
enum trtllm_executor_kind_code {
    /**
     * The embedded executor, on this machine's processor: engines for the target `none`.
     */
    TRTLLM_EXECUTOR_CPU = 0,

    /**
     * TensorRT-LLM's C++ executor: engines for GPU targets.
     */
    TRTLLM_EXECUTOR_TENSORRT_LLM = 1
};

#ifdef __cplusplus
extern "C" {
#endif /* __cplusplus */

/**
 * Writes the default options to `options`, a struct of `struct_size` bytes: `sizeof(trtllm_build_options)`. Thread-safe.
 */
trtllm_status trtllm_init_build_options(struct trtllm_build_options *options,
                                        size_t struct_size);

/**
 * Builds what `options` ask for; it returns when that is done, which may take minutes.
 *
 * Errors: `TRTLLM_STATUS_INVALID_ARGUMENT` for options that contradict each other or the model,
 * `TRTLLM_STATUS_INVALID_FILES` for an invalid model or an output that exists, `TRTLLM_STATUS_UNAVAILABLE` for a
 * target that this machine cannot build (the message has the command that finishes the work elsewhere) or whose memory is too
 * small,
 * `TRTLLM_STATUS_BUSY` for a GPU while this process has a TensorRT engine open,
 * `TRTLLM_STATUS_CANCELLED` when `on_progress` stopped it, `TRTLLM_STATUS_SYSTEM`, also when another build is writing there. After
 * an error the output is as it was.
 * Thread-safe.
 */
trtllm_status trtllm_build_engine(const struct trtllm_build_options *options);

/**
 * Compares every weight of an engine directory with its hash; the rest is compared whenever it is opened. It reads the whole
 * engine.
 *
 * Errors: `TRTLLM_STATUS_INVALID_FILES` for an invalid engine, `TRTLLM_STATUS_CANCELLED` when `on_progress`, which
 * may be NULL, stopped it. Thread-safe.
 */
trtllm_status trtllm_verify_engine(struct trtllm_str path,
                                   trtllm_progress_callback on_progress,
                                   void *user_data);

/**
 * Writes the default configuration to `config`, a struct of `struct_size` bytes: `sizeof(trtllm_engine_config)`.
 * Thread-safe.
 */
trtllm_status trtllm_init_engine_config(struct trtllm_engine_config *config, size_t struct_size);

/**
 * Opens an engine directory, made by `trtllm_build_engine` or the program `build-engine`, and starts its executor. `config`
 * may be NULL: all defaults.
 *
 * Errors: `TRTLLM_STATUS_INVALID_FILES` for an invalid directory, `TRTLLM_STATUS_UNAVAILABLE` for an engine
 * that this machine cannot run, `TRTLLM_STATUS_INVALID_ARGUMENT` for a configuration that the engine does not allow,
 * `TRTLLM_STATUS_BUSY` for a TensorRT engine while this process builds one, `TRTLLM_STATUS_SYSTEM`. Thread-safe.
 */
trtllm_status trtllm_open_engine(struct trtllm_str path,
                                 const struct trtllm_engine_config *config,
                                 struct trtllm_engine **engine);

/**
 * Describes an engine. Set `info->struct_size` before the call. Thread-safe.
 */
trtllm_status trtllm_describe_engine(const struct trtllm_engine *engine, struct trtllm_engine_info *info);

/**
 * Writes the model's end ids, those that end a sequence unless a request has its own, to `ids` as a new list. Thread-safe.
 */
trtllm_status trtllm_end_ids(const struct trtllm_engine *engine,
                             struct trtllm_token_ids **ids);

/**
 * Takes no more requests, ends those that there are, and returns when every one has ended and every callback has returned.
 * Responses that were not taken can still be taken. A second call waits for the first. Thread-safe; not to be called from a
 * callback (`TRTLLM_STATUS_WRONG_THREAD`).
 */
trtllm_status trtllm_shutdown_engine(struct trtllm_engine *engine,
                                     trtllm_shutdown how);

/**
 * Cancels what runs, waits until every request has ended and every callback has returned, and frees the engine. Until it
 * returns, the handle is that of an engine that was shut down: to callbacks that still run, and to other threads. Only a second
 * call is answered `TRTLLM_STATUS_INVALID_HANDLE` at once. Responses that were not taken are lost; a thread that waits for some
 * gets the last ones, or `TRTLLM_STATUS_SHUT_DOWN`. Response lists, strings and detokenizers that the host has stay valid.
 * Thread-safe; not to be called from a callback (`TRTLLM_STATUS_WRONG_THREAD`).
 */
trtllm_status trtllm_close_engine(struct trtllm_engine *engine);

/**
 * In a response callback or a logits post-processor: says why it fails. The message becomes the error of the request, which ends
 * with it (`TRTLLM_STATUS_REQUEST_FAILED`), whatever the callback returns. The last message counts. A response callback is
 * called once more, with that error; in the call for a final response a message changes nothing.
 *
 * Errors: `TRTLLM_STATUS_WRONG_THREAD` outside of those, `TRTLLM_STATUS_INVALID_ARGUMENT`. Thread-safe.
 */
trtllm_status trtllm_fail(struct trtllm_str message);

/**
 * Sends what the library logs, down to `level`, to `callback`, in place of the one before; NULL sends it nowhere, which is so at
 * the start, and `level` does not count then. When this function has returned, the callback before is not running and is never
 * called again.
 *
 * What TensorRT-LLM logs comes too, from the first TensorRT engine on that is opened after this call. TensorRT-LLM writes to
 * `std::cout` and `std::cerr`: from then on lines that begin with its mark are taken from there, for as long as there is a callback;
 * everything else that the process writes goes where it went.
 *
 * Errors: `TRTLLM_STATUS_INVALID_ARGUMENT` for another level; `TRTLLM_STATUS_UNSUPPORTED` in a Rust program that listens to `tracing`
 * itself; `TRTLLM_STATUS_WRONG_THREAD` in a log callback. Thread-safe. The setting is the process's.
 */
trtllm_status trtllm_set_log_callback(trtllm_log_level level,
                                      trtllm_log_callback callback,
                                      void *user_data);

/**
 * Plans the memory of the engine that `options` ask for, from any machine and with only the model's `config.json` at hand;
 * `output` and `checkpoint` are not looked at, and without `gpu` it is `auto`. Set `plan->struct_size` before the call.
 *
 * Errors: as `trtllm_build_engine`. An engine that does not fit is no error: see `missing_bytes`. Thread-safe.
 */
trtllm_status trtllm_plan_memory(const struct trtllm_build_options *options,
                                 struct trtllm_memory_plan *plan);

/**
 * Makes a queue and writes it to `queue`. The responses of requests whose `queue` it is go there, and to nobody else. It lives
 * until it is freed: also when its engine is closed, after which it gives the responses that it still has. Thread-safe.
 */
trtllm_status trtllm_new_queue(struct trtllm_engine *engine,
                               struct trtllm_queue **queue);

/**
 * Waits for responses of requests whose `queue` this is; otherwise as `trtllm_await_responses`, which never gets them.
 * `TRTLLM_STATUS_SHUT_DOWN` also when the queue is freed meanwhile. Thread-safe; not to be called from a callback
 * (`TRTLLM_STATUS_WRONG_THREAD`).
 */
trtllm_status trtllm_await_queue(struct trtllm_queue *queue, uint64_t timeout_ms, struct trtllm_responses **responses);

/**
 * Frees a queue. Its responses are lost, threads that wait for some get `TRTLLM_STATUS_SHUT_DOWN`, and its requests that have not
 * ended are cancelled when their next response comes: `trtllm_cancel` ends them sooner. Thread-safe; also in a callback.
 */
trtllm_status trtllm_free_queue(struct trtllm_queue *queue);

/**
 * Writes a file descriptor to `fd` that is readable while responses wait that `trtllm_await_responses` would give, for hosts that
 * wait with `poll` or `epoll`. When it is, await with a `timeout_ms` of 0, which takes all that there are.
 *
 * When the engine was shut down or closed it is readable for good: await then gives the last responses, and then
 * `TRTLLM_STATUS_SHUT_DOWN` (of an engine that was closed `TRTLLM_STATUS_INVALID_HANDLE`), and the host is done with it.
 *
 * The descriptor is the host's, to be closed with `close` at any time, before or after the engine. It must not be read or
 * written. Each call makes another one, which tells the same. It is closed by `exec`.
 *
 * Errors: `TRTLLM_STATUS_SYSTEM` when the process has too many descriptors. Thread-safe.
 */
trtllm_status trtllm_response_fd(struct trtllm_engine *engine,
                                 int32_t *fd);

/**
 * As `trtllm_response_fd`, for the responses of a queue. It is readable for good also when the queue is freed. Thread-safe.
 */
trtllm_status trtllm_queue_fd(struct trtllm_queue *queue,
                              int32_t *fd);

/**
 * Writes a greedy request of default settings, without a prompt, to `request`, a struct of `struct_size` bytes:
 * `sizeof(trtllm_request)`. Thread-safe.
 */
trtllm_status trtllm_init_request(struct trtllm_request *request, size_t struct_size);

/**
 * Queues a request and writes its id to `request_id`. It ends with exactly one final response. Its callback may run before
 * this function returns.
 *
 * Errors, after which no response comes and no callback runs: `TRTLLM_STATUS_INVALID_ARGUMENT` for what is wrong or exceeds
 * a limit of the engine, `TRTLLM_STATUS_UNSUPPORTED`, `TRTLLM_STATUS_QUEUE_FULL`, `TRTLLM_STATUS_SHUT_DOWN`,
 * `TRTLLM_STATUS_INVALID_FILES` for an adapter, `TRTLLM_STATUS_SYSTEM` when the executor has failed. Thread-safe;
 * also in a response callback.
 */
trtllm_status trtllm_enqueue(struct trtllm_engine *engine,
                             const struct trtllm_request *request,
                             uint64_t *request_id);

/**
 * Ends a request early. It still gets its final response, with `TRTLLM_FINISH_REASON_CANCELLED` unless it was over. An
 * unknown id is ignored. Thread-safe; also in a response callback.
 */
trtllm_status trtllm_cancel(struct trtllm_engine *engine, uint64_t request_id);

/**
 * Waits until there are responses of requests without a callback and a queue, and writes all that there are to `responses`, as a new list
 * with at least one: those of a sequence in order, a request's final one last. Several threads may wait; each response goes to
 * one of them. Responses that nobody takes are kept; when thousands wait, further ones are merged, those of a sequence into one,
 * so that they need no more memory than their tokens and text.
 *
 * Errors: `TRTLLM_STATUS_TIMED_OUT` when none came within `timeout_ms` milliseconds (0 looks and does not wait,
 * `TRTLLM_WAIT_FOREVER` has no limit); `TRTLLM_STATUS_SHUT_DOWN` when the engine was shut down and all have been taken.
 * Thread-safe; not to be called from a callback (`TRTLLM_STATUS_WRONG_THREAD`).
 */
trtllm_status trtllm_await_responses(struct trtllm_engine *engine,
                                     uint64_t timeout_ms,
                                     struct trtllm_responses **responses);

/**
 * Looks into a list of responses: writes to `array` where pointers to them are, and to `count` how many. All of it is valid
 * until the list is freed. Thread-safe.
 */
trtllm_status trtllm_view_responses(const struct trtllm_responses *responses,
                                    const struct trtllm_response *const **array,
                                    size_t *count);

/**
 * Frees a list of responses. Views of it are no longer valid. Thread-safe.
 */
trtllm_status trtllm_free_responses(struct trtllm_responses *responses);

/**
 * Takes the statistics of the iterations since the last call, oldest first, as a new list, which may be empty. The engine
 * keeps the newest `iter_stats_max_iterations`. Thread-safe.
 */
trtllm_status trtllm_take_iteration_stats(struct trtllm_engine *engine,
                                          struct trtllm_iteration_stats_list **list);

/**
 * Looks into a list of statistics: writes to `array` where pointers to them are, and to `count` how many. All of it is valid
 * until the list is freed. Thread-safe.
 */
trtllm_status trtllm_view_iteration_stats(const struct trtllm_iteration_stats_list *list,
                                          const struct trtllm_iteration_stats *const **array,
                                          size_t *count);

/**
 * Frees a list of statistics. Views of it are no longer valid. Thread-safe.
 */
trtllm_status trtllm_free_iteration_stats(struct trtllm_iteration_stats_list *list);

/**
 * Takes the statistics of each request in each iteration since the last call, as TensorRT-LLM's JSON, one object a line: writes a
 * new string to `lines`. Empty without `request_stats_max_iterations` in the configuration. TensorRT-LLM's executor only
 * (`TRTLLM_STATUS_UNSUPPORTED`). Thread-safe.
 */
trtllm_status trtllm_take_request_stats(const struct trtllm_engine *engine,
                                        struct trtllm_string **lines);

/**
 * Takes what has happened to blocks of the KV cache since the last call, one JSON object a line (`event_id`, `type`: `created`,
 * `stored`, `removed` or `updated`): writes a new string to `lines`, after at most `timeout_ms` where nothing has. Needs
 * `kv_cache.event_buffer_max_size` in the configuration, and no orchestrator. TensorRT-LLM's executor only
 * (`TRTLLM_STATUS_UNSUPPORTED`).
 * Thread-safe.
 */
trtllm_status trtllm_take_kv_cache_events(const struct trtllm_engine *engine,
                                          uint64_t timeout_ms,
                                          struct trtllm_string **lines);

/**
 * Why the last call of this thread that failed did so: a sentence that names what was wrong, where, and where possible
 * what to do about it. Empty where none has failed.
 *
 * The text is NUL-terminated, belongs to the library, and is valid until the next call of this thread fails.
 * Thread-safe.
 */
struct trtllm_str trtllm_last_error(void);

/**
 * The name of a status, for example `TRTLLM_STATUS_OK`; `unknown status` for a number that is none. A NUL-terminated
 * text that is always valid. Thread-safe.
 */
const char *trtllm_status_name(trtllm_status status);

/**
 * Looks into a string: writes to `text` where it is. The text is NUL-terminated behind `len`, and valid until the string is
 * freed. Thread-safe.
 */
trtllm_status trtllm_view_string(const struct trtllm_string *string,
                                 struct trtllm_str *text);

/**
 * Frees a string. Views of it are no longer valid. Thread-safe.
 */
trtllm_status trtllm_free_string(struct trtllm_string *string);

/**
 * Looks into a list of ids: writes to `ids` where they are. They are valid until the list is freed. Thread-safe.
 */
trtllm_status trtllm_view_token_ids(const struct trtllm_token_ids *list, struct trtllm_ids *ids);

/**
 * Frees a list of ids. Views of it are no longer valid. Thread-safe.
 */
trtllm_status trtllm_free_token_ids(struct trtllm_token_ids *list);

/**
 * Encodes a text: writes its token ids to `ids`, as a new list. `add_special_tokens` adds what the tokenizer puts around a
 * prompt; a text of `trtllm_apply_chat_template` has it already.
 *
 * Errors: `TRTLLM_STATUS_UNSUPPORTED` for an engine without a tokenizer. Thread-safe.
 */
trtllm_status trtllm_encode(const struct trtllm_engine *engine,
                            struct trtllm_str input,
                            bool add_special_tokens,
                            struct trtllm_token_ids **ids);

/**
 * Decodes a whole list of ids: writes its text to `output`, as a new string. Ids that the vocabulary lacks are left out, and
 * bytes that are no UTF-8 become U+FFFD. For text that grows token by token use a detokenizer.
 *
 * Errors: `TRTLLM_STATUS_UNSUPPORTED` for an engine without a tokenizer. Thread-safe.
 */
trtllm_status trtllm_decode(const struct trtllm_engine *engine,
                            struct trtllm_ids ids,
                            bool skip_special_tokens,
                            struct trtllm_string **output);

/**
 * Looks a token up as the vocabulary spells it (`Ġworld`, `▁world`, a special token's name), and writes its id to `id`.
 *
 * Errors: `TRTLLM_STATUS_INVALID_ARGUMENT` where there is no such token, `TRTLLM_STATUS_UNSUPPORTED` for an engine without a
 * tokenizer. Thread-safe.
 */
trtllm_status trtllm_token_to_id(const struct trtllm_engine *engine,
                                 struct trtllm_str token,
                                 uint32_t *id);

/**
 * Writes a token as the vocabulary spells it to `token`, as a new string.
 *
 * Errors: as `trtllm_token_to_id`. Thread-safe.
 */
trtllm_status trtllm_id_to_token(const struct trtllm_engine *engine, uint32_t id, struct trtllm_string **token);

/**
 * Puts a conversation into the model's chat template: writes the text to `output`, as a new string. `messages` is a JSON list
 * of objects with `role` and `content`, or a text, which is the user's message. `add_generation_prompt` ends it where the
 * assistant's answer begins. Encode it without special tokens. The text does not say what of it came from the messages, so
 * special tokens that stand in them become tokens where it is encoded; `messages` of a request does not have that fault.
 *
 * Errors: `TRTLLM_STATUS_UNSUPPORTED` for an engine without a template that can be used, `TRTLLM_STATUS_INVALID_ARGUMENT` for
 * messages that the template refuses. Thread-safe.
 */
trtllm_status trtllm_apply_chat_template(const struct trtllm_engine *engine,
                                         struct trtllm_str messages,
                                         bool add_generation_prompt,
                                         struct trtllm_string **output);

/**
 * Starts the text of a sequence that follows `prompt`, whose ids may be none: writes a new detokenizer to `detokenizer`. It
 * stays valid when the engine is closed.
 *
 * Errors: `TRTLLM_STATUS_UNSUPPORTED` for an engine without a tokenizer. Thread-safe.
 */
trtllm_status trtllm_new_detokenizer(const struct trtllm_engine *engine,
                                     struct trtllm_ids prompt,
                                     bool skip_special_tokens,
                                     struct trtllm_detokenizer **detokenizer);

/**
 * Takes the next ids of a sequence in, and writes the text that they make certain to `output`, as a new string: whole
 * characters, empty in the middle of one. With `is_last` also what was held back, with U+FFFD for an unfinished character.
 * Thread-safe.
 */
trtllm_status trtllm_detokenize(struct trtllm_detokenizer *detokenizer,
                                struct trtllm_ids ids,
                                bool is_last,
                                struct trtllm_string **output);

/**
 * Frees a detokenizer. Thread-safe.
 */
trtllm_status trtllm_free_detokenizer(struct trtllm_detokenizer *detokenizer);

/**
 * The version of the library that runs, for example `0.1.0`. A NUL-terminated text that is always valid. Thread-safe.
 */
const char *trtllm_version(void);

/**
 * The version of the library that runs, as a number: see `TRTLLM_VERSION_NUMBER`. Thread-safe.
 */
uint32_t trtllm_version_number(void);

/**
 * Asks whether this library can run engines on such an executor, on this machine: writes the answer to `available`, and to
 * `explanation` a new string that says what was found, or what is missing and what was tried. Changes nothing on the
 * machine. Thread-safe.
 */
trtllm_status trtllm_query_executor(trtllm_executor_kind executor,
                                    bool *available,
                                    struct trtllm_string **explanation);

/**
 * Looks at everything that a TensorRT engine needs (GPU, driver, CUDA, TensorRT, TensorRT-LLM, MPI), and at the engine directory
 * `engine` unless that is empty; of an engine for the CPU, at what that needs: writes to `healthy` whether it is all there and fits together, and to `report` a new string
 * with a line for each thing, and what to do about it. The same as `run-engine doctor`. It may load NVIDIA's libraries into the
 * process. Thread-safe.
 */
trtllm_status trtllm_diagnose(struct trtllm_str engine,
                              bool *healthy,
                              struct trtllm_string **report);

#ifdef __cplusplus
}  /* extern "C" */
#endif  /* __cplusplus */

#endif  /* TRTLLM_H */
