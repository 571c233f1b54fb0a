/*
 * A host with one event loop: it waits for the responses of two modules, which share an engine, and of its own with epoll, until
 * every request has ended and the engine with them.
 *
 *     epoll ENGINE REQUESTS
 */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <trtllm.h>

enum { MODULES = 3 };

static void ok(trtllm_status status) {
    if (status != TRTLLM_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", trtllm_status_name(status), trtllm_last_error().data);
        exit(1);
    }
}

static void expect(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        exit(1);
    }
}

#define EXPECT(condition) expect((condition), #condition)

/* Takes what waits for a module, never waiting; how many of its requests have ended, or -1 when there will be no more. */
static int take(trtllm_engine *engine, trtllm_queue *queue, const void *module) {
    trtllm_responses *responses = NULL;
    const trtllm_status status = queue == NULL ? trtllm_await_responses(engine, 0, &responses)
                                               : trtllm_await_queue(queue, 0, &responses);
    if (status == TRTLLM_STATUS_SHUT_DOWN) {
        return -1;
    }
    /* The descriptor was readable, and nobody else takes them. */
    ok(status);
    const trtllm_response *const *array = NULL;
    size_t count = 0;
    int ended = 0;
    ok(trtllm_view_responses(responses, &array, &count));
    for (size_t i = 0; i < count; i++) {
        EXPECT(array[i]->user_data == module && array[i]->status == TRTLLM_STATUS_OK);
        ended += array[i]->is_final;
    }
    ok(trtllm_free_responses(responses));
    return ended;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s ENGINE REQUESTS\n", argv[0]);
        return 2;
    }
    const int requests = atoi(argv[2]);
    const uint32_t prompt[] = {1, 2, 3};
    trtllm_engine *engine = NULL;
    /* Of the host itself, whose responses are the engine's, and of two modules. */
    trtllm_queue *queues[MODULES] = {NULL, NULL, NULL};
    int32_t fds[MODULES];
    int ended[MODULES] = {0, 0, 0}, open_modules = MODULES, wakeups = 0;
    ok(trtllm_open_engine((trtllm_str){argv[1], strlen(argv[1])}, NULL, &engine));
    ok(trtllm_new_queue(engine, &queues[1]));
    ok(trtllm_new_queue(engine, &queues[2]));
    ok(trtllm_response_fd(engine, &fds[0]));
    ok(trtllm_queue_fd(queues[1], &fds[1]));
    ok(trtllm_queue_fd(queues[2], &fds[2]));
    const int loop = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t module = 0; module < MODULES; module++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = module};
        EXPECT(epoll_ctl(loop, EPOLL_CTL_ADD, fds[module], &event) == 0);
    }
    struct epoll_event events[MODULES];
    EXPECT(epoll_wait(loop, events, MODULES, 0) == 0);

    for (int i = 0; i < requests * MODULES; i++) {
        trtllm_request request;
        uint64_t id = 0;
        ok(trtllm_init_request(&request, sizeof request));
        request.token_ids = (trtllm_ids){prompt, 3};
        request.max_new_tokens = 8;
        request.queue = queues[i % MODULES];
        request.user_data = &fds[i % MODULES];
        ok(trtllm_enqueue(engine, &request, &id));
    }
    bool is_shut_down = false;
    while (open_modules > 0) {
        const int count = epoll_wait(loop, events, MODULES, 60000);
        EXPECT(count > 0);
        wakeups++;
        for (int i = 0; i < count; i++) {
            const uint32_t module = events[i].data.u32;
            const int more = take(engine, queues[module], &fds[module]);
            if (more < 0) {
                EXPECT(is_shut_down && epoll_ctl(loop, EPOLL_CTL_DEL, fds[module], NULL) == 0);
                open_modules--;
            } else {
                ended[module] += more;
            }
        }
        if (!is_shut_down && ended[0] == requests && ended[1] == requests && ended[2] == requests) {
            EXPECT(epoll_wait(loop, events, MODULES, 20) == 0);
            ok(trtllm_shutdown_engine(engine, TRTLLM_SHUTDOWN_DRAIN));
            is_shut_down = true;
        }
    }
    ok(trtllm_close_engine(engine));
    for (int module = 0; module < MODULES; module++) {
        EXPECT(ended[module] == requests && close(fds[module]) == 0);
    }
    ok(trtllm_free_queue(queues[1]));
    ok(trtllm_free_queue(queues[2]));
    close(loop);
    printf("%d requests of %d modules, %d wake-ups\n", requests * MODULES, MODULES, wakeups);
    return 0;
}
