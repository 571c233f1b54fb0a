// Eight threads, many requests, random cancellations, waiting and callbacks mixed, and engines that are closed while all of
// that goes on. Every accepted request with a callback has to get exactly one final response, before its engine is closed.
//
//     soak ENGINE [REQUESTS]
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include <trtllm.h>

namespace {

constexpr int kThreads = 8;
constexpr int kRequestsPerEngine = 1000;

std::atomic<int> failures{0};

void fail(const char* what, trtllm_status status) {
    std::fprintf(stderr, "%s: %s: %s\n", what, trtllm_status_name(status), trtllm_last_error().data);
    ++failures;
}

// One for each request with a callback; lives until the end of the program.
struct Ticket {
    std::atomic<int> responses{0};
    std::atomic<int> finals{0};
    std::atomic<bool> accepted{false};
    trtllm_engine* engine = nullptr;
    bool cancels_itself = false;
};

struct Soak {
    trtllm_str path;
    std::atomic<trtllm_engine*> engine{nullptr};
    std::atomic<int> left{0};
    std::atomic<int> since_open{0};
    std::atomic<long> accepted{0}, cancelled{0}, refused{0}, awaited{0}, closed{0};
    std::mutex closing;

    void open() {
        trtllm_engine_config config;
        trtllm_init_engine_config(&config, sizeof config);
        config.threads = 2;
        config.max_queue_size = 200;
        trtllm_engine* opened = nullptr;
        const trtllm_status status = trtllm_open_engine(path, &config, &opened);
        if (status != TRTLLM_STATUS_OK) {
            fail("open", status);
            std::exit(1);
        }
        engine = opened;
    }

    // Closes the engine under everybody's hands and opens another.
    void reopen() {
        const std::lock_guard<std::mutex> lock(closing);
        if (since_open < kRequestsPerEngine) {
            return;
        }
        since_open = 0;
        trtllm_engine* const old = engine;
        open();
        const trtllm_status status = trtllm_close_engine(old);
        if (status != TRTLLM_STATUS_OK) {
            fail("close", status);
        }
        ++closed;
    }
};

void on_response(void* user_data, const trtllm_response* response) {
    auto* ticket = static_cast<Ticket*>(user_data);
    ++ticket->responses;
    if (response->is_final) {
        ++ticket->finals;
    } else if (ticket->cancels_itself) {
        trtllm_cancel(ticket->engine, response->request_id);
    }
}

// Whether a handle that another thread may have closed explains the status.
bool is_closing(trtllm_status status) {
    return status == TRTLLM_STATUS_INVALID_HANDLE || status == TRTLLM_STATUS_SHUT_DOWN;
}

void work(Soak& soak, unsigned seed, std::vector<Ticket>& tickets) {
    std::mt19937 random(seed);
    const auto draw = [&](unsigned below) { return static_cast<unsigned>(random() % below); };
    std::size_t next = 0;
    while (soak.left-- > 0) {
        trtllm_engine* const engine = soak.engine;
        std::vector<uint32_t> prompt(1 + draw(20));
        for (uint32_t& id : prompt) {
            id = 1 + draw(50);
        }
        trtllm_request request;
        trtllm_init_request(&request, sizeof request);
        request.token_ids = {prompt.data(), prompt.size()};
        request.max_new_tokens = 1 + draw(12);
        request.temperature = static_cast<float>(draw(2));
        request.num_return_sequences = 1 + draw(2);
        request.return_log_probs = draw(2) == 0;
        request.top_log_probs = draw(3);
        request.streaming = draw(4) != 0;
        Ticket* ticket = nullptr;
        if (draw(4) != 0) {
            ticket = &tickets[next++];
            ticket->engine = engine;
            ticket->cancels_itself = draw(8) == 0;
            request.on_response = on_response;
            request.user_data = ticket;
        }
        uint64_t id = 0;
        const trtllm_status status = trtllm_enqueue(engine, &request, &id);
        if (status == TRTLLM_STATUS_OK) {
            ++soak.accepted;
            ++soak.since_open;
            if (ticket != nullptr) {
                ticket->accepted = true;
            }
            if (draw(4) == 0) {
                ++soak.cancelled;
                trtllm_cancel(engine, id);
            }
        } else if (status == TRTLLM_STATUS_QUEUE_FULL || is_closing(status)) {
            ++soak.refused;
            ++soak.left;
            next -= ticket != nullptr;
            std::this_thread::yield();
        } else {
            fail("enqueue", status);
        }
        trtllm_responses* responses = nullptr;
        const trtllm_status waited = trtllm_await_responses(engine, draw(2), &responses);
        if (waited == TRTLLM_STATUS_OK) {
            const trtllm_response* const* array = nullptr;
            size_t count = 0;
            trtllm_view_responses(responses, &array, &count);
            for (size_t i = 0; i < count; i++) {
                soak.awaited += static_cast<long>(array[i]->token_ids.len);
            }
            if (trtllm_free_responses(responses) != TRTLLM_STATUS_OK ||
                trtllm_free_responses(responses) != TRTLLM_STATUS_INVALID_HANDLE) {
                fail("free", TRTLLM_STATUS_INTERNAL);
            }
        } else if (waited != TRTLLM_STATUS_TIMED_OUT && !is_closing(waited)) {
            fail("await", waited);
        }
        if (soak.since_open >= kRequestsPerEngine) {
            soak.reopen();
        }
    }
}

long resident_kib() {
    std::FILE* const file = std::fopen("/proc/self/statm", "r");
    long total = 0, resident = 0;
    if (file == nullptr || std::fscanf(file, "%ld %ld", &total, &resident) != 2) {
        resident = 0;
    }
    if (file != nullptr) {
        std::fclose(file);
    }
    return resident * 4;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s ENGINE [REQUESTS]\n", argv[0]);
        return 2;
    }
    const int requests = argc > 2 ? std::atoi(argv[2]) : 20000;
    Soak soak;
    soak.path = {argv[1], std::strlen(argv[1])};
    soak.left = requests;
    soak.open();
    std::vector<std::vector<Ticket>> tickets;
    for (int i = 0; i < kThreads; i++) {
        tickets.emplace_back(static_cast<std::size_t>(requests) + 1);
    }
    const long before = resident_kib();
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; i++) {
        threads.emplace_back([&, i] { work(soak, static_cast<unsigned>(i), tickets[static_cast<std::size_t>(i)]); });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    const trtllm_status status = trtllm_close_engine(soak.engine);
    if (status != TRTLLM_STATUS_OK) {
        fail("close", status);
    }
    long called = 0;
    for (const auto& of_one : tickets) {
        for (const Ticket& ticket : of_one) {
            const int expected = ticket.accepted ? 1 : 0;
            if (ticket.finals != expected) {
                std::fprintf(stderr, "a request got %d final responses, not %d\n", ticket.finals.load(), expected);
                ++failures;
            }
            called += ticket.responses;
        }
    }
    std::printf("%ld requests accepted, %ld refused, %ld cancelled; %ld responses by callback, %ld tokens awaited; "
                "%ld engines closed under way; resident %ld KiB before, %ld after\n",
                soak.accepted.load(), soak.refused.load(), soak.cancelled.load(), called, soak.awaited.load(),
                soak.closed.load(), before, resident_kib());
    return failures == 0 ? 0 : 1;
}
