// What the stand-in is told: `stand-in.conf` of the engine directory, lines of `name value`. Without that file the engine has to
// be one that the stand-in of TensorRT built, and the vocabulary is config.json's.
//
//     vocab_size N              [1000]
//     max_batch_size N          [64]
//     latency_us N              time of an iteration [0]
//     tokens_per_response N     tokens that a streamed response has at least [1]
//     empty_final 1             a sequence's end comes in a response of its own, without tokens
//     unknown_finish_reason 1   ends are said with a reason that does not exist
//     hasty 1                   the first response is there before enqueueRequest returns
//     logits_columns N          as the vocabulary of a tensor-parallel engine is filled up [vocab_size]
//     logits_dtype WHAT         float32, float16, bfloat16 or int8, which no logits are [float32]
//     logits_memory WHAT        pinned, of which a copy is an error, or gpu, of which only a copy is readable [pinned]
//     stall_after N             stops after N iterations ...
//     stall_until PATH          ... until this file is there [for ever]
//     ignore_cancel 1           a cancelled request runs on
//     xgrammar_refuses TEXT     a guide with this in it cannot be compiled
//     xgrammar_tokenizer WHAT   known or unknown: then no engine opens with guided decoding [known]
//     throw_in CALL             construct, enqueue, await, cancel, stats or shutdown throws ...
//     throw_what WHAT           ... runtime, range or int [runtime]
//     throw_after N             ... after N calls [0]
//     workers N                 processes that an orchestrator spawns [1]
//     worker WHAT               ready; crash or hang before it is; abort once all are [ready]
#pragma once

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>

namespace tensorrt_llm::executor {

class Settings {
public:
    explicit Settings(std::filesystem::path const& dir) {
        std::ifstream file(dir / "stand-in.conf");
        if (!file) {
            std::string magic;
            std::ifstream plan(dir / "rank0.engine");
            std::getline(plan, magic);
            if (magic != "TRTLLM-STAND-IN-PLAN") {
                throw std::runtime_error("cannot read " + (dir / "stand-in.conf").string());
            }
            take_vocabulary(dir / "config.json");
        }
        std::string name;
        std::string value;
        while (file >> name >> value) {
            mValues[name] = value;
        }
    }

    [[nodiscard]] long number(std::string const& name, long fallback) const {
        auto const found = mValues.find(name);
        return found == mValues.end() ? fallback : std::stol(found->second);
    }

    [[nodiscard]] std::string text(std::string const& name, std::string const& fallback) const {
        auto const found = mValues.find(name);
        return found == mValues.end() ? fallback : found->second;
    }

    void maybe_throw(std::string const& call) const {
        auto const found = mValues.find("throw_in");
        if (found == mValues.end() || found->second != call || mCalls++ < number("throw_after", 0)) {
            return;
        }
        auto const what = mValues.find("throw_what");
        std::string const kind = what == mValues.end() ? "runtime" : what->second;
        if (kind == "int") {
            throw 7;
        }
        if (kind == "range") {
            throw std::out_of_range("the stand-in was told to throw in " + call);
        }
        throw std::runtime_error("the stand-in was told to throw in " + call);
    }

private:
    void take_vocabulary(std::filesystem::path const& config) {
        std::ifstream file(config);
        std::string const text{std::istreambuf_iterator<char>(file), {}};
        std::string const key = "\"vocab_size\":";
        auto const found = text.find(key);
        if (found != std::string::npos) {
            mValues["vocab_size"] = std::to_string(std::atol(text.c_str() + found + key.size()));
        }
    }

    std::map<std::string, std::string> mValues;
    mutable std::atomic<long> mCalls{0};
};

}  // namespace tensorrt_llm::executor
