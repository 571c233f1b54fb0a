// The table's settings, taken by name. What nobody took is unknown here.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "trtllm_gpu.h"

namespace shim {

// The library does not have what was asked for.
class Unsupported : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Settings {
public:
    Settings(trtllm_gpu_setting const* settings, std::size_t count);

    std::optional<bool> boolean(std::string const& name);
    std::optional<std::int64_t> integer(std::string const& name);
    // Throws std::out_of_range, with the name, where the value has no place in 32 bits.
    std::optional<std::int32_t> integer32(std::string const& name);
    std::optional<double> number(std::string const& name);
    std::optional<std::string> text(std::string const& name);
    std::optional<std::vector<std::int32_t>> integers(std::string const& name);
    std::optional<std::vector<std::vector<std::int32_t>>> lists(std::string const& name);

    // Whether any setting of `group` is left, that is, whose name begins with `group.`.
    bool has(std::string const& group) const;

    // Throws Unsupported with the name of a setting that was not taken.
    void check_all_taken() const;

private:
    std::optional<trtllm_gpu_setting> take(std::string const& name, std::int32_t kind);

    std::map<std::string, trtllm_gpu_setting> mSettings;
};

}  // namespace shim
