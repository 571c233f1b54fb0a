/*
 * Calls every function of trtllm.h in every way in which it must not be called: NULL, stale and foreign handles, wrong
 * struct sizes, unaligned pointers, text that is not UTF-8, impossible lengths. A status has to come back each time.
 *
 *     misuse ENGINE MODEL
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <trtllm.h>

static int failures;

static void expect(trtllm_status expected, trtllm_status found, const char *call, int line) {
    if (found != expected) {
        fprintf(stderr, "misuse.c:%d: %s gave %s (%s), not %s\n", line, call, trtllm_status_name(found),
                trtllm_last_error().data, trtllm_status_name(expected));
        failures++;
    } else if (expected != TRTLLM_STATUS_OK && trtllm_last_error().len == 0) {
        fprintf(stderr, "misuse.c:%d: %s left no message\n", line, call);
        failures++;
    }
}

#define EXPECT(status, call) expect(TRTLLM_STATUS_##status, (call), #call, __LINE__)

/* What must not be, by its name. */
static void never(bool holds, const char *what) {
    failures += holds;
    fputs(holds ? what : "", stderr);
}

/* Whether the message of the last failure has `part`. */
static void expect_message(const char *part, int line) {
    if (strstr(trtllm_last_error().data, part) == NULL) {
        fprintf(stderr, "misuse.c:%d: the message `%s` has no `%s`\n", line, trtllm_last_error().data, part);
        failures++;
    }
}

#define EXPECT_MESSAGE(part) expect_message(part, __LINE__)

static const trtllm_str NOT_UTF8 = {"\xff\xfe", 2};
static const uint32_t IDS[] = {1, 2, 3};
static const trtllm_ids NO_IDS = {NULL, 0};
static const trtllm_ids NULL_IDS = {NULL, 3};

/* A handle of a kind, looking as if it had never been given out, then as if nothing were right about it. */
#define INVENTED(type) ((type *)(uintptr_t)0x1300000000000007u)
#define FOREIGN(type) ((type *)(uintptr_t)0x7f00000000001234u)

static int32_t stop_at_once(void *user_data, const trtllm_progress *progress) {
    (void)progress;
    ++*(int *)user_data;
    return 1;
}

static void log_nothing(void *user_data, const trtllm_log_record *record) {
    (void)user_data;
    (void)record;
}

/* A struct one byte into a buffer that is large enough. */
static void *unaligned(void *buffer) { return (char *)buffer + 1; }

static void strings(trtllm_engine *engine) {
    trtllm_str text = {"untouched", 9};
    trtllm_string *string = NULL;
    EXPECT(INVALID_HANDLE, trtllm_view_string(NULL, &text));
    EXPECT(INVALID_HANDLE, trtllm_view_string(INVENTED(trtllm_string), &text));
    EXPECT(INVALID_HANDLE, trtllm_view_string(FOREIGN(trtllm_string), &text));
    EXPECT(INVALID_HANDLE, trtllm_view_string((trtllm_string *)engine, &text));
    EXPECT_MESSAGE("trtllm_engine");
    EXPECT(INVALID_HANDLE, trtllm_free_string(NULL));
    EXPECT(INVALID_HANDLE, trtllm_free_string((trtllm_string *)engine));
    EXPECT(OK, trtllm_decode(engine, NO_IDS, true, &string));
    EXPECT(INVALID_ARGUMENT, trtllm_view_string(string, NULL));
    EXPECT(OK, trtllm_free_string(string));
    EXPECT(INVALID_HANDLE, trtllm_free_string(string));
    EXPECT(INVALID_HANDLE, trtllm_view_string(string, &text));
    EXPECT_MESSAGE("freed");

    trtllm_ids ids = {IDS, 3};
    trtllm_token_ids *list = NULL;
    EXPECT(INVALID_HANDLE, trtllm_view_token_ids(NULL, &ids));
    EXPECT(INVALID_HANDLE, trtllm_free_token_ids(NULL));
    EXPECT(OK, trtllm_end_ids(engine, &list));
    EXPECT(INVALID_ARGUMENT, trtllm_view_token_ids(list, NULL));
    EXPECT(OK, trtllm_free_token_ids(list));
    EXPECT(INVALID_HANDLE, trtllm_free_token_ids(list));
    EXPECT(INVALID_HANDLE, trtllm_view_token_ids(list, &ids));
    never(strcmp(text.data, "untouched") != 0 || ids.data != IDS || ids.len != 3,
          "an out-parameter was written by a failure\n");
}

static void engines(trtllm_str path) {
    union {
        trtllm_engine_config config;
        char bytes[sizeof(trtllm_engine_config) + 64];
    } larger;
    trtllm_engine_config config;
    EXPECT(INVALID_ARGUMENT, trtllm_init_engine_config(NULL, sizeof config));
    EXPECT(INVALID_ARGUMENT, trtllm_init_engine_config(&config, 0));
    EXPECT(INVALID_ARGUMENT, trtllm_init_engine_config(&config, 8));
    EXPECT(INVALID_ARGUMENT, trtllm_init_engine_config(&config, SIZE_MAX));
    EXPECT(INVALID_ARGUMENT, trtllm_init_engine_config(unaligned(&larger), sizeof config));
    EXPECT(OK, trtllm_init_engine_config(&config, sizeof config));

    trtllm_engine *engine = NULL;
    EXPECT(INVALID_ARGUMENT, trtllm_open_engine(path, &config, NULL));
    EXPECT(INVALID_ARGUMENT, trtllm_open_engine((trtllm_str){NULL, 5}, &config, &engine));
    EXPECT(INVALID_ARGUMENT, trtllm_open_engine((trtllm_str){"x", SIZE_MAX}, &config, &engine));
    EXPECT(INVALID_ARGUMENT, trtllm_open_engine((trtllm_str){"x", SIZE_MAX / 2 + 1}, &config, &engine));
    EXPECT(INVALID_ARGUMENT, trtllm_open_engine(NOT_UTF8, &config, &engine));
    EXPECT_MESSAGE("UTF-8");
    EXPECT(INVALID_FILES, trtllm_open_engine(TRTLLM_STR(""), &config, &engine));
    EXPECT(INVALID_FILES, trtllm_open_engine(TRTLLM_STR("/no/such/engine"), &config, &engine));
    EXPECT_MESSAGE("/no/such/engine");
    EXPECT(INVALID_FILES, trtllm_open_engine(TRTLLM_STR("a\0b"), &config, &engine));
    EXPECT(INVALID_ARGUMENT, trtllm_open_engine(path, unaligned(&larger), &engine));
#define WITH(field, value)                                                                                             \
    do {                                                                                                               \
        trtllm_engine_config wrong = config;                                                                           \
        wrong.field = value;                                                                                           \
        EXPECT(INVALID_ARGUMENT, trtllm_open_engine(path, &wrong, &engine));                                           \
    } while (0)
    WITH(struct_size, 0);
    WITH(struct_size, offsetof(trtllm_engine_config, tensorrt_llm));
    WITH(struct_size, SIZE_MAX);
    WITH(kv_cache_free_memory_fraction, 0.0);
    WITH(kv_cache_free_memory_fraction, -1.0);
    WITH(kv_cache_free_memory_fraction, 1.5);
    WITH(tokens_per_block, 0);
    WITH(tokens_per_block, 4096);
    WITH(max_queue_size, 0);
    WITH(max_seq_len, SIZE_MAX);
    WITH(max_batch_size, SIZE_MAX);
    WITH(max_num_tokens, SIZE_MAX);
    WITH(kv_cache_max_tokens, 1);
    WITH(capacity_scheduler_policy, 99);
#undef WITH
    never(engine != NULL, "an engine was written by a failure\n");

    /* A newer host's struct: fields that this library does not know have to be zero. */
    memset(&larger, 0, sizeof larger);
    EXPECT(OK, trtllm_init_engine_config(&larger.config, sizeof larger));
    larger.config.threads = 1;
    EXPECT(OK, trtllm_open_engine(path, &larger.config, &engine));
    EXPECT(OK, trtllm_close_engine(engine));
    larger.bytes[sizeof larger - 1] = 1;
    EXPECT(INVALID_ARGUMENT, trtllm_open_engine(path, &larger.config, &engine));
    EXPECT_MESSAGE("newer");

    trtllm_engine_info info = {0};
    trtllm_token_ids *ids = NULL;
    trtllm_iteration_stats_list *stats = NULL;
    trtllm_string *lines = NULL;
    trtllm_responses *responses = NULL;
    trtllm_queue *queue = NULL;
    int32_t fd = -1;
    trtllm_request request;
    uint64_t id = 0;
    EXPECT(OK, trtllm_init_request(&request, sizeof request));
    info.struct_size = sizeof info;
    trtllm_engine *const handles[] = {NULL, engine, INVENTED(trtllm_engine), FOREIGN(trtllm_engine)};
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) {
        EXPECT(INVALID_HANDLE, trtllm_describe_engine(handles[i], &info));
        EXPECT(INVALID_HANDLE, trtllm_end_ids(handles[i], &ids));
        EXPECT(INVALID_HANDLE, trtllm_shutdown_engine(handles[i], TRTLLM_SHUTDOWN_DRAIN));
        EXPECT(INVALID_HANDLE, trtllm_close_engine(handles[i]));
        EXPECT(INVALID_HANDLE, trtllm_enqueue(handles[i], &request, &id));
        EXPECT(INVALID_HANDLE, trtllm_cancel(handles[i], 0));
        EXPECT(INVALID_HANDLE, trtllm_await_responses(handles[i], 0, &responses));
        EXPECT(INVALID_HANDLE, trtllm_new_queue(handles[i], &queue));
        EXPECT(INVALID_HANDLE, trtllm_response_fd(handles[i], &fd));
        EXPECT(INVALID_HANDLE, trtllm_take_iteration_stats(handles[i], &stats));
        EXPECT(INVALID_HANDLE, trtllm_take_request_stats(handles[i], &lines));
        EXPECT(INVALID_HANDLE, trtllm_take_kv_cache_events(handles[i], 0, &lines));
    }
    EXPECT(OK, trtllm_open_engine(path, &config, &engine));
    EXPECT(INVALID_ARGUMENT, trtllm_describe_engine(engine, NULL));
    EXPECT(INVALID_ARGUMENT, trtllm_describe_engine(engine, unaligned(&larger)));
    info.struct_size = 3;
    EXPECT(INVALID_ARGUMENT, trtllm_describe_engine(engine, &info));
    EXPECT(INVALID_ARGUMENT, trtllm_end_ids(engine, NULL));
    EXPECT(INVALID_ARGUMENT, trtllm_shutdown_engine(engine, 17));
    EXPECT(OK, trtllm_close_engine(engine));
    EXPECT(INVALID_HANDLE, trtllm_close_engine(engine));
}

static void requests(trtllm_engine *engine) {
    trtllm_request request;
    uint64_t id = 42;
    EXPECT(INVALID_ARGUMENT, trtllm_init_request(NULL, sizeof request));
    EXPECT(INVALID_ARGUMENT, trtllm_init_request(&request, 1));
    EXPECT(OK, trtllm_init_request(&request, sizeof request));
    EXPECT(INVALID_ARGUMENT, trtllm_enqueue(engine, NULL, &id));
    EXPECT(INVALID_ARGUMENT, trtllm_enqueue(engine, &request, NULL));
    EXPECT(INVALID_ARGUMENT, trtllm_enqueue(engine, &request, &id));
    EXPECT_MESSAGE("no prompt");
    request.token_ids = (trtllm_ids){IDS, 3};
    request.max_new_tokens = 2;
    const trtllm_request good = request;
    const trtllm_str bad_text[] = {{"fine", 4}, {"\xc3", 1}};
    const trtllm_str null_text[] = {{NULL, 1}};
    const trtllm_ids bad_ids[] = {{IDS, 3}, {NULL, 2}};
    const trtllm_ids no_ids[] = {{NULL, 0}};
    const trtllm_ids huge_ids[] = {{IDS, SIZE_MAX / 4}};
    const uint32_t outside[] = {4000000000u};
    const trtllm_token_bias bias[] = {{1, 1.0f / 0.0f}};
    const trtllm_token_bias unknown[] = {{4000000000u, 1.0f}};
    const float nan = (float)(0.0 * (1e308 * 10));
#define WITH(changes)                                                                                                  \
    do {                                                                                                               \
        request = good;                                                                                                \
        changes;                                                                                                       \
        EXPECT(INVALID_ARGUMENT, trtllm_enqueue(engine, &request, &id));                                               \
    } while (0)
    WITH(request.struct_size = 0);
    WITH(request.struct_size = offsetof(trtllm_request, queue) - 1);
    WITH(request.struct_size = SIZE_MAX);
    WITH(request.token_ids = NULL_IDS);
    WITH(request.token_ids.len = SIZE_MAX);
    WITH(request.token_ids.len = SIZE_MAX / 4 + 1);
    WITH(request.token_ids.data = unaligned((void *)(uintptr_t)IDS));
    WITH(request.token_ids = ((trtllm_ids){outside, 1}));
    WITH(request.prompt = TRTLLM_STR("both"));
    WITH(request.token_ids = NO_IDS; request.prompt = TRTLLM_STR(""));
    WITH(request.token_ids = NO_IDS; request.prompt = NOT_UTF8);
    WITH(request.token_ids = NO_IDS; request.prompt = ((trtllm_str){NULL, 1}));
    WITH(request.token_ids = NO_IDS; request.messages = TRTLLM_STR("[{\"role\": 1}]"));
    WITH(request.token_ids = NO_IDS; request.messages = TRTLLM_STR("[]"));
    WITH(request.allowed_token_ids = ((trtllm_ids){outside, 1}));
    WITH(request.end_ids = NULL_IDS);
    WITH(request.end_ids = ((trtllm_ids){outside, 1}));
    WITH(request.num_stop = 1);
    WITH(request.stop = bad_text; request.num_stop = 2);
    WITH(request.stop = null_text; request.num_stop = 1);
    WITH(request.stop = bad_text; request.num_stop = SIZE_MAX);
    WITH(request.stop = bad_text; request.num_stop = 1; request.return_text = false);
    WITH(request.stop_words = bad_ids; request.num_stop_words = 2);
    WITH(request.stop_words = no_ids; request.num_stop_words = 1);
    WITH(request.stop_words = huge_ids; request.num_stop_words = SIZE_MAX / 8);
    WITH(request.bad_words = bad_text; request.num_bad_words = 2);
    WITH(request.num_bad_words = 1);
    WITH(request.bad_token_words = bad_ids; request.num_bad_token_words = 2);
    WITH(request.num_embedding_bias = 1);
    WITH(request.embedding_bias = bias; request.num_embedding_bias = 1);
    WITH(request.embedding_bias = unknown; request.num_embedding_bias = 1);
    WITH(request.guide_kind = 99);
    WITH(request.guide_kind = TRTLLM_GUIDE_REGEX; request.guide = TRTLLM_STR("("));
    WITH(request.guide_kind = TRTLLM_GUIDE_JSON_SCHEMA; request.guide = TRTLLM_STR("no json"));
    WITH(request.guide_kind = TRTLLM_GUIDE_LARK_GRAMMAR; request.guide = NOT_UTF8);
    WITH(request.guide_kind = TRTLLM_GUIDE_EBNF_GRAMMAR; request.guide = TRTLLM_STR("root ::= nothing"));
    WITH(request.guide = TRTLLM_STR("a guide of no kind"));
    WITH(request.temperature = nan);
    WITH(request.top_p = -0.5f);
    WITH(request.top_p = nan);
    WITH(request.min_p = 2.0f);
    WITH(request.repetition_penalty = 0.0f);
    WITH(request.presence_penalty = nan);
    WITH(request.frequency_penalty = nan);
    WITH(request.length_penalty = nan);
    WITH(request.priority = -1.0f);
    WITH(request.beam_width = 0);
    WITH(request.beam_width = SIZE_MAX);
    WITH(request.num_return_sequences = SIZE_MAX);
    WITH(request.early_stopping = 99);
#undef WITH
    request = good;
    request.retention_priority = 50;
    EXPECT(UNSUPPORTED, trtllm_enqueue(engine, &request, &id));
    never(id != 42, "an id was written by a failure\n");

    /* Huge numbers that mean something. */
    request = good;
    request.max_new_tokens = SIZE_MAX;
    request.top_k = SIZE_MAX;
    request.min_tokens = 1;
    request.no_repeat_ngram_size = SIZE_MAX;
    request.prompt_ignore_length = SIZE_MAX;
    request.top_log_probs = 2;
    request.allotted_time_ms = UINT64_MAX;
    EXPECT(OK, trtllm_enqueue(engine, &request, &id));
    EXPECT(OK, trtllm_cancel(engine, UINT64_MAX));

    trtllm_responses *responses = NULL;
    const trtllm_response *const *array = NULL;
    size_t count = 0;
    EXPECT(INVALID_ARGUMENT, trtllm_await_responses(engine, 0, NULL));
    EXPECT(OK, trtllm_await_responses(engine, TRTLLM_WAIT_FOREVER, &responses));
    EXPECT(INVALID_ARGUMENT, trtllm_view_responses(responses, NULL, &count));
    EXPECT(INVALID_ARGUMENT, trtllm_view_responses(responses, &array, NULL));
    EXPECT(INVALID_HANDLE, trtllm_view_responses(NULL, &array, &count));
    EXPECT(OK, trtllm_free_responses(responses));
    EXPECT(INVALID_HANDLE, trtllm_view_responses(responses, &array, &count));
    EXPECT(INVALID_HANDLE, trtllm_free_responses(responses));
    EXPECT(INVALID_HANDLE, trtllm_free_responses(NULL));
    EXPECT(OK, trtllm_cancel(engine, id));

    trtllm_iteration_stats_list *stats = NULL;
    const trtllm_iteration_stats *const *each = NULL;
    EXPECT(INVALID_ARGUMENT, trtllm_take_iteration_stats(engine, NULL));
    EXPECT(OK, trtllm_take_iteration_stats(engine, &stats));
    EXPECT(INVALID_ARGUMENT, trtllm_view_iteration_stats(stats, NULL, &count));
    EXPECT(INVALID_ARGUMENT, trtllm_view_iteration_stats(stats, &each, NULL));
    EXPECT(OK, trtllm_free_iteration_stats(stats));
    EXPECT(INVALID_HANDLE, trtllm_view_iteration_stats(stats, &each, &count));
    EXPECT(INVALID_HANDLE, trtllm_free_iteration_stats(stats));
    EXPECT(INVALID_HANDLE, trtllm_free_iteration_stats(NULL));
    trtllm_string *lines = NULL;
    EXPECT(INVALID_ARGUMENT, trtllm_take_request_stats(engine, NULL));
    EXPECT(UNSUPPORTED, trtllm_take_request_stats(engine, &lines));
    EXPECT(INVALID_ARGUMENT, trtllm_take_kv_cache_events(engine, 0, NULL));
    EXPECT(UNSUPPORTED, trtllm_take_kv_cache_events(engine, UINT64_MAX, &lines));
}

static void queues(trtllm_engine *engine, trtllm_str path) {
    trtllm_queue *queue = NULL, *foreign = NULL;
    trtllm_engine *other = NULL;
    trtllm_responses *responses = NULL;
    int32_t fd = -1;
    uint64_t id = 0;
    trtllm_request request;
    EXPECT(OK, trtllm_init_request(&request, sizeof request));
    request.token_ids = (trtllm_ids){IDS, 3};
    EXPECT(INVALID_ARGUMENT, trtllm_new_queue(engine, NULL));
    EXPECT(INVALID_ARGUMENT, trtllm_response_fd(engine, NULL));
    EXPECT(OK, trtllm_new_queue(engine, &queue));
    EXPECT(INVALID_ARGUMENT, trtllm_queue_fd(queue, NULL));
    EXPECT(INVALID_ARGUMENT, trtllm_await_queue(queue, 0, NULL));
    EXPECT(TIMED_OUT, trtllm_await_queue(queue, 0, &responses));
    request.queue = INVENTED(trtllm_queue);
    EXPECT(INVALID_HANDLE, trtllm_enqueue(engine, &request, &id));
    EXPECT(OK, trtllm_open_engine(path, NULL, &other));
    EXPECT(OK, trtllm_new_queue(other, &foreign));
    request.queue = foreign;
    EXPECT(INVALID_ARGUMENT, trtllm_enqueue(engine, &request, &id));
    EXPECT_MESSAGE("another engine");
    EXPECT(OK, trtllm_close_engine(other));
    EXPECT(SHUT_DOWN, trtllm_await_queue(foreign, TRTLLM_WAIT_FOREVER, &responses));
    EXPECT(OK, trtllm_free_queue(foreign));
    EXPECT(OK, trtllm_free_queue(queue));
    request.queue = queue;
    EXPECT(INVALID_HANDLE, trtllm_enqueue(engine, &request, &id));
    trtllm_queue *const handles[] = {NULL, queue, (trtllm_queue *)engine, FOREIGN(trtllm_queue)};
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) {
        EXPECT(INVALID_HANDLE, trtllm_await_queue(handles[i], 0, &responses));
        EXPECT(INVALID_HANDLE, trtllm_queue_fd(handles[i], &fd));
        EXPECT(INVALID_HANDLE, trtllm_free_queue(handles[i]));
    }
    EXPECT(INVALID_ARGUMENT, trtllm_set_log_callback(0, log_nothing, NULL));
    EXPECT(INVALID_ARGUMENT, trtllm_set_log_callback(5, log_nothing, NULL));
    EXPECT(OK, trtllm_set_log_callback(TRTLLM_LOG_DEBUG, log_nothing, NULL));
    EXPECT(OK, trtllm_set_log_callback(0, NULL, NULL));
    EXPECT(WRONG_THREAD, trtllm_fail(TRTLLM_STR("outside of a callback")));
    EXPECT(INVALID_ARGUMENT, trtllm_fail(NOT_UTF8));
}

static void texts(trtllm_engine *engine) {
    trtllm_token_ids *ids = NULL;
    trtllm_string *string = NULL;
    uint32_t id = 0;
    const trtllm_str null_text = {NULL, 4}, endless = {"x", SIZE_MAX};
    EXPECT(INVALID_HANDLE, trtllm_encode(NULL, TRTLLM_STR("a"), true, &ids));
    EXPECT(INVALID_ARGUMENT, trtllm_encode(engine, TRTLLM_STR("a"), true, NULL));
    EXPECT(INVALID_ARGUMENT, trtllm_encode(engine, NOT_UTF8, true, &ids));
    EXPECT(INVALID_ARGUMENT, trtllm_encode(engine, null_text, true, &ids));
    EXPECT(INVALID_ARGUMENT, trtllm_encode(engine, endless, true, &ids));
    EXPECT(INVALID_HANDLE, trtllm_decode(NULL, NO_IDS, true, &string));
    EXPECT(INVALID_ARGUMENT, trtllm_decode(engine, NO_IDS, true, NULL));
    EXPECT(INVALID_ARGUMENT, trtllm_decode(engine, NULL_IDS, true, &string));
    EXPECT(INVALID_ARGUMENT, trtllm_decode(engine, (trtllm_ids){IDS, SIZE_MAX}, true, &string));
    const uint32_t unknown[] = {UINT32_MAX, 4000000000u};
    EXPECT(OK, trtllm_decode(engine, (trtllm_ids){unknown, 2}, true, &string));
    EXPECT(OK, trtllm_free_string(string));
    EXPECT(INVALID_HANDLE, trtllm_token_to_id(NULL, TRTLLM_STR("a"), &id));
    EXPECT(INVALID_ARGUMENT, trtllm_token_to_id(engine, TRTLLM_STR("no such token, surely"), &id));
    EXPECT(INVALID_ARGUMENT, trtllm_token_to_id(engine, NOT_UTF8, &id));
    EXPECT(INVALID_ARGUMENT, trtllm_token_to_id(engine, TRTLLM_STR("a"), NULL));
    EXPECT(INVALID_HANDLE, trtllm_id_to_token(NULL, 0, &string));
    EXPECT(INVALID_ARGUMENT, trtllm_id_to_token(engine, UINT32_MAX, &string));
    EXPECT(INVALID_ARGUMENT, trtllm_id_to_token(engine, 0, NULL));
    EXPECT(INVALID_HANDLE, trtllm_apply_chat_template(NULL, TRTLLM_STR("a"), true, &string));
    EXPECT(INVALID_ARGUMENT, trtllm_apply_chat_template(engine, NOT_UTF8, true, &string));
    EXPECT(INVALID_ARGUMENT, trtllm_apply_chat_template(engine, TRTLLM_STR("[1]"), true, &string));
    EXPECT(INVALID_ARGUMENT, trtllm_apply_chat_template(engine, TRTLLM_STR("a"), true, NULL));

    trtllm_detokenizer *detokenizer = NULL;
    EXPECT(INVALID_HANDLE, trtllm_new_detokenizer(NULL, NO_IDS, true, &detokenizer));
    EXPECT(INVALID_ARGUMENT, trtllm_new_detokenizer(engine, NULL_IDS, true, &detokenizer));
    EXPECT(INVALID_ARGUMENT, trtllm_new_detokenizer(engine, NO_IDS, true, NULL));
    EXPECT(OK, trtllm_new_detokenizer(engine, NO_IDS, true, &detokenizer));
    EXPECT(INVALID_ARGUMENT, trtllm_detokenize(detokenizer, NULL_IDS, true, &string));
    EXPECT(INVALID_ARGUMENT, trtllm_detokenize(detokenizer, NO_IDS, true, NULL));
    EXPECT(OK, trtllm_detokenize(detokenizer, (trtllm_ids){unknown, 2}, true, &string));
    EXPECT(OK, trtllm_free_string(string));
    EXPECT(OK, trtllm_free_detokenizer(detokenizer));
    EXPECT(INVALID_HANDLE, trtllm_detokenize(detokenizer, NO_IDS, true, &string));
    EXPECT(INVALID_HANDLE, trtllm_free_detokenizer(detokenizer));
    EXPECT(INVALID_HANDLE, trtllm_free_detokenizer(NULL));
}

static void builds(trtllm_str engine, trtllm_str model) {
    trtllm_build_options options;
    EXPECT(INVALID_ARGUMENT, trtllm_init_build_options(NULL, sizeof options));
    EXPECT(INVALID_ARGUMENT, trtllm_init_build_options(&options, 5));
    EXPECT(OK, trtllm_init_build_options(&options, sizeof options));
    EXPECT(INVALID_ARGUMENT, trtllm_build_engine(NULL));
    EXPECT(INVALID_ARGUMENT, trtllm_build_engine(&options));
    EXPECT_MESSAGE("model");
    options.model = model;
    EXPECT(INVALID_ARGUMENT, trtllm_build_engine(&options));
    EXPECT_MESSAGE("nothing to build");
    options.output = TRTLLM_STR("misuse-output");
    options.gpu = TRTLLM_STR("none");
    const trtllm_build_options good = options;
    options.struct_size = 7;
    EXPECT(INVALID_ARGUMENT, trtllm_build_engine(&options));
    options = good;
    options.model = NOT_UTF8;
    EXPECT(INVALID_ARGUMENT, trtllm_build_engine(&options));
    options.model = TRTLLM_STR("/no/such/model");
    EXPECT(INVALID_FILES, trtllm_build_engine(&options));
    options = good;
    options.gpu = TRTLLM_STR("abacus");
    EXPECT(INVALID_ARGUMENT, trtllm_build_engine(&options));
    EXPECT_MESSAGE("abacus");
    options = good;
    options.tp_size = 2;
    EXPECT(INVALID_ARGUMENT, trtllm_build_engine(&options));
    options = good;
    options.max_seq_len = SIZE_MAX;
    EXPECT(INVALID_ARGUMENT, trtllm_build_engine(&options));
    options = good;
    options.output = engine;
    EXPECT(INVALID_FILES, trtllm_build_engine(&options));
    options = good;
    int calls = 0;
    options.on_progress = stop_at_once;
    options.user_data = &calls;
    EXPECT(CANCELLED, trtllm_build_engine(&options));

    trtllm_memory_plan plan = {0};
    options = good;
    EXPECT(INVALID_ARGUMENT, trtllm_plan_memory(NULL, &plan));
    EXPECT(INVALID_ARGUMENT, trtllm_plan_memory(&options, NULL));
    EXPECT(INVALID_ARGUMENT, trtllm_plan_memory(&options, &plan));
    plan.struct_size = SIZE_MAX;
    EXPECT(INVALID_ARGUMENT, trtllm_plan_memory(&options, &plan));
    plan.struct_size = sizeof plan;
    options.model = TRTLLM_STR("/no/such/model");
    EXPECT(INVALID_FILES, trtllm_plan_memory(&options, &plan));

    EXPECT(INVALID_ARGUMENT, trtllm_verify_engine(NOT_UTF8, NULL, NULL));
    EXPECT(INVALID_FILES, trtllm_verify_engine(TRTLLM_STR("/no/such/engine"), NULL, NULL));
    EXPECT(CANCELLED, trtllm_verify_engine(engine, stop_at_once, &calls));
    never(calls < 2, "no progress was told\n");
}

static void versions(void) {
    bool available = false;
    trtllm_string *explanation = NULL;
    EXPECT(INVALID_ARGUMENT, trtllm_query_executor(99, &available, &explanation));
    EXPECT(INVALID_ARGUMENT, trtllm_query_executor(TRTLLM_EXECUTOR_CPU, NULL, &explanation));
    EXPECT(INVALID_ARGUMENT, trtllm_query_executor(TRTLLM_EXECUTOR_CPU, &available, NULL));
    const trtllm_str nowhere = {NULL, 0};
    EXPECT(INVALID_ARGUMENT, trtllm_diagnose(nowhere, NULL, &explanation));
    EXPECT(INVALID_ARGUMENT, trtllm_diagnose(nowhere, &available, NULL));
    EXPECT(INVALID_ARGUMENT, trtllm_diagnose((trtllm_str){"\xff", 1}, &available, &explanation));
    EXPECT(OK, trtllm_diagnose(nowhere, &available, &explanation));
    EXPECT(OK, trtllm_free_string(explanation));
    never(strcmp(trtllm_status_name(12345), "unknown status") != 0 || strlen(trtllm_version()) == 0 ||
              trtllm_version_number() != TRTLLM_VERSION_NUMBER,
          "names and versions are wrong\n");
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s ENGINE MODEL\n", argv[0]);
        return 2;
    }
    const trtllm_str path = {argv[1], strlen(argv[1])}, model = {argv[2], strlen(argv[2])};
    trtllm_engine *engine = NULL;
    EXPECT(OK, trtllm_open_engine(path, NULL, &engine));
    versions();
    strings(engine);
    engines(path);
    requests(engine);
    queues(engine, path);
    texts(engine);
    builds(path, model);
    EXPECT(OK, trtllm_close_engine(engine));
    if (failures == 0) {
        puts("every misuse was answered with a status");
    }
    return failures == 0 ? 0 : 1;
}
