// What a test host in C++ expects, and how often it did not find it.
#ifndef TRTLLM_TEST_EXPECT_HPP
#define TRTLLM_TEST_EXPECT_HPP

#include <cstdio>

inline int failures = 0;

inline void expect(bool holds, const char* what) {
    if (!holds) {
        std::fprintf(stderr, "does not hold: %s\n", what);
        failures++;
    }
}

#define EXPECT(condition) expect((condition), #condition)

#endif
