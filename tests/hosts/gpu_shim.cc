// Drives the shim over TensorRT-LLM and TensorRT through its table, from many threads, over the stand-ins: for sanitizers.
//
//     gpu_shim FOLDER REQUESTS
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "trtllm_gpu.h"

extern "C" trtllm_gpu_table const* trtllm_gpu_shim_table();

namespace {

constexpr int kThreads = 4;

std::atomic<long> lines{0};

void check(bool holds, char const* what) {
    if (!holds) {
        std::fprintf(stderr, "gpu_shim: %s\n", what);
        std::exit(1);
    }
}

std::string engine(std::string const& folder, std::string const& settings) {
    std::string const dir = folder + "/engine";
    std::filesystem::create_directories(dir);
    for (char const* name : {"config.json", "rank0.engine"}) {
        std::ofstream(dir + "/" + name) << "{}";
    }
    std::ofstream(dir + "/stand-in.conf") << settings;
    return dir;
}

trtllm_gpu_executor* open(trtllm_gpu_table const& table, std::string const& dir) {
    trtllm_gpu_setting events{};
    events.name = "kv_cache.event_buffer_max_size";
    events.kind = TRTLLM_GPU_INTEGER;
    events.integer = 64;
    trtllm_gpu_setting stats = events;
    stats.name = "request_stats_max_iterations";
    char const* const vocabulary[] = {"a", "b"};
    std::int32_t const ends[] = {1};
    trtllm_gpu_tokenizer const tokenizer{"{}", vocabulary, 2, {ends, 1}};
    trtllm_gpu_setting const settings[] = {events, stats};
    trtllm_gpu_executor* executor = nullptr;
    trtllm_gpu_error error{};
    std::int32_t const status = table.open(dir.c_str(), settings, 2, &tokenizer, &executor, &error);
    return status == TRTLLM_GPU_OK ? executor : nullptr;
}

// A request with a bit of everything.
std::int32_t enqueue(trtllm_gpu_table const& table, trtllm_gpu_executor* executor, long number, std::uint64_t& id) {
    std::int32_t const prompt[] = {1, 2, static_cast<std::int32_t>(number % 50)};
    std::int32_t const word[] = {3, 4};
    trtllm_gpu_ids const words[] = {{word, 2}};
    std::vector<float> const bias(1000, 0.0f);
    std::vector<std::uint16_t> const weights(8);
    std::int32_t const config[] = {1, 0, 2, 0};
    trtllm_gpu_lora const lora{static_cast<std::uint64_t>(number % 3), weights.data(), 8, config, 4, 1};
    trtllm_gpu_retention_range const range{0, -1, 50, 10};
    trtllm_gpu_retention const retention{&range, 1, 20, 0};
    trtllm_gpu_request request{};
    request.input_token_ids = {prompt, 3};
    request.max_tokens = 1 + static_cast<std::int32_t>(number % 7);
    request.streaming = number % 2 == 0;
    request.end_id = -1;
    request.stop_words = words;
    request.num_stop_words = 1;
    request.bad_words = words;
    request.num_bad_words = 1;
    request.embedding_bias = number % 5 == 0 ? bias.data() : nullptr;
    request.embedding_bias_len = bias.size();
    request.priority = 0.5f;
    request.guide_type = number % 11 == 0 ? 2 : -1;
    request.guide = "a+";
    request.lora = number % 4 == 0 ? &lora : nullptr;
    request.retention = number % 6 == 0 ? &retention : nullptr;
    request.beam_width = number % 13 == 0 ? 2 : 1;
    request.num_return_sequences = 1 + static_cast<std::int32_t>(number % 2);
    request.top_p = 1.0f;
    request.temperature = 1.0f;
    request.repetition_penalty = 1.0f;
    request.return_log_probs = number % 3 == 0;
    request.return_context_logits = number % 9 == 0;
    request.return_perf_metrics = true;
    trtllm_gpu_error error{};
    return table.enqueue(executor, &request, &id, &error);
}

void soak(trtllm_gpu_table const& table, std::string const& dir, long requests) {
    trtllm_gpu_executor* const executor = open(table, dir);
    check(executor != nullptr && table.can_enqueue(executor), "the engine does not open");
    std::atomic<long> accepted{0};
    std::atomic<bool> done{false};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; thread++) {
        threads.emplace_back([&, thread] {
            for (long number = thread; number < requests; number += kThreads) {
                std::uint64_t id = 0;
                if (enqueue(table, executor, number, id) == TRTLLM_GPU_OK) {
                    accepted++;
                    trtllm_gpu_error error{};
                    if (number % 7 == 0) {
                        table.cancel(executor, id, &error);
                    }
                }
            }
        });
    }
    threads.emplace_back([&] {
        while (!done) {
            trtllm_gpu_iteration_stats stats[8];
            std::size_t count = 0;
            trtllm_gpu_text* text = nullptr;
            trtllm_gpu_error error{};
            table.iteration_stats(executor, stats, 8, &count, &error);
            for (auto const take : {&trtllm_gpu_table::request_stats}) {
                if ((table.*take)(executor, &text, &error) == TRTLLM_GPU_OK) {
                    table.free_text(text);
                }
            }
            if (table.kv_cache_events(executor, 1, &text, &error) == TRTLLM_GPU_OK) {
                check(std::strlen(table.text_data(text)) < 1000000, "an endless text");
                table.free_text(text);
            }
        }
    });
    long finals = 0;
    long tokens = 0;
    bool joined = false;
    while (!joined || finals < accepted) {
        if (!joined && finals >= accepted) {
            for (int thread = 0; thread < kThreads; thread++) {
                if (threads[static_cast<std::size_t>(thread)].joinable()) {
                    threads[static_cast<std::size_t>(thread)].join();
                }
            }
            joined = true;
            continue;
        }
        trtllm_gpu_responses* responses = nullptr;
        trtllm_gpu_error error{};
        check(table.await(executor, 100, &responses, &error) == TRTLLM_GPU_OK, "await failed");
        if (responses == nullptr) {
            continue;
        }
        std::size_t count = 0;
        trtllm_gpu_response const* const data = table.responses_data(responses, &count);
        for (std::size_t i = 0; i < count; i++) {
            finals += data[i].error != nullptr || data[i].is_final ? 1 : 0;
            for (std::size_t output = 0; output < data[i].num_outputs; output++) {
                for (std::size_t token = 0; token < data[i].outputs[output].token_ids.len; token++) {
                    tokens += data[i].outputs[output].token_ids.data[token] >= 0 ? 1 : 0;
                }
            }
        }
        table.free_responses(responses);
    }
    done = true;
    threads.back().join();
    check(tokens > accepted, "too few tokens");
    trtllm_gpu_error error{};
    check(table.close(executor, &error) == TRTLLM_GPU_OK, "close failed");
}

// Builds `y = gather(x, i)` with a collective behind it; once told to stop, once to the end.
void build(trtllm_gpu_table const& table, bool goes_on) {
    trtllm_gpu_error error{};
    trtllm_gpu_network* network = nullptr;
    auto const log = [](void*, std::int32_t, char const*) { lines++; };
    check(table.network_create("net", 0, log, nullptr, &network, &error) == TRTLLM_GPU_OK, error.message);
    float const weights[8] = {};
    std::int64_t const table_shape[] = {2, 4};
    trtllm_gpu_network_node constant{};
    constant.op = TRTLLM_GPU_CONSTANT;
    constant.name = "table";
    constant.shape = table_shape;
    constant.rank = 2;
    constant.data = weights;
    constant.count = 8;
    constant.weight = "weight";
    check(table.network_add_node(network, &constant, &error) == TRTLLM_GPU_OK, error.message);
    std::int64_t const any[] = {-1};
    std::int64_t const profile[] = {1, 2, 4};
    char const* const names[] = {"n"};
    trtllm_gpu_network_input const input{"i", 3, 1, any, names, profile, 1};
    check(table.network_add_input(network, &input, &error) == TRTLLM_GPU_OK, error.message);
    check(table.network_add_input(network, &input, &error) == TRTLLM_GPU_EXCEPTION, "an input is there twice");
    std::uint32_t const both[] = {0, 1};
    std::int64_t const made[] = {-1, 4};
    trtllm_gpu_network_node gather{};
    gather.op = TRTLLM_GPU_GATHER;
    gather.name = "gather";
    gather.inputs = both;
    gather.num_inputs = 2;
    gather.shape = made;
    gather.rank = 2;
    check(table.network_add_node(network, &gather, &error) == TRTLLM_GPU_OK, error.message);
    std::int32_t const zero = 0;
    trtllm_gpu_plugin_field const fields[] = {{"group", 5, &zero, 1}, {"type_id", 5, &zero, 1}};
    std::uint32_t const gathered = 2;
    trtllm_gpu_network_node plugin = gather;
    plugin.op = TRTLLM_GPU_PLUGIN;
    plugin.name = "all_gather";
    plugin.inputs = &gathered;
    plugin.num_inputs = 1;
    plugin.plugin = "AllGather";
    plugin.plugin_version = "1";
    plugin.plugin_namespace = "tensorrt_llm";
    plugin.fields = fields;
    plugin.num_fields = 1;
    check(table.network_add_node(network, &plugin, &error) == TRTLLM_GPU_EXCEPTION, "a field is missing");
    plugin.num_fields = 2;
    check(table.network_add_node(network, &plugin, &error) == TRTLLM_GPU_OK, error.message);
    check(table.network_mark_output(network, 3, "y", &error) == TRTLLM_GPU_OK, error.message);
    std::string plan;
    trtllm_gpu_build asked{};
    asked.write_plan = [](void* to, void const* data, std::size_t size) {
        static_cast<std::string*>(to)->append(static_cast<char const*>(data), size);
        return true;
    };
    asked.write_timing_cache = [](void*, void const*, std::size_t size) { return size > 0; };
    asked.progress = [](void*, char const*, char const*, std::int32_t step, std::int32_t) { return step == 0; };
    asked.user_data = &plan;
    if (!goes_on) {
        check(table.network_build(network, &asked, &error) == TRTLLM_GPU_CANCELLED && plan.empty(), "it goes on");
    }
    asked.progress = nullptr;
    check(table.network_build(network, &asked, &error) == TRTLLM_GPU_OK && plan.size() > 32, error.message);
    table.free_network(network);
}

void build_at_once(trtllm_gpu_table const& table) {
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; thread++) {
        threads.emplace_back([&table, thread] { build(table, thread % 2 == 0); });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    check(std::getenv("IS_BUILDING") == nullptr, "IS_BUILDING is left behind");
}

// Lines with TensorRT-LLM's mark are offered, whole, each once; the rest of what a host writes goes on as it comes.
void capturing(trtllm_gpu_table const& table) {
    // What is behind the streams from now on.
    static std::ostringstream screen;
    std::cout.rdbuf(screen.rdbuf());
    static std::vector<std::string> offered;
    static bool takes = true;
    table.capture_log(
        [](void*, std::int32_t, char const* line) {
            // A host that shows what it gets.
            std::cout << "host: " << line << std::endl;
            offered.emplace_back(line);
            return takes;
        },
        false, nullptr);
    std::cout << "ready> " << std::flush;
    check(screen.str() == "ready> ", "what a host shows waits for nothing");
    std::cout << "[TensorRT-LLM][INFO] one" << std::endl << "two\n[TensorRT" << "-LLM][WARNING] three\nfo" << "ur" << '\n';
    check(offered == std::vector<std::string>{"[TensorRT-LLM][INFO] one", "[TensorRT-LLM][WARNING] three"}, "marked lines");
    takes = false;
    std::cout << "[TensorRT-LLM][INFO] five\n";
    check(screen.str() == "ready> host: [TensorRT-LLM][INFO] one\ntwo\nhost: [TensorRT-LLM][WARNING] three\nfour\n"
                          "host: [TensorRT-LLM][INFO] five\n[TensorRT-LLM][INFO] five\n",
          screen.str().c_str());
    // Everything, and from several threads.
    table.capture_log([](void*, std::int32_t, char const*) { return ++lines > 0; }, true, nullptr);
    auto const shown = screen.str();
    std::cout << "six\n";
    check(lines == 1 && screen.str() == shown, "everything is taken");
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        return 2;
    }
    trtllm_gpu_table const& table = *trtllm_gpu_shim_table();
    check(table.abi == TRTLLM_GPU_ABI && std::strstr(table.version(), "stand-in") != nullptr, "not the stand-in");
    capturing(table);
    std::string const folder = argv[1];
    soak(table, engine(folder, "tokens_per_response 2\nempty_final 1\n"), std::atol(argv[2]));
    // Everything that can be thrown is.
    for (char const* call : {"construct", "enqueue", "cancel", "stats", "shutdown"}) {
        for (char const* what : {"runtime", "range", "int"}) {
            std::string const settings = std::string("throw_in ") + call + "\nthrow_what " + what + "\n";
            trtllm_gpu_executor* const executor = open(table, engine(folder, settings));
            check((executor == nullptr) == (std::strcmp(call, "construct") == 0), "opened, or not, against its will");
            if (executor == nullptr) {
                continue;
            }
            std::uint64_t id = 0;
            trtllm_gpu_error error{};
            check(table.begin_build(&error) == TRTLLM_GPU_BUSY, "a build begins while an executor is open");
            bool const refused = enqueue(table, executor, 1, id) != TRTLLM_GPU_OK;
            check(refused == (std::strcmp(call, "enqueue") == 0), "enqueued, or not, against its will");
            table.cancel(executor, id, &error);
            trtllm_gpu_iteration_stats stats{};
            std::size_t count = 0;
            table.iteration_stats(executor, &stats, 1, &count, &error);
            check((table.close(executor, &error) != TRTLLM_GPU_OK) == (std::strcmp(call, "shutdown") == 0),
                  "closed, or not, against its will");
        }
    }
    build_at_once(table);
    check(lines > 0, "nothing was logged");
    return 0;
}
