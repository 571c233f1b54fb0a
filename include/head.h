/*
 * trtllm: Mistral and Llama models from Hugging Face to an engine, and in-flight batched generation from it.
 *
 * The shape of it:
 *
 *     trtllm_engine *engine;
 *     trtllm_open_engine(TRTLLM_STR("engine"), NULL, &engine);
 *     trtllm_request request;
 *     trtllm_init_request(&request, sizeof request);
 *     request.prompt = TRTLLM_STR("Jupiter is");
 *     uint64_t id;
 *     trtllm_enqueue(engine, &request, &id);
 *     trtllm_responses *responses;
 *     while (trtllm_await_responses(engine, TRTLLM_WAIT_FOREVER, &responses) == TRTLLM_STATUS_OK) {
 *         const trtllm_response *const *array;
 *         size_t count;
 *         trtllm_view_responses(responses, &array, &count);
 *         ...
 *         trtllm_free_responses(responses);
 *     }
 *     trtllm_close_engine(engine);
 *
 * What holds for every function:
 *
 * - It returns a status (but those that cannot fail). After anything but TRTLLM_STATUS_OK it has done nothing, no
 *   out-parameter was written, and trtllm_last_error() of the same thread says why.
 * - It is thread-safe: any thread may call it at any time, with the same handle too, unless its comment says otherwise.
 *   Freeing or closing a handle while another thread looks at what was viewed through it is the host's mistake.
 * - A handle (a pointer to a type without members) has one owner, the host, who frees it once with the function that its
 *   comment names. Handles are numbers in the shape of pointers: a NULL, a freed or a foreign one is answered with
 *   TRTLLM_STATUS_INVALID_HANDLE.
 * - Texts are UTF-8, with their length. Numbers of bytes, tokens and elements are size_t, times are in the unit that the
 *   name ends with.
 * - A struct that the host fills begins with struct_size, so that it can grow: initialise it with its trtllm_init_
 *   function. Fields that an older host does not have keep their defaults. New fields begin behind the end that a struct had in
 *   the version before, never in what padded it. So of a struct that the library fills, a field is there where
 *   offsetof(type, field) < struct_size, whatever the library's version.
 * - Callbacks get the user_data that came with them. Nothing may unwind out of one.
 * - Nothing is printed. No signal handler is installed, and no global state of the process is changed, but for Rust's
 *   panic hook, to which one that calls the former is added when the first guide is compiled.
 *
 * The library stays loaded after dlclose().
 *
 * Fork before an engine is opened or built. The child of a later fork() has none of the library's threads: there every function
 * is answered with TRTLLM_STATUS_SHUT_DOWN, but for the trtllm_init_ functions and those that cannot fail. It may exit, with
 * destructors that close and free, or exec() another program.
 */
