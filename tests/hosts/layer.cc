// Everything that trtllm.hpp adds to trtllm.h: who owns what, what throws what, and what comes out of callbacks.
//
//     layer MODEL FOLDER
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <unistd.h>

#include <trtllm.hpp>

#include "expect.hpp"

namespace {

// The status of the error that `task` throws; TRTLLM_STATUS_OK where it throws none.
template <typename Task>
trtllm_status thrown_by(Task task) {
    try {
        task();
        return TRTLLM_STATUS_OK;
    } catch (const trtllm::Error& error) {
        EXPECT(std::string(error.what()).size() > 10);
        return error.status();
    }
}

struct Stopped : std::runtime_error {
    Stopped() : std::runtime_error("stopped") {}
};

void building(const std::string& model, const std::string& output) {
    trtllm_build_options options = trtllm::default_build_options();
    options.model = trtllm::str(model);
    options.output = trtllm::str(output);
    options.gpu = TRTLLM_STR("none");
    const trtllm_memory_plan plan = trtllm::plan_memory(options);
    EXPECT(plan.weights_bytes > 0 && trtllm::view(plan.target) == "none");

    bool stopped = false;
    try {
        trtllm::build_engine(options, [](const trtllm_progress&) { throw Stopped(); });
    } catch (const Stopped&) {
        stopped = true;
    }
    EXPECT(stopped && !std::filesystem::exists(output));

    uint64_t most = 0;
    trtllm::build_engine(options, [&](const trtllm_progress& progress) {
        most = progress.done_bytes > most ? progress.done_bytes : most;
    });
    EXPECT(most > 0);
    EXPECT(thrown_by([&] { trtllm::build_engine(options); }) == TRTLLM_STATUS_INVALID_FILES);

    uint64_t total = 0;
    most = 0;
    trtllm::verify_engine(output, [&](const trtllm_progress& progress) {
        most = progress.done_bytes > most ? progress.done_bytes : most;
        total = progress.total_bytes > total ? progress.total_bytes : total;
    });
    EXPECT(most == total && total > 0);
    int calls = 0;
    stopped = false;
    try {
        trtllm::verify_engine(output, [&](const trtllm_progress&) {
            calls++;
            throw Stopped();
        });
    } catch (const Stopped&) {
        stopped = true;
    }
    EXPECT(stopped && calls == 1);
    trtllm::verify_engine(output);
    EXPECT(thrown_by([&] { trtllm::verify_engine(output + "/none"); }) == TRTLLM_STATUS_INVALID_FILES);
}

void text(const trtllm::Engine& engine) {
    const std::string sentence = "Jupiter is a gas giant";
    const std::vector<uint32_t> tokens = engine.encode(sentence, false);
    EXPECT(!tokens.empty() && engine.decode(tokens) == sentence);
    EXPECT(engine.token_to_id(engine.id_to_token(tokens[0])) == tokens[0]);
    EXPECT(!engine.end_ids().empty());
    EXPECT(thrown_by([&] { engine.token_to_id("no such token"); }) == TRTLLM_STATUS_INVALID_ARGUMENT);
    trtllm::Detokenizer detokenizer = engine.detokenizer({});
    std::string joined;
    for (std::size_t i = 0; i < tokens.size(); i++) {
        joined += detokenizer.push({&tokens[i], 1}, i + 1 == tokens.size());
    }
    EXPECT(joined == sentence);
    if (engine.describe().has_chat_template) {
        EXPECT(engine.apply_chat_template(sentence).find(sentence) != std::string::npos);
    } else {
        EXPECT(thrown_by([&] { engine.apply_chat_template(sentence); }) == TRTLLM_STATUS_UNSUPPORTED);
    }
}

trtllm::Request short_request() {
    trtllm::Request request;
    request.prompt = "Jupiter is";
    request.options.max_new_tokens = 8;
    return request;
}

void waiting(trtllm::Engine& engine) {
    EXPECT(engine.await(std::chrono::milliseconds(0)).empty());
    EXPECT(engine.await(std::chrono::milliseconds(-5)).empty());
    int place = 0;
    trtllm::Request request = short_request();
    request.options.user_data = &place;
    request.options.streaming = false;
    const uint64_t id = engine.enqueue(request);
    trtllm::Responses first = engine.await();
    trtllm::Responses moved;
    moved = std::move(first);
    EXPECT(first.empty() && first.begin() == first.end());
    EXPECT(moved.size() == 1 && moved[0].request_id == id && moved[0].is_final && moved[0].user_data == &place);
    for (const trtllm_response& response : moved) {
        EXPECT(engine.decode({response.token_ids.data, response.token_ids.len}).size() >= response.text.len);
        EXPECT(trtllm::view(response.token_ids).size() == 8);
    }
    std::size_t iterations = 0;
    for (const trtllm_iteration_stats& stats : engine.iteration_stats()) {
        iterations += stats.num_scheduled_requests;
    }
    EXPECT(iterations >= 8);
}

// The lists of a request reach the engine.
void lists(trtllm::Engine& engine) {
    const auto complete = [&](trtllm::Request request) {
        request.options.streaming = false;
        engine.enqueue(request);
        const trtllm::Responses responses = engine.await();
        return std::string(trtllm::view(responses[0].text));
    };
    const std::string plain = complete(short_request());
    trtllm::Request of_tokens = short_request();
    of_tokens.token_ids = engine.encode(*of_tokens.prompt);
    of_tokens.prompt.reset();
    EXPECT(complete(of_tokens) == plain);
    trtllm::Request stopped = short_request();
    stopped.stop = {"no such text", plain.substr(4, 2)};
    EXPECT(complete(stopped) == plain.substr(0, plain.find(stopped.stop[1])));
    const uint32_t start = engine.encode("Jupiter is" + plain).at(of_tokens.token_ids.size());
    trtllm::Request biased = short_request(), banned = short_request(), ended = short_request(), halted = short_request();
    biased.embedding_bias = {{start, -1000.0f}};
    banned.bad_token_words = {{start}};
    EXPECT(complete(biased) != plain && complete(banned) == complete(biased));
    ended.end_ids = {start};
    halted.stop_words = {{start}};
    EXPECT(complete(ended).size() < plain.size() && complete(halted).size() < plain.size());
    trtllm::Request wordless = short_request(), guided = short_request();
    wordless.bad_words = {engine.decode({&start, 1})};
    EXPECT(complete(wordless) != plain);
    guided.options.guide_kind = TRTLLM_GUIDE_REGEX;
    guided.guide = "[0-9]{3}";
    EXPECT(complete(guided).find_first_not_of("0123456789") == std::string::npos);
}

// What ended a sequence is a text, ids, or nothing.
void stop_reasons(trtllm::Engine& engine) {
    const auto ended_by = [&](trtllm::Request request, auto holds) {
        request.options.streaming = false;
        engine.enqueue(request);
        const trtllm::Responses responses = engine.await();
        return holds(responses[0], trtllm::stop_reason(responses[0]));
    };
    std::string text;
    std::vector<uint32_t> tokens;
    EXPECT(ended_by(short_request(), [&](const trtllm_response& response, const trtllm::StopReason& reason) {
        text = std::string(trtllm::view(response.text));
        const trtllm::Span<uint32_t> found = trtllm::view(response.token_ids);
        tokens.assign(found.begin(), found.end());
        return std::holds_alternative<std::monostate>(reason);
    }));
    trtllm::Request stopped = short_request(), ended = short_request(), halted = short_request();
    stopped.stop = {"no such text", text.substr(4, 2)};
    EXPECT(ended_by(stopped, [&](const trtllm_response&, const trtllm::StopReason& reason) {
        const auto* const found = std::get_if<std::string_view>(&reason);
        return found != nullptr && *found == stopped.stop[1];
    }));
    const auto are = [](const std::vector<uint32_t>& expected) {
        return [expected](const trtllm_response&, const trtllm::StopReason& reason) {
            const auto* const found = std::get_if<trtllm::Span<uint32_t>>(&reason);
            return found != nullptr && std::vector<uint32_t>(found->begin(), found->end()) == expected;
        };
    };
    ended.end_ids = {tokens.at(1)};
    halted.stop_words = {{tokens.at(1), tokens.at(2)}};
    EXPECT(ended_by(ended, are(ended.end_ids)) && ended_by(halted, are(halted.stop_words[0])));
}

// A request with callbacks; they are gone when this returns, after the final response or the refusal.
trtllm_status call_back(trtllm::Engine& engine, bool refused, bool hook_throws, bool response_throws = false) {
    const auto alive = std::make_shared<int>(0);
    auto done = std::make_shared<std::promise<trtllm_status>>();
    std::future<trtllm_status> status = done->get_future();
    trtllm::Request request = short_request();
    request.on_response = [alive, done, response_throws](const trtllm_response& response) {
        if (response.status == TRTLLM_STATUS_REQUEST_FAILED) {
            EXPECT(trtllm::view(response.error).find("stopped") != std::string_view::npos);
        }
        if (response.is_final) {
            done->set_value(response.status);
        } else if (response_throws) {
            throw Stopped();
        }
    };
    request.logits_post_processor = [alive, hook_throws](const trtllm_logits_context& context, trtllm::Logits logits) {
        EXPECT(context.token_ids.len >= context.num_prompt_tokens && logits.size > 0);
        if (hook_throws) {
            throw Stopped();
        }
    };
    if (refused) {
        request.options.top_p = 7.0f;
        EXPECT(thrown_by([&] { engine.enqueue(request); }) == TRTLLM_STATUS_INVALID_ARGUMENT);
        done->set_value(TRTLLM_STATUS_INVALID_ARGUMENT);
    } else {
        engine.enqueue(request);
    }
    request = trtllm::Request();
    const trtllm_status found = status.get();
    // The last call returns a moment after it has set the value.
    for (int i = 0; i < 1000 && alive.use_count() > 1; i++) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT(alive.use_count() == 1);
    return found;
}

// What the library logs, as long as it is wanted.
void log(const std::string& output) {
    const auto alive = std::make_shared<std::vector<std::string>>();
    trtllm::set_log_callback(TRTLLM_LOG_INFO, [alive](const trtllm_log_record& record) {
        EXPECT(record.level == TRTLLM_LOG_INFO && !trtllm::view(record.target).empty());
        alive->emplace_back(trtllm::view(record.message));
    });
    trtllm::Engine engine(output);
    trtllm::set_log_callback(0, nullptr);
    EXPECT(alive.use_count() == 1 && alive->size() == 1 && alive->front().find(output) != std::string::npos);
    EXPECT(thrown_by([] { trtllm::set_log_callback(77, [](const trtllm_log_record&) {}); }) ==
           TRTLLM_STATUS_INVALID_ARGUMENT);
    trtllm::Engine silent(output);
    EXPECT(alive->size() == 1);
}

// What goes to a queue comes from there.
void queues(trtllm::Engine& engine) {
    trtllm::Queue first = engine.new_queue(), second = engine.new_queue();
    trtllm::Request request = short_request();
    request.options.streaming = false;
    request.options.queue = first.handle();
    const uint64_t of_first = engine.enqueue(request);
    request.options.queue = second.handle();
    const uint64_t of_second = engine.enqueue(request);
    const trtllm::Responses from_first = first.await(), from_second = second.await();
    EXPECT(from_second[0].request_id == of_second && from_first[0].request_id == of_first);
    EXPECT(first.await(std::chrono::milliseconds(0)).empty() && engine.await(std::chrono::milliseconds(0)).empty());
    for (const int fd : {first.response_fd(), engine.response_fd()}) {
        EXPECT(fd >= 0 && close(fd) == 0);
    }
    request.on_response = [](const trtllm_response&) {};
    EXPECT(thrown_by([&] { engine.enqueue(request); }) == TRTLLM_STATUS_INVALID_ARGUMENT);
}

template <typename T>
using Element = decltype(std::declval<T>()[0]);
template <typename T>
using Text = decltype(trtllm::str(std::declval<T>()));
template <typename T>
using Ids = decltype(trtllm::ids(std::declval<T>()));
template <template <typename> class Use, typename T, typename = void>
constexpr bool compiles = false;
template <template <typename> class Use, typename T>
constexpr bool compiles<Use, T, std::void_t<Use<T>>> = true;

// What would point to something that is gone does not compile.
static_assert(compiles<Element, trtllm::Responses&> && !compiles<Element, trtllm::Responses>);
static_assert(compiles<Text, std::string&> && compiles<Text, const char*> && !compiles<Text, std::string>);
static_assert(compiles<Ids, std::vector<uint32_t>&> && !compiles<Ids, std::vector<uint32_t>>);

// A request that is given away takes its functions along.
void moving(trtllm::Engine& engine) {
    const auto alive = std::make_shared<int>(0);
    trtllm::Request request = short_request();
    request.on_response = [alive](const trtllm_response&) {};
    EXPECT(alive.use_count() == 2);
    engine.enqueue(std::move(request));
    engine.await(std::chrono::milliseconds(0));
    trtllm::Request refused = short_request();
    refused.on_response = [alive](const trtllm_response&) {};
    refused.options.top_p = 7.0f;
    EXPECT(thrown_by([&] { engine.enqueue(std::move(refused)); }) == TRTLLM_STATUS_INVALID_ARGUMENT);
    for (int i = 0; i < 5000 && alive.use_count() > 1; i++) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT(alive.use_count() == 1);
    trtllm::Request empty;
    empty.prompt = "";
    EXPECT(thrown_by([&] { engine.enqueue(empty); }) == TRTLLM_STATUS_INVALID_ARGUMENT);
    EXPECT(std::string(trtllm::view(trtllm_last_error())).find("empty") != std::string::npos);
}

int run(const std::string& model, const std::string& output) {
    static_assert(!std::is_copy_constructible_v<trtllm::Engine> && std::is_nothrow_move_constructible_v<trtllm::Engine>);
    static_assert(!std::is_copy_constructible_v<trtllm::Responses>);
    static_assert(!std::is_copy_constructible_v<trtllm::Detokenizer>);
    building(model, output);
    EXPECT(thrown_by([&] { trtllm::Engine(output + "/none"); }) == TRTLLM_STATUS_INVALID_FILES);
    EXPECT(trtllm::query_executor(TRTLLM_EXECUTOR_CPU).first);
    EXPECT(!trtllm::query_executor(TRTLLM_EXECUTOR_TENSORRT_LLM).second.empty());

    trtllm::Engine opened(output);
    trtllm::Engine engine = std::move(opened);
    EXPECT(opened.handle() == nullptr && thrown_by([&] { opened.describe(); }) == TRTLLM_STATUS_INVALID_HANDLE);
    text(engine);
    waiting(engine);
    lists(engine);
    stop_reasons(engine);
    EXPECT(call_back(engine, false, false) == TRTLLM_STATUS_OK);
    EXPECT(call_back(engine, false, true) == TRTLLM_STATUS_REQUEST_FAILED);
    EXPECT(call_back(engine, false, false, true) == TRTLLM_STATUS_REQUEST_FAILED);
    EXPECT(trtllm_fail(TRTLLM_STR("no callback runs")) == TRTLLM_STATUS_WRONG_THREAD);
    queues(engine);
    log(output);
    EXPECT(call_back(engine, true, false) == TRTLLM_STATUS_INVALID_ARGUMENT);
    moving(engine);
    trtllm::Request alone = short_request();
    alone.logits_post_processor = [](const trtllm_logits_context&, trtllm::Logits) {};
    EXPECT(thrown_by([&] { engine.enqueue(alone); }) == TRTLLM_STATUS_INVALID_ARGUMENT);
    engine.cancel(engine.enqueue(short_request()));
    engine.shutdown(TRTLLM_SHUTDOWN_DRAIN);
    while (thrown_by([&] { engine.await(); }) == TRTLLM_STATUS_OK) {
    }
    EXPECT(thrown_by([&] { engine.enqueue(short_request()); }) == TRTLLM_STATUS_SHUT_DOWN);
    engine.close();
    EXPECT(thrown_by([&] { engine.close(); }) == TRTLLM_STATUS_INVALID_HANDLE);
    return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: %s MODEL FOLDER\n", argv[0]);
        return 2;
    }
    try {
        return run(argv[1], argv[2]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
}
