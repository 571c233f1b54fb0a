// Engines that end while callbacks use them: destroyed, closed, assigned over, and in the child of a fork().
//
//     closing ENGINE
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <trtllm.hpp>

#include "expect.hpp"

namespace {

trtllm_engine_config small() {
    trtllm_engine_config config = trtllm::Engine::default_config();
    config.threads = 2;
    config.kv_cache_max_tokens = 2048;
    return config;
}

// What came of the requests of one engine; written by its callbacks, read when it has ended.
struct Seen {
    std::size_t finals = 0, tokens = 0, refused = 0, others = 0;
};

// Requests whose callbacks cancel them and submit others, as a host's do. They run until the engine ends.
void load(trtllm::Engine& engine, Seen& seen) {
    for (int i = 0; i < 3; i++) {
        trtllm::Request request;
        request.prompt = "Jupiter is";
        request.options.max_new_tokens = 400;
        request.options.ignore_eos = true;
        request.on_response = [&engine, &seen](const trtllm_response& response) {
            seen.tokens += response.token_ids.len;
            seen.finals += response.is_final;
            if (seen.tokens > 3) {
                engine.cancel(response.request_id);
            }
            try {
                trtllm::Request next;
                next.prompt = "Mars is";
                next.options.max_new_tokens = 2;
                engine.enqueue(std::move(next));
            } catch (const trtllm::Error& error) {
                seen.refused += error.status() == TRTLLM_STATUS_SHUT_DOWN;
                seen.others += error.status() != TRTLLM_STATUS_SHUT_DOWN;
            }
        };
        engine.enqueue(request);
    }
}

// Whether this is the child of a fork().
bool is_child = false;

enum class End { destroyed, closed, assigned };

void end(const char* path, End how, int round) {
    Seen seen;
    {
        trtllm::Engine engine(path, small());
        load(engine, seen);
        std::this_thread::sleep_for(std::chrono::microseconds(round * 97 % 4000));
        trtllm_engine* const handle = engine.handle();
        if (how == End::closed) {
            engine.close();
        } else if (how == End::assigned) {
            trtllm::Engine other(path, small());
            trtllm_engine* const kept = other.handle();
            engine = std::move(other);
            EXPECT(engine.handle() == kept && other.handle() == nullptr);
        }
        if (how != End::destroyed) {
            EXPECT(trtllm_cancel(handle, 0) == TRTLLM_STATUS_INVALID_HANDLE);
            EXPECT(seen.finals == 3);
        }
        // Nothing is left to cancel.
        engine.cancel(0);
    }
    EXPECT(seen.finals == 3 && seen.others == 0);
}

// A child ends as any program does, static objects included.
void fork_and_exit(trtllm::Engine& engine) {
    const trtllm::Detokenizer detokenizer = engine.detokenizer({});
    Seen seen;
    load(engine, seen);
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        is_child = true;
        bool shut_down = false;
        try {
            engine.enqueue(trtllm::Request());
        } catch (const trtllm::Error& error) {
            shut_down = error.status() == TRTLLM_STATUS_SHUT_DOWN;
        }
        engine.cancel(0);
        std::exit(shut_down ? 0 : 1);
    }
    int status = -1;
    EXPECT(child > 0 && waitpid(child, &status, 0) == child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    engine.shutdown(TRTLLM_SHUTDOWN_CANCEL);
    EXPECT(seen.finals == 3);
}

}  // namespace

// LeakSanitizer asks this. What the threads of the parent held on their stacks is lost to a child, which is no leak.
extern "C" int __lsan_is_turned_off() { return is_child; }

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s ENGINE [ROUNDS]\n", argv[0]);
        return 2;
    }
    const int rounds = argc > 2 ? std::atoi(argv[2]) : 40;
    for (int round = 0; round < rounds; round++) {
        for (const End how : {End::destroyed, End::closed, End::assigned}) {
            end(argv[1], how, round);
        }
    }
    static trtllm::Engine engine(argv[1], small());
    fork_and_exit(engine);
    return failures == 0 ? 0 : 1;
}
