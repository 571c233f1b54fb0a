/* Completes a prompt: minimal ENGINE PROMPT */
#include <stdio.h>
#include <string.h>

#include <trtllm.h>

static int failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, trtllm_last_error().data);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s ENGINE PROMPT\n", argv[0]);
        return 2;
    }
    trtllm_engine *engine;
    if (trtllm_open_engine((trtllm_str){argv[1], strlen(argv[1])}, NULL, &engine) != TRTLLM_STATUS_OK) {
        return failed("open");
    }
    trtllm_request request;
    if (trtllm_init_request(&request, sizeof request) != TRTLLM_STATUS_OK) {
        return failed("request");
    }
    request.prompt = (trtllm_str){argv[2], strlen(argv[2])};
    uint64_t id;
    if (trtllm_enqueue(engine, &request, &id) != TRTLLM_STATUS_OK) {
        return failed("enqueue");
    }
    for (bool done = false; !done;) {
        trtllm_responses *responses;
        const trtllm_response *const *array;
        size_t count;
        if (trtllm_await_responses(engine, TRTLLM_WAIT_FOREVER, &responses) != TRTLLM_STATUS_OK ||
            trtllm_view_responses(responses, &array, &count) != TRTLLM_STATUS_OK) {
            return failed("await");
        }
        for (size_t i = 0; i < count; i++) {
            if (array[i]->status != TRTLLM_STATUS_OK) {
                fprintf(stderr, "generation: %.*s\n", (int)array[i]->error.len, array[i]->error.data);
                return 1;
            }
            fwrite(array[i]->text.data, 1, array[i]->text.len, stdout);
            fflush(stdout);
            done = array[i]->is_final;
        }
        if (trtllm_free_responses(responses) != TRTLLM_STATUS_OK) {
            return failed("free");
        }
    }
    putchar('\n');
    return trtllm_close_engine(engine) == TRTLLM_STATUS_OK ? 0 : failed("close");
}
