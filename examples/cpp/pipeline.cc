// Many requests in flight: a producer thread submits them, text streams into callbacks, one request is cancelled under way,
// and the engine is drained at the end.
//
//     pipeline ENGINE [REQUESTS]
#include <chrono>
#include <condition_variable>
#include <future>
#include <iostream>
#include <mutex>
#include <string>
#include <vector>

#include <trtllm.hpp>

namespace {

// What has come of one request. Only the engine's response thread writes, until `done`.
struct Answer {
    std::string prompt;
    std::string text;
    std::string problem;
    trtllm_finish_reason finish_reason = TRTLLM_FINISH_REASON_NONE;
    std::size_t tokens = 0;
};

class Pipeline {
public:
    Pipeline(const char* path, const trtllm_engine_config& config, std::size_t requests)
        : answers_(requests), engine_(path, config) {}

    // Submits every request, waiting where the queue is full.
    void produce() {
        const char* const prompts[] = {"Jupiter is", "The Moon is", "Complete the paragraph: our solar system is", "Comets are"};
        for (std::size_t i = 0; i < answers_.size(); i++) {
            Answer& answer = answers_[i];
            answer.prompt = prompts[i % 4];
            trtllm::Request request;
            request.prompt = answer.prompt;
            request.options.max_new_tokens = i == 0 ? 400 : 32;
            request.options.temperature = 0.8f;
            request.options.seed = i;
            // The first one is to be cancelled, so it must not end by itself before.
            request.options.ignore_eos = i == 0;
            request.on_response = [this, i](const trtllm_response& response) { take(i, response); };
            submit(request);
        }
    }

    // Waits until every request has ended.
    void wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        ended_.wait(lock, [this] { return finals_ == answers_.size(); });
    }

    const std::vector<Answer>& answers() const { return answers_; }

    trtllm::Engine& engine() { return engine_; }

private:
    void submit(const trtllm::Request& request) {
        for (;;) {
            try {
                engine_.enqueue(request);
                return;
            } catch (const trtllm::Error& error) {
                if (error.status() != TRTLLM_STATUS_QUEUE_FULL) {
                    throw;
                }
                // One that ends makes room.
                std::unique_lock<std::mutex> lock(mutex_);
                ended_.wait_for(lock, std::chrono::milliseconds(20));
            }
        }
    }

    void take(std::size_t index, const trtllm_response& response) {
        Answer& answer = answers_[index];
        answer.text += trtllm::view(response.text);
        answer.problem += trtllm::view(response.error);
        answer.tokens += response.token_ids.len;
        if (index == 0 && answer.tokens >= 3) {
            engine_.cancel(response.request_id);
        }
        if (response.is_final) {
            answer.finish_reason = response.finish_reason;
            const std::lock_guard<std::mutex> lock(mutex_);
            finals_++;
            ended_.notify_all();
        }
    }

    std::vector<Answer> answers_;
    std::mutex mutex_;
    std::condition_variable ended_;
    std::size_t finals_ = 0;
    // The last member, so that it is closed, and its callbacks have returned, before what they write to goes.
    trtllm::Engine engine_;
};

int run(const char* path, std::size_t requests) {
    trtllm_engine_config config = trtllm::Engine::default_config();
    config.max_queue_size = 16;
    Pipeline pipeline(path, config, requests);
    trtllm::Engine& engine = pipeline.engine();
    const trtllm_engine_info info = engine.describe();
    std::cout << "KV cache of " << info.kv_cache_tokens << " tokens, " << info.threads << " threads, "
              << trtllm::view(info.instruction_set) << '\n';

    // `get` throws what the producer threw.
    std::future<void> producer = std::async(std::launch::async, [&] { pipeline.produce(); });
    producer.get();
    pipeline.wait();
    engine.shutdown(TRTLLM_SHUTDOWN_DRAIN);

    std::size_t tokens = 0, cancelled = 0, failed = 0, widest = 0;
    for (const Answer& answer : pipeline.answers()) {
        tokens += answer.tokens;
        cancelled += answer.finish_reason == TRTLLM_FINISH_REASON_CANCELLED;
        if (!answer.problem.empty()) {
            failed++;
            std::cerr << "a request failed: " << answer.problem << '\n';
        }
    }
    for (const trtllm_iteration_stats& stats : engine.iteration_stats()) {
        widest = stats.num_scheduled_requests > widest ? stats.num_scheduled_requests : widest;
    }
    const Answer& last = pipeline.answers().back();
    std::cout << last.prompt << last.text << '\n'
              << requests << " requests, " << tokens << " tokens, " << cancelled << " cancelled; up to " << widest
              << " sequences in one iteration\n";
    engine.close();
    return cancelled == 1 && failed == 0 && tokens > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::cerr << "usage: " << argv[0] << " ENGINE [REQUESTS]\n";
        return 2;
    }
    try {
        return run(argv[1], argc > 2 ? std::stoul(argv[2]) : 64);
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 1;
    }
}
