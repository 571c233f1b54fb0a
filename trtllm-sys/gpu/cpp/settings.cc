#include "settings.h"

#include <limits>

namespace shim {

Settings::Settings(trtllm_gpu_setting const* settings, std::size_t count) {
    for (std::size_t i = 0; i < count; i++) {
        mSettings.emplace(settings[i].name, settings[i]);
    }
}

std::optional<trtllm_gpu_setting> Settings::take(std::string const& name, std::int32_t kind) {
    auto const place = mSettings.find(name);
    if (place == mSettings.end()) {
        return std::nullopt;
    }
    trtllm_gpu_setting const setting = place->second;
    if (setting.kind != kind) {
        throw std::invalid_argument("the setting " + name + " has the wrong type");
    }
    mSettings.erase(place);
    return setting;
}

std::optional<bool> Settings::boolean(std::string const& name) {
    auto const setting = take(name, TRTLLM_GPU_BOOL);
    return setting ? std::optional<bool>(setting->integer != 0) : std::nullopt;
}

std::optional<std::int64_t> Settings::integer(std::string const& name) {
    auto const setting = take(name, TRTLLM_GPU_INTEGER);
    return setting ? std::optional<std::int64_t>(setting->integer) : std::nullopt;
}

std::optional<std::int32_t> Settings::integer32(std::string const& name) {
    auto const value = integer(name);
    if (!value) {
        return std::nullopt;
    }
    if (*value > std::numeric_limits<std::int32_t>::max() || *value < std::numeric_limits<std::int32_t>::min()) {
        throw std::out_of_range("the setting " + name + " is too large: " + std::to_string(*value));
    }
    return static_cast<std::int32_t>(*value);
}

std::optional<double> Settings::number(std::string const& name) {
    auto const setting = take(name, TRTLLM_GPU_NUMBER);
    return setting ? std::optional<double>(setting->number) : std::nullopt;
}

std::optional<std::string> Settings::text(std::string const& name) {
    auto const setting = take(name, TRTLLM_GPU_TEXT);
    return setting ? std::optional<std::string>(setting->text) : std::nullopt;
}

std::optional<std::vector<std::int32_t>> Settings::integers(std::string const& name) {
    auto const setting = take(name, TRTLLM_GPU_INTEGERS);
    if (!setting) {
        return std::nullopt;
    }
    return std::vector<std::int32_t>(setting->integers.data, setting->integers.data + setting->integers.len);
}

std::optional<std::vector<std::vector<std::int32_t>>> Settings::lists(std::string const& name) {
    auto const flat = integers(name);
    if (!flat) {
        return std::nullopt;
    }
    std::vector<std::vector<std::int32_t>> lists;
    std::vector<std::int32_t> list;
    for (std::int32_t const element : *flat) {
        if (element >= 0) {
            list.push_back(element);
            continue;
        }
        lists.push_back(std::move(list));
        list.clear();
    }
    return lists;
}

bool Settings::has(std::string const& group) const {
    auto const place = mSettings.lower_bound(group + ".");
    return place != mSettings.end() && place->first.compare(0, group.size() + 1, group + ".") == 0;
}

void Settings::check_all_taken() const {
    if (!mSettings.empty()) {
        throw Unsupported(mSettings.begin()->first);
    }
}

}  // namespace shim
