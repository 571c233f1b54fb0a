// A hook that edits logits: the letter e is forbidden. Generates with and without it.
//
//     logits_hook ENGINE PROMPT
#include <future>
#include <iostream>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <trtllm.hpp>

namespace {

// The text of a completion; with `forbidden`, those tokens are never chosen.
std::string complete(trtllm::Engine& engine, const std::string& prompt, const std::vector<uint32_t>* forbidden) {
    std::string text, problem;
    // The callback's too: it may still be on its way out of `set_value` when this function returns.
    const auto done = std::make_shared<std::promise<void>>();
    trtllm::Request request;
    request.prompt = prompt;
    request.options.max_new_tokens = 24;
    request.on_response = [&text, &problem, done](const trtllm_response& response) {
        text += trtllm::view(response.text);
        problem = trtllm::view(response.error);
        if (response.is_final) {
            done->set_value();
        }
    };
    if (forbidden != nullptr) {
        request.logits_post_processor = [forbidden](const trtllm_logits_context&, trtllm::Logits logits) {
            for (const uint32_t token : *forbidden) {
                logits[token] = -std::numeric_limits<float>::infinity();
            }
        };
    }
    engine.enqueue(request);
    done->get_future().wait();
    if (!problem.empty()) {
        throw std::runtime_error(problem);
    }
    return text;
}

int run(const char* path, const std::string& prompt) {
    trtllm::Engine engine(path);
    std::vector<uint32_t> forbidden;
    for (uint32_t token = 0; token < engine.describe().vocab_size; token++) {
        if (engine.decode({&token, 1}, false).find('e') != std::string::npos) {
            forbidden.push_back(token);
        }
    }
    const std::string plain = complete(engine, prompt, nullptr), hooked = complete(engine, prompt, &forbidden);
    std::cout << "without the hook:" << plain << "\nwith the hook:   " << hooked << '\n';
    return hooked.find('e') == std::string::npos && !hooked.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: " << argv[0] << " ENGINE PROMPT\n";
        return 2;
    }
    try {
        return run(argv[1], argv[2]);
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 1;
    }
}
