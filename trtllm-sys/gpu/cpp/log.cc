#include "log.h"

#include <iostream>
#include <mutex>
#include <streambuf>
#include <string>
#include <utility>

namespace shim {

namespace {

// The severity that a line says it has: `[TensorRT-LLM][WARNING] text`.
std::int32_t severity_of(std::string const& line, std::int32_t otherwise) {
    static struct {
        char const* mark;
        std::int32_t severity;
    } const marks[] = {{"[ERROR]", 0}, {"[WARNING]", 1}, {"[INFO]", 2}, {"[DEBUG]", 3}, {"[TRACE]", 3}, {"[VERBOSE]", 3}};
    auto const head = line.substr(0, 64);
    for (auto const& known : marks) {
        if (head.find(known.mark) != std::string::npos) {
            return known.severity;
        }
    }
    return otherwise;
}

// What take_error() gives.
std::string& last_error() {
    thread_local std::string one;
    return one;
}

// A stream's buffer that hands out lines. Threads write into it without asking each other, as they may do with std::cout.
class Lines : public std::streambuf {
public:
    explicit Lines(std::int32_t severity) : mSeverity(severity) {}

    void send_to(trtllm_gpu_log log, void* userData) {
        std::lock_guard<std::mutex> const lock(mMutex);
        mLog = log;
        mUserData = userData;
    }

protected:
    int_type overflow(int_type character) override {
        if (!traits_type::eq_int_type(character, traits_type::eof())) {
            char const one = traits_type::to_char_type(character);
            xsputn(&one, 1);
        }
        return traits_type::not_eof(character);
    }

    std::streamsize xsputn(char const* text, std::streamsize size) override {
        std::lock_guard<std::mutex> const lock(mMutex);
        for (std::streamsize i = 0; i < size; i++) {
            if (text[i] != '\n') {
                mLine += text[i];
                continue;
            }
            auto const severity = severity_of(mLine, mSeverity);
            if (severity == 0) {
                last_error() = mLine;
            }
            mLog(mUserData, severity, mLine.c_str());
            mLine.clear();
        }
        return size;
    }

private:
    std::int32_t const mSeverity;
    std::mutex mMutex;
    std::string mLine;
    trtllm_gpu_log mLog = nullptr;
    void* mUserData = nullptr;
};

}  // namespace

void capture_log(trtllm_gpu_log log, void* userData) {
    // Never freed: others write through them until the process has ended.
    static Lines* const out = new Lines(2);
    static Lines* const err = new Lines(0);
    out->send_to(log, userData);
    err->send_to(log, userData);
    std::cout.rdbuf(out);
    std::cerr.rdbuf(err);
}

std::string take_error() { return std::exchange(last_error(), {}); }

}  // namespace shim
