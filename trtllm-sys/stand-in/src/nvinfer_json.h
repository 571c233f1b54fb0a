// JSON, as far as plans have it.
#pragma once

#include <string>
#include <vector>

namespace stand_in {

inline std::string quote(std::string const& text) {
    std::string json = "\"";
    for (char const letter : text) {
        if (letter == '"' || letter == '\\') {
            json += '\\';
        }
        json += letter;
    }
    return json + "\"";
}

// `[a,b]` of what `write` makes of each.
template <typename Items, typename Write>
std::string list(Items const& items, Write write) {
    std::string json = "[";
    for (auto const& item : items) {
        json += (json.size() > 1 ? "," : "") + write(item);
    }
    return json + "]";
}

template <typename Integers>
std::string integers(Integers const& values) {
    return list(values, [](auto value) { return std::to_string(value); });
}

}  // namespace stand_in
