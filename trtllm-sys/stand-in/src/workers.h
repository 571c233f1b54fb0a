// The processes that an orchestrator spawns, by MPI.
#pragma once

#include <filesystem>
#include <string>

#include "settings.h"

namespace tensorrt_llm::executor {

class Workers {
public:
    // Starts them and waits until each has said that it is ready: for ever, where one does not, as TensorRT-LLM does.
    Workers(std::string const& executable, Settings const& settings, std::filesystem::path const& engine);
    ~Workers();
    Workers(Workers const&) = delete;
    Workers& operator=(Workers const&) = delete;

private:
    // Workers end when it is closed.
    int mSession = -1;
};

}  // namespace tensorrt_llm::executor
