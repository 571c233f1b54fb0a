// What the process does with TensorRT-LLM: it runs engines, or it builds them.
//
// TensorRT-LLM's plugins ask the environment variable IS_BUILDING, in every call, whether they are only being timed, and compute
// nothing then: attention returns at once, with status OK. The variable is the whole process's. An engine that runs meanwhile would
// answer nonsense, and one that is opened would not join its collectives. So there is one count for each use, and one of them is
// always zero.
#pragma once

#include <stdexcept>

namespace shim {

// The process does the other thing.
class Busy : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class Purpose { kRun, kBuild };

// Counts as one use from begin_use to end_use. Throws Busy while there are uses of the other kind, and for kRun also where
// IS_BUILDING is set by somebody else.
void begin_use(Purpose purpose);
void end_use(Purpose purpose) noexcept;

// The same for as long as it lives.
class Use {
public:
    explicit Use(Purpose purpose) : mPurpose(purpose) { begin_use(purpose); }
    ~Use() { end_use(mPurpose); }
    Use(Use const&) = delete;
    Use& operator=(Use const&) = delete;

private:
    Purpose mPurpose;
};

}  // namespace shim
