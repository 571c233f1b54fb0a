// trtllm for C++17: ownership, views and exceptions over trtllm.h, and nothing else. What each function does, and every
// field of the structs, is documented there.
//
//     trtllm::Engine engine("engine");
//     trtllm::Request request;
//     request.prompt = "Jupiter is";
//     engine.enqueue(request);
//     for (bool done = false; !done;) {
//         for (const trtllm_response& response : engine.await()) {
//             std::cout << trtllm::view(response.text);
//             done = response.is_final;
//         }
//     }
//
// Failures throw trtllm::Error. Objects may be moved and not copied; one object may be used by several threads as its handle
// may, but not while it is moved or destroyed. What was moved from is empty.
//
// Programs under ThreadSanitizer see what passes between threads through the library, which is not instrumented itself: run
// them with TSAN_OPTIONS=ignore_noninstrumented_modules=1.
#ifndef TRTLLM_HPP
#define TRTLLM_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <trtllm.h>

#if defined(__SANITIZE_THREAD__)
#define TRTLLM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TRTLLM_TSAN 1
#endif
#endif
#ifdef TRTLLM_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#if TRTLLM_VERSION_NUMBER != 100
#error "trtllm.hpp is of version 0.1.0, trtllm.h of another"
#endif

namespace trtllm {

/// Two libraries of one process may have been compiled with different versions of this header.
inline namespace v0_1_0 {

/// A call that did not return TRTLLM_STATUS_OK.
class Error : public std::runtime_error {
public:
    Error(trtllm_status status, const std::string& message) : std::runtime_error(message), status_(status) {}

    trtllm_status status() const noexcept { return status_; }

private:
    trtllm_status status_;
};

/// Throws what the last call of this thread said, unless it was successful.
inline void check(trtllm_status status) {
    if (status != TRTLLM_STATUS_OK) {
        const trtllm_str message = trtllm_last_error();
        throw Error(status, std::string(message.data, message.len));
    }
}

/// A text of the library as C++ sees it.
inline std::string_view view(trtllm_str text) noexcept {
    return text.len == 0 ? std::string_view() : std::string_view(text.data, text.len);
}

/// A text of C++ as the library sees it, as long as the text is there.
inline trtllm_str str(std::string_view text) noexcept { return {text.data(), text.size()}; }

/// Not of a string that is gone with the statement: name it first.
template <typename T, typename = std::enable_if_t<std::is_same_v<std::remove_const_t<T>, std::string>>>
trtllm_str str(T&& temporary) = delete;

/// Elements that belong to somebody else.
template <typename T>
class Span {
public:
    Span() = default;
    Span(const T* data, std::size_t size) noexcept : data_(data), size_(size) {}
    Span(const std::vector<T>& elements) noexcept : data_(elements.data()), size_(elements.size()) {}

    const T* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    const T* begin() const noexcept { return data_; }
    const T* end() const noexcept { return data_ + size_; }
    const T& operator[](std::size_t index) const noexcept { return data_[index]; }

private:
    const T* data_ = nullptr;
    std::size_t size_ = 0;
};

/// Ids of the library as C++ sees them.
inline Span<uint32_t> view(trtllm_ids ids) noexcept { return {ids.data, ids.len}; }

/// Ids of C++ as the library sees them, as long as they are there.
inline trtllm_ids ids(Span<uint32_t> span) noexcept { return {span.data(), span.size()}; }

/// Not of a vector that is gone with the statement: name it first.
template <typename T, typename = std::enable_if_t<std::is_same_v<std::remove_const_t<T>, std::vector<uint32_t>>>>
trtllm_ids ids(T&& temporary) = delete;

namespace detail {

/// What this thread has done happens before what another does after `acquire(place)`. The library sees to that; ThreadSanitizer,
/// which does not look into the library, is told so.
inline void release([[maybe_unused]] void* place) noexcept {
#ifdef TRTLLM_TSAN
    __tsan_release(place);
#endif
}

/// See `release`.
inline void acquire([[maybe_unused]] void* place) noexcept {
#ifdef TRTLLM_TSAN
    __tsan_acquire(place);
#endif
}

/// The place for what an engine hands over beside the callbacks of one request: requests to whoever awaits their responses, and
/// what callbacks did to whoever shuts the engine down.
inline char engines;

/// A handle and the function that frees it.
template <typename T, trtllm_status (*Free)(T*)>
class Handle {
public:
    Handle() = default;
    explicit Handle(T* handle) noexcept : handle_(handle) {}
    Handle(Handle&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    /// Frees what it had at once; only then are callbacks over that use it.
    Handle& operator=(Handle&& other) noexcept {
        T* const taken = other.release();
        reset();
        handle_ = taken;
        return *this;
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() { reset(); }

    T* get() const noexcept { return handle_; }
    T* release() noexcept { return std::exchange(handle_, nullptr); }

private:
    void reset() noexcept {
        if (handle_ != nullptr) {
            Free(handle_);
            acquire(&engines);
        }
    }

    T* handle_ = nullptr;
};

/// A string of the library, copied and freed.
inline std::string take(trtllm_string* string) {
    const Handle<trtllm_string, trtllm_free_string> owner(string);
    trtllm_str text{};
    check(trtllm_view_string(string, &text));
    return std::string(view(text));
}

/// Ids of the library, copied and freed.
inline std::vector<uint32_t> take(trtllm_token_ids* list) {
    const Handle<trtllm_token_ids, trtllm_free_token_ids> owner(list);
    trtllm_ids found{};
    check(trtllm_view_token_ids(list, &found));
    const Span<uint32_t> span = view(found);
    return std::vector<uint32_t>(span.begin(), span.end());
}

/// Structs that a list of the library points to.
template <typename T>
class Pointers {
public:
    class Iterator {
    public:
        using difference_type = std::ptrdiff_t;
        using value_type = T;
        using pointer = const T*;
        using reference = const T&;
        using iterator_category = std::forward_iterator_tag;

        Iterator() = default;
        explicit Iterator(const T* const* place) noexcept : place_(place) {}
        const T& operator*() const noexcept { return **place_; }
        const T* operator->() const noexcept { return *place_; }
        Iterator& operator++() noexcept {
            ++place_;
            return *this;
        }
        Iterator operator++(int) noexcept {
            const Iterator before = *this;
            ++place_;
            return before;
        }
        bool operator==(const Iterator& other) const noexcept { return place_ == other.place_; }
        bool operator!=(const Iterator& other) const noexcept { return place_ != other.place_; }

    private:
        const T* const* place_ = nullptr;
    };

    Pointers() = default;
    Pointers(Pointers&& other) noexcept
        : array_(std::exchange(other.array_, nullptr)), count_(std::exchange(other.count_, 0)) {}
    Pointers& operator=(Pointers&& other) noexcept {
        array_ = std::exchange(other.array_, nullptr);
        count_ = std::exchange(other.count_, 0);
        return *this;
    }

    std::size_t size() const noexcept { return count_; }
    bool empty() const noexcept { return count_ == 0; }
    Iterator begin() const& noexcept { return Iterator(array_); }
    Iterator end() const& noexcept { return Iterator(array_ + count_); }
    const T& operator[](std::size_t index) const& noexcept { return *array_[index]; }

    // What a list that is gone with the statement points to is gone too: name the list first. A range-based for does.
    Iterator begin() const&& = delete;
    Iterator end() const&& = delete;
    const T& operator[](std::size_t index) const&& = delete;

protected:
    ~Pointers() = default;

    const T* const* array_ = nullptr;
    std::size_t count_ = 0;
};

}  // namespace detail

/// Responses that were waited for: a range of `const trtllm_response&`, which are valid as long as this object.
class Responses : public detail::Pointers<trtllm_response> {
public:
    Responses() = default;
    explicit Responses(trtllm_responses* list) : handle_(list) {
        check(trtllm_view_responses(list, &array_, &count_));
    }

private:
    detail::Handle<trtllm_responses, trtllm_free_responses> handle_;
};

/// What ended a sequence early, for a response with `is_sequence_final`: nothing, a stop text, or the ids of an end token or a
/// stop word. Valid as long as the response.
using StopReason = std::variant<std::monostate, std::string_view, Span<uint32_t>>;

inline StopReason stop_reason(const trtllm_response& response) noexcept {
    if (response.stop_reason.len != 0) {
        return view(response.stop_reason);
    }
    if (response.stop_reason_ids.len != 0) {
        return view(response.stop_reason_ids);
    }
    return std::monostate();
}

/// Waits without limit.
constexpr std::chrono::milliseconds forever = std::chrono::milliseconds::max();

namespace detail {

/// Waits with `await(limit, &responses)`; empty when nothing came in time.
template <typename Await>
Responses await(std::chrono::milliseconds timeout, Await await) {
    trtllm_responses* responses = nullptr;
    const uint64_t limit = timeout == forever       ? TRTLLM_WAIT_FOREVER
                           : timeout.count() < 0 ? 0
                                                 : static_cast<uint64_t>(timeout.count());
    const trtllm_status status = await(limit, &responses);
    if (status == TRTLLM_STATUS_TIMED_OUT) {
        return Responses();
    }
    check(status);
    acquire(&engines);
    return Responses(responses);
}

}  // namespace detail

/// A queue for the responses of the requests that name it (`request.options.queue = queue.handle()`); freed with the object.
class Queue {
public:
    explicit Queue(trtllm_queue* handle) noexcept : handle_(handle) {}

    trtllm_queue* handle() const noexcept { return handle_.get(); }

    /// Responses of the queue's requests; as `Engine::await`.
    Responses await(std::chrono::milliseconds timeout = forever) {
        return detail::await(timeout, [this](uint64_t limit, trtllm_responses** responses) {
            return trtllm_await_queue(handle(), limit, responses);
        });
    }

    /// A descriptor that is readable while responses wait, as `trtllm_queue_fd`: the caller's, to be closed with `close`.
    int response_fd() const {
        int32_t fd = -1;
        check(trtllm_queue_fd(handle(), &fd));
        return fd;
    }

private:
    detail::Handle<trtllm_queue, trtllm_free_queue> handle_;
};

/// Statistics of iterations: a range of `const trtllm_iteration_stats&`, which are valid as long as this object.
class IterationStats : public detail::Pointers<trtllm_iteration_stats> {
public:
    explicit IterationStats(trtllm_iteration_stats_list* list) : handle_(list) {
        check(trtllm_view_iteration_stats(list, &array_, &count_));
    }

private:
    detail::Handle<trtllm_iteration_stats_list, trtllm_free_iteration_stats> handle_;
};

/// Logits that a hook edits, in place.
struct Logits {
    float* data;
    std::size_t size;

    float& operator[](std::size_t token) const noexcept { return data[token]; }
    float* begin() const noexcept { return data; }
    float* end() const noexcept { return data + size; }
};

/// A request whose texts and lists it owns. `options` is what trtllm.h has: settings that are numbers and flags, and its queue, are
/// set there; its other pointers and callbacks are those of the members below, whatever it says. Its `user_data` comes back in the responses
/// of a request without callbacks; with some it is the library's.
struct Request {
    trtllm_request options;

    /// An empty text is an empty prompt, which is refused.
    std::optional<std::string> prompt;
    std::optional<std::string> messages;
    std::vector<uint32_t> token_ids;
    std::vector<uint32_t> end_ids;
    std::vector<std::string> stop;
    std::vector<std::vector<uint32_t>> stop_words;
    std::vector<std::string> bad_words;
    std::vector<std::vector<uint32_t>> bad_token_words;
    std::vector<trtllm_token_bias> embedding_bias;
    /// What `options.guide_kind` is about.
    std::string guide;
    /// The folder of a LoRA adapter; empty for none.
    std::string lora;
    /// What the chat template is given with `messages`: its name, its further variables (a JSON object), tools and documents
    /// (JSON lists), and a system message; each empty for none.
    std::string chat_template;
    std::string chat_template_kwargs;
    std::string tools;
    std::string documents;
    std::string system;
    /// As `on_response` of trtllm.h. Throwing ends the request with what the exception says: it is called once more, with that
    /// error. Nobody is there for what it throws in its final call: std::terminate is called. While the engine is being
    /// closed, `cancel` does not throw, and `enqueue` throws TRTLLM_STATUS_SHUT_DOWN.
    std::function<void(const trtllm_response&)> on_response;
    /// As `logits_post_processor` of trtllm.h; needs an `on_response`, with whose last call both functions are destroyed.
    /// Throwing ends the request with what the exception says.
    std::function<void(const trtllm_logits_context&, Logits)> logits_post_processor;

    Request() { check(trtllm_init_request(&options, sizeof options)); }
};

/// The text of a sequence while its tokens arrive.
class Detokenizer {
public:
    explicit Detokenizer(trtllm_detokenizer* handle) noexcept : handle_(handle) {}

    std::string push(Span<uint32_t> tokens, bool is_last = false) {
        trtllm_string* text = nullptr;
        check(trtllm_detokenize(handle_.get(), ids(tokens), is_last, &text));
        return detail::take(text);
    }

private:
    detail::Handle<trtllm_detokenizer, trtllm_free_detokenizer> handle_;
};

/// An engine that runs; closed with the object.
class Engine {
public:
    /// Waits without limit.
    static constexpr std::chrono::milliseconds forever = trtllm::forever;

    static trtllm_engine_config default_config() {
        trtllm_engine_config config;
        check(trtllm_init_engine_config(&config, sizeof config));
        return config;
    }

    explicit Engine(std::string_view path) : Engine(path, default_config()) {}

    Engine(std::string_view path, const trtllm_engine_config& config) {
        trtllm_engine* engine = nullptr;
        check(trtllm_open_engine(str(path), &config, &engine));
        handle_ = detail::Handle<trtllm_engine, trtllm_close_engine>(engine);
    }

    trtllm_engine* handle() const noexcept { return handle_.get(); }

    trtllm_engine_info describe() const {
        trtllm_engine_info info{};
        info.struct_size = sizeof info;
        check(trtllm_describe_engine(handle(), &info));
        return info;
    }

    /// The id of the request. Its functions are copied.
    uint64_t enqueue(const Request& request);

    /// The same; its functions are moved, also when it throws.
    uint64_t enqueue(Request&& request);

    /// In an engine that was closed there is nothing to cancel, which is no error.
    void cancel(uint64_t request_id) {
        const trtllm_status status = trtllm_cancel(handle(), request_id);
        if (status != TRTLLM_STATUS_INVALID_HANDLE && status != TRTLLM_STATUS_SHUT_DOWN) {
            check(status);
        }
    }

    /// Responses of requests without a callback and a queue; empty when none came in time (below 0 is 0). Throws TRTLLM_STATUS_SHUT_DOWN when the
    /// engine was shut down and all have been taken.
    Responses await(std::chrono::milliseconds timeout = forever) {
        return detail::await(timeout, [this](uint64_t limit, trtllm_responses** responses) {
            return trtllm_await_responses(handle(), limit, responses);
        });
    }

    /// A queue for the responses of some requests alone.
    Queue new_queue() {
        trtllm_queue* queue = nullptr;
        check(trtllm_new_queue(handle(), &queue));
        return Queue(queue);
    }

    /// A descriptor that is readable while responses wait, as `trtllm_response_fd`: the caller's, to be closed with `close`.
    int response_fd() const {
        int32_t fd = -1;
        check(trtllm_response_fd(handle(), &fd));
        return fd;
    }

    /// Takes no more requests and returns when all have ended.
    void shutdown(trtllm_shutdown how) {
        check(trtllm_shutdown_engine(handle(), how));
        detail::acquire(&detail::engines);
    }

    /// Closes the engine now, and says so if that fails. Callbacks use the object until it returns.
    void close() {
        check(trtllm_close_engine(handle()));
        detail::acquire(&detail::engines);
        handle_.release();
    }

    IterationStats iteration_stats() {
        trtllm_iteration_stats_list* list = nullptr;
        check(trtllm_take_iteration_stats(handle(), &list));
        return IterationStats(list);
    }

    /// As `trtllm_take_request_stats`.
    std::string request_stats() {
        trtllm_string* lines = nullptr;
        check(trtllm_take_request_stats(handle(), &lines));
        return detail::take(lines);
    }

    /// As `trtllm_take_kv_cache_events`.
    std::string kv_cache_events(std::chrono::milliseconds timeout = std::chrono::milliseconds(0)) {
        trtllm_string* lines = nullptr;
        const uint64_t limit = timeout.count() < 0 ? 0 : static_cast<uint64_t>(timeout.count());
        check(trtllm_take_kv_cache_events(handle(), limit, &lines));
        return detail::take(lines);
    }

    std::vector<uint32_t> end_ids() const {
        trtllm_token_ids* list = nullptr;
        check(trtllm_end_ids(handle(), &list));
        return detail::take(list);
    }

    std::vector<uint32_t> encode(std::string_view text, bool add_special_tokens = true) const {
        trtllm_token_ids* list = nullptr;
        check(trtllm_encode(handle(), str(text), add_special_tokens, &list));
        return detail::take(list);
    }

    std::string decode(Span<uint32_t> tokens, bool skip_special_tokens = true) const {
        trtllm_string* text = nullptr;
        check(trtllm_decode(handle(), ids(tokens), skip_special_tokens, &text));
        return detail::take(text);
    }

    uint32_t token_to_id(std::string_view token) const {
        uint32_t id = 0;
        check(trtllm_token_to_id(handle(), str(token), &id));
        return id;
    }

    std::string id_to_token(uint32_t id) const {
        trtllm_string* token = nullptr;
        check(trtllm_id_to_token(handle(), id, &token));
        return detail::take(token);
    }

    std::string apply_chat_template(std::string_view messages, bool add_generation_prompt = true) const {
        trtllm_string* text = nullptr;
        check(trtllm_apply_chat_template(handle(), str(messages), add_generation_prompt, &text));
        return detail::take(text);
    }

    Detokenizer detokenizer(Span<uint32_t> prompt, bool skip_special_tokens = true) const {
        trtllm_detokenizer* made = nullptr;
        check(trtllm_new_detokenizer(handle(), ids(prompt), skip_special_tokens, &made));
        return Detokenizer(made);
    }

private:
    using OnResponse = std::function<void(const trtllm_response&)>;
    using LogitsPostProcessor = std::function<void(const trtllm_logits_context&, Logits)>;

    uint64_t enqueue(const Request& request, OnResponse on_response, LogitsPostProcessor logits_post_processor);

    detail::Handle<trtllm_engine, trtllm_close_engine> handle_;
};

namespace detail {

/// Tells the library what the exception that is being handled says.
inline void fail_with_exception() noexcept {
    try {
        throw;
    } catch (const std::exception& error) {
        trtllm_fail(str(error.what()));
    } catch (...) {
        trtllm_fail(str("it threw something that is no std::exception"));
    }
}

/// The functions of a request, from `enqueue` to its final response.
struct Callbacks {
    std::function<void(const trtllm_response&)> on_response;
    std::function<void(const trtllm_logits_context&, Logits)> logits_post_processor;

    /// What is thrown in the final call ends the program here, and not somewhere in the library.
    static void respond(void* user_data, const trtllm_response* response) noexcept {
        auto* const callbacks = static_cast<Callbacks*>(user_data);
        acquire(callbacks);
        if (response->is_final) {
            callbacks->on_response(*response);
            delete callbacks;
            release(&engines);
            return;
        }
        try {
            callbacks->on_response(*response);
        } catch (...) {
            fail_with_exception();
        }
        release(&engines);
    }

    static int32_t process(void* user_data, const trtllm_logits_context* context, float* logits,
                           std::size_t vocab_size) noexcept {
        auto* const callbacks = static_cast<Callbacks*>(user_data);
        acquire(callbacks);
        int32_t failed = 0;
        try {
            callbacks->logits_post_processor(*context, Logits{logits, vocab_size});
        } catch (...) {
            fail_with_exception();
            failed = 1;
        }
        release(callbacks);
        return failed;
    }
};

inline std::vector<trtllm_str> views(const std::vector<std::string>& texts) {
    std::vector<trtllm_str> views;
    for (const std::string& text : texts) {
        views.push_back(str(text));
    }
    return views;
}

inline std::vector<trtllm_ids> views(const std::vector<std::vector<uint32_t>>& lists) {
    std::vector<trtllm_ids> views;
    for (const std::vector<uint32_t>& list : lists) {
        views.push_back(ids(list));
    }
    return views;
}

inline trtllm_str optional(const std::string& text) noexcept { return text.empty() ? trtllm_str{} : str(text); }

inline trtllm_str optional(const std::optional<std::string>& text) noexcept { return text ? str(*text) : trtllm_str{}; }

}  // namespace detail

inline uint64_t Engine::enqueue(const Request& request) {
    return enqueue(request, request.on_response, request.logits_post_processor);
}

inline uint64_t Engine::enqueue(Request&& request) {
    return enqueue(request, std::move(request.on_response), std::move(request.logits_post_processor));
}

inline uint64_t Engine::enqueue(const Request& request, OnResponse on_response,
                                LogitsPostProcessor logits_post_processor) {
    const std::vector<trtllm_str> stop = detail::views(request.stop), bad_words = detail::views(request.bad_words);
    const std::vector<trtllm_ids> stop_words = detail::views(request.stop_words);
    const std::vector<trtllm_ids> bad_token_words = detail::views(request.bad_token_words);
    trtllm_request asked = request.options;
    asked.prompt = detail::optional(request.prompt);
    asked.messages = detail::optional(request.messages);
    asked.token_ids = ids(request.token_ids);
    asked.end_ids = ids(request.end_ids);
    asked.stop = stop.data();
    asked.num_stop = stop.size();
    asked.stop_words = stop_words.data();
    asked.num_stop_words = stop_words.size();
    asked.bad_words = bad_words.data();
    asked.num_bad_words = bad_words.size();
    asked.bad_token_words = bad_token_words.data();
    asked.num_bad_token_words = bad_token_words.size();
    asked.embedding_bias = request.embedding_bias.data();
    asked.num_embedding_bias = request.embedding_bias.size();
    asked.guide = detail::optional(request.guide);
    asked.lora = detail::optional(request.lora);
    asked.chat_template = detail::optional(request.chat_template);
    asked.chat_template_kwargs = detail::optional(request.chat_template_kwargs);
    asked.tools = detail::optional(request.tools);
    asked.documents = detail::optional(request.documents);
    asked.system = detail::optional(request.system);
    asked.on_response = nullptr;
    asked.logits_post_processor = nullptr;
    uint64_t id = 0;
    if (!on_response && !logits_post_processor) {
        detail::release(&detail::engines);
        check(trtllm_enqueue(handle(), &asked, &id));
        return id;
    }
    if (!on_response) {
        // The functions are freed with the final response, which has to pass here.
        throw Error(TRTLLM_STATUS_INVALID_ARGUMENT, "a logits_post_processor needs an on_response beside it");
    }
    const bool has_hook = static_cast<bool>(logits_post_processor);
    auto callbacks = std::make_unique<detail::Callbacks>(
        detail::Callbacks{std::move(on_response), std::move(logits_post_processor)});
    asked.on_response = detail::Callbacks::respond;
    asked.logits_post_processor = has_hook ? detail::Callbacks::process : nullptr;
    asked.user_data = callbacks.get();
    detail::release(callbacks.get());
    check(trtllm_enqueue(handle(), &asked, &id));
    callbacks.release();
    return id;
}

/// Told how far a long task is, as `trtllm_progress_callback` of trtllm.h. Throwing stops the task, and is what its caller
/// gets.
using OnProgress = std::function<void(const trtllm_progress&)>;

namespace detail {

/// A function, and what it threw.
struct Watcher {
    const OnProgress& on_progress;
    std::exception_ptr thrown;

    static int32_t watch(void* user_data, const trtllm_progress* progress) noexcept {
        auto* const watcher = static_cast<Watcher*>(user_data);
        try {
            if (!watcher->thrown) {
                watcher->on_progress(*progress);
            }
        } catch (...) {
            watcher->thrown = std::current_exception();
        }
        return watcher->thrown ? 1 : 0;
    }

    void check(trtllm_status status) const {
        if (thrown) {
            std::rethrow_exception(thrown);
        }
        trtllm::check(status);
    }
};

}  // namespace detail

/// Builds what `options` ask for.
inline void build_engine(const trtllm_build_options& options) { check(trtllm_build_engine(&options)); }

/// The same, watched.
inline void build_engine(trtllm_build_options options, const OnProgress& on_progress) {
    detail::Watcher watcher{on_progress, nullptr};
    options.on_progress = detail::Watcher::watch;
    options.user_data = &watcher;
    watcher.check(trtllm_build_engine(&options));
}

/// Throws unless every weight of an engine directory has its hash.
inline void verify_engine(std::string_view path) { check(trtllm_verify_engine(str(path), nullptr, nullptr)); }

/// The same, watched.
inline void verify_engine(std::string_view path, const OnProgress& on_progress) {
    detail::Watcher watcher{on_progress, nullptr};
    watcher.check(trtllm_verify_engine(str(path), detail::Watcher::watch, &watcher));
}

inline trtllm_build_options default_build_options() {
    trtllm_build_options options;
    check(trtllm_init_build_options(&options, sizeof options));
    return options;
}

inline trtllm_memory_plan plan_memory(const trtllm_build_options& options) {
    trtllm_memory_plan plan{};
    plan.struct_size = sizeof plan;
    check(trtllm_plan_memory(&options, &plan));
    return plan;
}

/// As `trtllm_set_log_callback`; an empty function clears it. The function before is destroyed when this returns. `on_record` must not
/// throw: std::terminate is called if it does. One thread at a time sets it.
inline void set_log_callback(trtllm_log_level level, std::function<void(const trtllm_log_record&)> on_record) {
    using Function = std::function<void(const trtllm_log_record&)>;
    // Never destroyed: the library may log while the program ends.
    static std::unique_ptr<Function>& current = *new std::unique_ptr<Function>();
    std::unique_ptr<Function> next = on_record ? std::make_unique<Function>(std::move(on_record)) : nullptr;
    const trtllm_log_callback call = [](void* user_data, const trtllm_log_record* record) noexcept {
        detail::acquire(user_data);
        (*static_cast<Function*>(user_data))(*record);
        detail::release(&detail::engines);
    };
    detail::release(next.get());
    check(trtllm_set_log_callback(level, next ? call : nullptr, next.get()));
    detail::acquire(&detail::engines);
    current = std::move(next);
}

/// Whether this library can run engines on such an executor here, and why (not).
inline std::pair<bool, std::string> query_executor(trtllm_executor_kind executor) {
    bool available = false;
    trtllm_string* explanation = nullptr;
    check(trtllm_query_executor(executor, &available, &explanation));
    return {available, detail::take(explanation)};
}

/// Whether all that TensorRT engines need is here and fits together, and `engine` with it where it is given; and a report.
inline std::pair<bool, std::string> diagnose(std::string_view engine = {}) {
    bool healthy = false;
    trtllm_string* report = nullptr;
    check(trtllm_diagnose(str(engine), &healthy, &report));
    return {healthy, detail::take(report)};
}

}  // namespace v0_1_0
}  // namespace trtllm

#undef TRTLLM_TSAN

#endif  // TRTLLM_HPP
