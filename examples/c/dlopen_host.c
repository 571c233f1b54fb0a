/*
 * Uses the library without being linked to it: dlopen_host LIBRARY ENGINE PROMPT
 *
 * The host starts on machines that do not have the library, and can say so.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <trtllm.h>

/* A pointer to the function of this name in `library`. */
static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (found == NULL) {
        fprintf(stderr, "the library has no %s: %s\n", name, dlerror());
        exit(1);
    }
    return found;
}

/* POSIX lets a pointer of dlsym become a function; ISO C needs the detour. */
#define LOAD(name)                                                                                                     \
    __typeof__(&name) load_##name;                                                                                     \
    do {                                                                                                               \
        void *found = symbol(library, #name);                                                                          \
        memcpy(&load_##name, &found, sizeof found);                                                                    \
    } while (0)

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: %s LIBRARY ENGINE PROMPT\n", argv[0]);
        return 2;
    }
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "cannot load the library: %s\n", dlerror());
        return 1;
    }
    LOAD(trtllm_version);
    LOAD(trtllm_last_error);
    LOAD(trtllm_open_engine);
    LOAD(trtllm_init_request);
    LOAD(trtllm_enqueue);
    LOAD(trtllm_await_responses);
    LOAD(trtllm_view_responses);
    LOAD(trtllm_free_responses);
    LOAD(trtllm_close_engine);

    /* Before 1.0 the minor version has to be the same. */
    int major = -1, minor = -1;
    if (sscanf(load_trtllm_version(), "%d.%d", &major, &minor) != 2 || major != TRTLLM_VERSION_MAJOR ||
        (major == 0 ? minor != TRTLLM_VERSION_MINOR : minor < TRTLLM_VERSION_MINOR)) {
        fprintf(stderr, "this host needs trtllm %d.%d, not %s\n", TRTLLM_VERSION_MAJOR, TRTLLM_VERSION_MINOR,
                load_trtllm_version());
        return 1;
    }
    printf("trtllm %s\n", load_trtllm_version());

    trtllm_engine *engine;
    if (load_trtllm_open_engine((trtllm_str){argv[2], strlen(argv[2])}, NULL, &engine) != TRTLLM_STATUS_OK) {
        fprintf(stderr, "open: %s\n", load_trtllm_last_error().data);
        return 1;
    }
    trtllm_request request;
    if (load_trtllm_init_request(&request, sizeof request) != TRTLLM_STATUS_OK) {
        fprintf(stderr, "request: %s\n", load_trtllm_last_error().data);
        return 1;
    }
    request.prompt = (trtllm_str){argv[3], strlen(argv[3])};
    request.max_new_tokens = 24;
    request.streaming = false;
    uint64_t id;
    trtllm_responses *responses;
    const trtllm_response *const *array;
    size_t count;
    if (load_trtllm_enqueue(engine, &request, &id) != TRTLLM_STATUS_OK ||
        load_trtllm_await_responses(engine, TRTLLM_WAIT_FOREVER, &responses) != TRTLLM_STATUS_OK ||
        load_trtllm_view_responses(responses, &array, &count) != TRTLLM_STATUS_OK) {
        fprintf(stderr, "generate: %s\n", load_trtllm_last_error().data);
        return 1;
    }
    const bool generated = count == 1 && array[0]->status == TRTLLM_STATUS_OK && array[0]->is_final;
    if (generated) {
        printf("%s%.*s\n", argv[3], (int)array[0]->text.len, array[0]->text.data);
    } else {
        fprintf(stderr, "generation: %.*s\n", (int)array[0]->error.len, array[0]->error.data);
    }
    if (load_trtllm_free_responses(responses) != TRTLLM_STATUS_OK ||
        load_trtllm_close_engine(engine) != TRTLLM_STATUS_OK) {
        fprintf(stderr, "close: %s\n", load_trtllm_last_error().data);
        return 1;
    }
    dlclose(library);
    return generated ? 0 : 1;
}
