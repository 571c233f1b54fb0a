#include "log.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <iostream>
#include <streambuf>
#include <string>
#include <string_view>
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

// What TensorRT-LLM's logger begins its lines with.
constexpr std::string_view kMark = "[TensorRT-LLM]";

// What a thread has written to a stream and what is not decided yet. Threads are kept apart: they write without asking each other.
struct Line {
    std::string begun;
    // The line is nobody's business here: what comes of it goes where it would have gone.
    bool passes = false;
};

// Where lines go.
struct Taker {
    trtllm_gpu_take_line take;
    bool everything;
    void* userData;
};

std::atomic<Taker const*> taker{nullptr};

// A stream's buffer that offers lines.
class Lines : public std::streambuf {
public:
    Lines(std::size_t stream, std::int32_t severity, std::streambuf* behind)
        : mStream(stream), mSeverity(severity), mBehind(behind) {}

protected:
    int_type overflow(int_type character) override {
        if (!traits_type::eq_int_type(character, traits_type::eof())) {
            char const one = traits_type::to_char_type(character);
            xsputn(&one, 1);
        }
        return traits_type::not_eof(character);
    }

    std::streamsize xsputn(char const* text, std::streamsize size) override {
        std::string_view rest(text, static_cast<std::size_t>(size));
        auto& line = own();
        if (is_offering()) {
            // Written by whoever takes a line.
            return mBehind->sputn(text, size);
        }
        bool const everything = taker.load()->everything;
        if (rest.substr(0, kMark.size()) == kMark) {
            line.passes = false;
        }
        while (!rest.empty()) {
            auto const end = rest.find('\n');
            auto const piece = rest.substr(0, end == std::string_view::npos ? end : end + 1);
            rest.remove_prefix(piece.size());
            if (line.passes) {
                mBehind->sputn(piece.data(), static_cast<std::streamsize>(piece.size()));
            } else {
                line.begun += piece;
                decide(line, everything);
            }
            if (end != std::string_view::npos) {
                line.passes = false;
            }
        }
        return size;
    }

    int sync() override { return mBehind->pubsync(); }

private:
    // What this thread has begun.
    Line& own() const {
        thread_local std::array<Line, 2> lines;
        return lines[mStream];
    }

    static bool& is_offering() {
        thread_local bool one = false;
        return one;
    }

    // Offers a line that is whole, and lets go of one that is not TensorRT-LLM's.
    void decide(Line& line, bool everything) {
        auto const known = std::min(line.begun.size(), kMark.size());
        if (!everything && line.begun.compare(0, known, kMark.substr(0, known)) != 0) {
            line.passes = true;
            pass(line);
        } else if (line.begun.back() == '\n') {
            line.begun.pop_back();
            offer(line);
        }
    }

    void offer(Line& line) {
        auto const severity = severity_of(line.begun, mSeverity);
        if (severity == 0) {
            last_error() = line.begun;
        }
        auto const* const to = taker.load();
        is_offering() = true;
        bool const taken = to->take(to->userData, severity, line.begun.c_str());
        is_offering() = false;
        if (!taken) {
            line.begun += '\n';
            pass(line);
        }
        line.begun.clear();
    }

    void pass(Line& line) {
        mBehind->sputn(line.begun.data(), static_cast<std::streamsize>(line.begun.size()));
        line.begun.clear();
    }

    std::size_t const mStream;
    std::int32_t const mSeverity;
    std::streambuf* const mBehind;
};

}  // namespace

void capture_log(trtllm_gpu_take_line take, bool everything, void* userData) {
    // Never freed: others write through them until the process has ended.
    static auto* const takers = new std::deque<Taker>;
    takers->push_back({take, everything, userData});
    taker.store(&takers->back());
    static bool const captured = [] {
        std::cout.rdbuf(new Lines(0, 2, std::cout.rdbuf()));
        std::cerr.rdbuf(new Lines(1, 0, std::cerr.rdbuf()));
        return true;
    }();
    static_cast<void>(captured);
}

std::string take_error() { return std::exchange(last_error(), {}); }

}  // namespace shim
