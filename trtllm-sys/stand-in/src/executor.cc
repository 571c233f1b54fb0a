// An executor without a model: it batches in flight. Its tokens are those of tokens.h.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <iostream>
#include <list>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>

#include "guides.h"
#include "logits.h"
#include "mpi_utils.h"
#include "settings.h"
#include "tensorrt_llm/executor/executor.h"
#include "tokens.h"
#include "workers.h"

namespace tensorrt_llm::executor {
namespace {

using Clock = std::chrono::steady_clock;

struct Active {
    IdType id;
    Request request;
    std::vector<Sequence> sequences;
    std::optional<Clock::time_point> deadline;
    bool started = false;
    bool cancelled = false;
    bool contextLogitsSent = false;
    RequestPerfMetrics metrics = {};
    std::string error = {};
};

}  // namespace

class Executor::Impl {
public:
    Impl(std::filesystem::path const& dir, ExecutorConfig config) : mSettings(dir), mConfig(std::move(config)) {
        std::cout << "[TensorRT-LLM][INFO] stand-in: engine " << dir.string() << std::endl;
        mpi::initialize(false);
        mSettings.maybe_throw("construct");
        for (char const* name : {"config.json", "rank0.engine"}) {
            if (!std::filesystem::exists(dir / name)) {
                throw std::runtime_error("Error opening engine file: " + (dir / name).string());
            }
        }
        check_tokenizer(mSettings, mConfig.getGuidedDecodingConfig());
        auto const parallel = mConfig.getParallelConfig();
        if (parallel && parallel->getCommunicationMode() == CommunicationMode::kORCHESTRATOR) {
            auto const orchestrator = parallel->getOrchestratorConfig().value_or(OrchestratorConfig());
            mWorkers = std::make_unique<Workers>(orchestrator.getWorkerExecutablePath(), mSettings, dir);
        }
        if (!mWorkers) {
            mEvents = std::make_shared<KVCacheEventManager>(mConfig.getKvCacheConfig().getEventBufferMaxSize());
            mEvents->add(KVCacheCreatedData{{100}});
        }
        mVocab = static_cast<TokenIdType>(mSettings.number("vocab_size", 1000));
        mColumns = static_cast<TokenIdType>(mSettings.number("logits_columns", mVocab));
        mMaxBatch = static_cast<std::size_t>(mSettings.number("max_batch_size", 64));
        if (mConfig.getMaxBatchSize() > 0) {
            mMaxBatch = std::min(mMaxBatch, static_cast<std::size_t>(mConfig.getMaxBatchSize()));
        }
        mThread = std::thread([this] { run(); });
    }

    ~Impl() {
        shutdown();
        std::cout << "[TensorRT-LLM][INFO] stand-in: closed" << std::endl;
    }

    IdType enqueue(Request const& request) {
        mSettings.maybe_throw("enqueue");
        std::unique_lock<std::mutex> lock(mMutex);
        if (mClosed) {
            throw std::runtime_error("the executor is shut down and cannot enqueue");
        }
        if (mConfig.getMaxQueueSize() && waiting() >= static_cast<std::size_t>(*mConfig.getMaxQueueSize())) {
            throw std::runtime_error("Maximum queue size of " + std::to_string(*mConfig.getMaxQueueSize()) +
                                     " has been reached, please try again later");
        }
        IdType const id = ++mLastId;
        Active active{id, request, {}, std::nullopt};
        active.error = problem_of(request);
        active.metrics.timingMetrics.arrivalTime = Clock::now();
        auto const sampling = request.getSamplingConfig();
        auto const count = sampling.getBeamWidth() > 1 ? 1 : sampling.getNumReturnSequences().value_or(1);
        for (SizeType32 i = 0; i < count; i++) {
            Sequence sequence;
            sequence.seed = sampling.getSeed().value_or(0) + static_cast<RandomSeedType>(i);
            active.sequences.push_back(std::move(sequence));
        }
        if (request.getAllottedTimeMs()) {
            active.deadline = Clock::now() + *request.getAllottedTimeMs();
        }
        mActive.push_back(std::move(active));
        mWork.notify_one();
        if (mSettings.number("hasty", 0) != 0) {
            mReady.wait_for(lock, std::chrono::seconds(5), [this] { return !mResponses.empty(); });
            lock.unlock();
            // Long enough for whoever awaits to take it.
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
        return id;
    }

    std::vector<Response> await(std::optional<std::chrono::milliseconds> const& timeout) {
        mSettings.maybe_throw("await");
        std::unique_lock<std::mutex> lock(mMutex);
        auto const ready = [this] { return !mResponses.empty() || mStopped; };
        if (timeout) {
            mReady.wait_for(lock, *timeout, ready);
        } else {
            mReady.wait(lock, ready);
        }
        return std::exchange(mResponses, {});
    }

    void cancel(IdType id) {
        mSettings.maybe_throw("cancel");
        std::lock_guard<std::mutex> const lock(mMutex);
        for (Active& active : mActive) {
            if (active.id == id && mSettings.number("ignore_cancel", 0) == 0) {
                active.cancelled = true;
            }
        }
        mWork.notify_one();
    }

    std::deque<IterationStats> stats() {
        mSettings.maybe_throw("stats");
        std::lock_guard<std::mutex> const lock(mMutex);
        return std::exchange(mStats, {});
    }

    void shutdown() {
        {
            std::lock_guard<std::mutex> const lock(mMutex);
            mClosed = true;
        }
        mWork.notify_one();
        if (mThread.joinable()) {
            mThread.join();
        }
    }

    std::deque<RequestStatsPerIteration> request_stats() {
        std::lock_guard<std::mutex> const lock(mMutex);
        return std::exchange(mRequestStats, {});
    }

    std::shared_ptr<KVCacheEventManager> events() const { return mEvents; }

    Settings const& settings() const { return mSettings; }

private:
    // What only becomes known after a request was taken: it is said in a response.
    std::string problem_of(Request const& request) {
        if (auto const& lora = request.getLoraConfig()) {
            if (lora->getWeights()) {
                mAdapters.insert(lora->getTaskId());
            } else if (mAdapters.count(lora->getTaskId()) == 0) {
                return "LoRA task " + std::to_string(lora->getTaskId()) + " not found in cache. Please send LoRA weights with request";
            }
        }
        if (request.getGuidedDecodingParams() && !mConfig.getGuidedDecodingConfig()) {
            return "Guided decoding params are given, but guided decoding is not configured";
        }
        return {};
    }

    std::size_t waiting() const {
        std::size_t count = 0;
        for (Active const& active : mActive) {
            count += active.started ? 0 : 1;
        }
        return count;
    }

    void run() {
        std::unique_lock<std::mutex> lock(mMutex);
        long const stallAfter = mSettings.number("stall_after", -1);
        auto const latency = std::chrono::microseconds(mSettings.number("latency_us", 0));
        for (;;) {
            mWork.wait(lock, [this] { return mClosed || !mActive.empty(); });
            if (mActive.empty()) {
                break;
            }
            if (stallAfter >= 0 && static_cast<long>(mIter) >= stallAfter && !mClosed) {
                std::filesystem::path const end = mSettings.text("stall_until", "");
                while (!mClosed && (end.empty() || !std::filesystem::exists(end))) {
                    mWork.wait_for(lock, std::chrono::milliseconds(5));
                }
            }
            if (latency.count() > 0) {
                lock.unlock();
                std::this_thread::sleep_for(latency);
                lock.lock();
            }
            try {
                iterate();
            } catch (std::exception const& exception) {
                terminate_active(exception.what());
            }
            mReady.notify_all();
        }
        mStopped = true;
        mReady.notify_all();
    }

    // As Executor::Impl::terminateActiveRequests: what a step throws ends every request of it.
    void terminate_active(std::string const& problem) {
        for (Active const& active : mActive) {
            mResponses.emplace_back(active.id, "Encountered an error in forwardAsync function: " + problem,
                                    active.request.getClientId());
        }
        mActive.clear();
    }

    void iterate() {
        auto const now = Clock::now();
        IterationStats stats{};
        InflightBatchingStats batch{};
        std::size_t sequences = 0;
        for (Active& active : mActive) {
            if (sequences >= mMaxBatch && !active.cancelled) {
                continue;
            }
            if (!active.error.empty()) {
                mResponses.emplace_back(active.id, active.error, active.request.getClientId());
                active.sequences.clear();
                continue;
            }
            if (!active.started) {
                if (auto const& guide = active.request.getGuidedDecodingParams()) {
                    compile_guide(mSettings, *guide);
                }
                active.started = true;
                active.metrics.timingMetrics.firstScheduledTime = now;
                active.metrics.firstIter = mIter;
                store_prompt(active);
                stats.numNewActiveRequests++;
                batch.numContextRequests++;
                batch.numCtxTokens += static_cast<SizeType32>(active.request.getInputTokenIds().size());
            } else {
                batch.numGenRequests++;
            }
            sequences += active.sequences.size();
            step(active, now);
        }
        auto const before = mActive.size();
        mActive.remove_if([](Active const& active) {
            return std::all_of(active.sequences.begin(), active.sequences.end(), [](Sequence const& s) { return s.ended; });
        });
        if (mConfig.getRequestStatsMaxIterations() > 0) {
            RequestStatsPerIteration each{mIter, {}};
            for (Active const& active : mActive) {
                each.requestStats.push_back({active.id, RequestStage::kGENERATION_IN_PROGRESS,
                                             static_cast<SizeType32>(active.request.getInputTokenIds().size()),
                                             static_cast<SizeType32>(active.sequences.front().tokens.size())});
            }
            mRequestStats.push_back(std::move(each));
            if (mRequestStats.size() > static_cast<std::size_t>(mConfig.getRequestStatsMaxIterations())) {
                mRequestStats.pop_front();
            }
        }
        stats.iter = mIter++;
        stats.numActiveRequests = static_cast<SizeType32>(before - waiting());
        stats.numQueuedRequests = static_cast<SizeType32>(waiting());
        stats.numCompletedRequests = static_cast<SizeType32>(before - mActive.size());
        stats.iterLatencyMS = std::chrono::duration<double, std::milli>(Clock::now() - now).count();
        batch.numScheduledRequests = static_cast<SizeType32>(sequences);
        stats.inflightBatchingStats = batch;
        stats.kvCacheStats = KvCacheStats{100, 90, 10, 32, 0, 0, 0, 0, 0.0f};
        auto const kept = static_cast<std::size_t>(mConfig.getIterStatsMaxIterations());
        if (kept > 0) {
            mStats.push_back(stats);
            if (mStats.size() > kept) {
                mStats.pop_front();
            }
        }
    }

    void step(Active& active, Clock::time_point now) {
        if (active.request.getSamplingConfig().getBeamWidth() > 1) {
            search(active, now);
            return;
        }
        for (std::size_t index = 0; index < active.sequences.size(); index++) {
            Sequence& sequence = active.sequences[index];
            if (sequence.ended) {
                continue;
            }
            if (sequence.finish == FinishReason::kNOT_FINISHED) {
                if (active.cancelled) {
                    sequence.finish = FinishReason::kCANCELLED;
                } else if (active.deadline && *active.deadline <= now) {
                    sequence.finish = FinishReason::kTIMED_OUT;
                } else {
                    sequence.finish = extend(active.request, sequence, mVocab);
                }
                bool const early = sequence.finish == FinishReason::kCANCELLED || sequence.finish == FinishReason::kTIMED_OUT;
                if (sequence.finish != FinishReason::kNOT_FINISHED && !early && active.request.getStreaming() &&
                    mSettings.number("empty_final", 0) != 0) {
                    respond(active, index, false);
                    continue;
                }
            }
            bool const isLast = sequence.finish != FinishReason::kNOT_FINISHED;
            auto const fresh = static_cast<long>(sequence.tokens.size() - sequence.delivered);
            if (isLast || (active.request.getStreaming() && fresh >= mSettings.number("tokens_per_response", 1))) {
                respond(active, index, isLast);
            }
        }
    }

    void respond(Active& active, std::size_t index, bool isLast) {
        Sequence& sequence = active.sequences[index];
        sequence.ended = isLast;
        Result result;
        result.sequenceIndex = static_cast<SizeType32>(index);
        result.isSequenceFinal = isLast;
        result.isFinal = std::all_of(active.sequences.begin(), active.sequences.end(), [](Sequence const& s) { return s.ended; });
        auto const from = sequence.tokens.begin() + static_cast<std::ptrdiff_t>(sequence.delivered);
        VecTokens tokens(from, sequence.tokens.end());
        if (!active.request.getStreaming() && !active.request.getOutputConfig().excludeInputFromOutput) {
            auto const prompt = active.request.getInputTokenIds();
            tokens.insert(tokens.begin(), prompt.begin(), prompt.end());
        }
        sequence.delivered = sequence.tokens.size();
        result.outputTokenIds = {std::move(tokens)};
        bool const unknown = isLast && mSettings.number("unknown_finish_reason", 0) != 0;
        result.finishReasons = {unknown ? static_cast<FinishReason>(99) : isLast ? sequence.finish : FinishReason::kNOT_FINISHED};
        if (active.request.getOutputConfig().returnLogProbs) {
            // Of the whole sequence, also when it streams, as TensorRT-LLM gives them.
            result.logProbs = {sequence.logProbs};
            float sum = 0;
            for (float const logProb : sequence.logProbs) {
                sum += logProb;
            }
            result.cumLogProbs = {sum};
        }
        add_context_logits(active, result);
        add_generation_logits(active, sequence, result);
        auto& times = active.metrics.timingMetrics;
        times.lastTokenTime = Clock::now();
        if (times.firstTokenTime < times.arrivalTime) {
            times.firstTokenTime = times.lastTokenTime;
        }
        if (result.isFinal && active.request.getOutputConfig().returnPerfMetrics) {
            active.metrics.lastIter = mIter;
            result.requestPerfMetrics = active.metrics;
        }
        mResponses.emplace_back(active.id, std::move(result), active.request.getClientId());
    }

    // Of the prompt's tokens that were computed: those whose cache was reused have none, as with TensorRT-LLM.
    void add_context_logits(Active& active, Result& result) const {
        if (!active.request.getOutputConfig().returnContextLogits || active.contextLogitsSent) {
            return;
        }
        active.contextLogitsSent = true;
        auto const prompt = static_cast<std::int64_t>(active.request.getInputTokenIds().size());
        auto const rows = active.metrics.kvCacheMetrics.numReusedBlocks > 0 ? 1 : prompt;
        result.contextLogits = context_logits(mSettings, rows, mColumns);
    }

    void add_generation_logits(Active const& active, Sequence const& sequence, Result& result) const {
        if (!active.request.getOutputConfig().returnGenerationLogits || !mConfig.getGatherGenerationLogits()) {
            return;
        }
        bool const streams = active.request.getStreaming();
        auto const& tokens = streams ? result.outputTokenIds[0] : sequence.tokens;
        result.generationLogits = generation_logits(mSettings, tokens, streams, mColumns);
    }

    // Prompts are kept whole, in one block each, below their salt.
    void store_prompt(Active& active) {
        auto const prompt = active.request.getInputTokenIds();
        bool const isKept = mConfig.getKvCacheConfig().getEnableBlockReuse();
        auto const [place, isNew] = mPrompts.insert({active.request.getCacheSaltID(), prompt});
        active.metrics.kvCacheMetrics.numTotalAllocatedBlocks = 1;
        active.metrics.kvCacheMetrics.numReusedBlocks = isKept && !isNew ? 1 : 0;
        active.metrics.kvCacheMetrics.numNewAllocatedBlocks = isKept && !isNew ? 0 : 1;
        if (mEvents && isNew) {
            KVCacheStoredBlockData block{mix(7, static_cast<std::uint64_t>(prompt.size())), {}, std::nullopt, 0, 35};
            for (TokenIdType const token : prompt) {
                block.tokens.push_back({token, 0});
            }
            mEvents->add(KVCacheStoredData{std::nullopt, {block}});
        }
    }

    // All beams at once, at the end.
    void search(Active& active, Clock::time_point now) {
        Sequence& sequence = active.sequences.front();
        Result result;
        result.isFinal = result.isSequenceFinal = true;
        auto const sampling = active.request.getSamplingConfig();
        auto const beams = sampling.getNumReturnSequences().value_or(sampling.getBeamWidth());
        bool const late = active.deadline && *active.deadline <= now;
        std::vector<VecLogProbs> logProbs;
        VecLogProbs sums;
        for (SizeType32 beam = 0; beam < beams; beam++) {
            Sequence one;
            one.seed = static_cast<RandomSeedType>(beam);
            FinishReason finish = active.cancelled ? FinishReason::kCANCELLED : late ? FinishReason::kTIMED_OUT : FinishReason::kNOT_FINISHED;
            while (finish == FinishReason::kNOT_FINISHED) {
                finish = extend(active.request, one, mVocab);
            }
            float sum = 0;
            for (float& logProb : one.logProbs) {
                logProb = -static_cast<float>(beam + 1);
                sum += logProb;
            }
            result.outputTokenIds.push_back(one.tokens);
            result.finishReasons.push_back(finish);
            logProbs.push_back(one.logProbs);
            sums.push_back(sum);
        }
        if (active.request.getOutputConfig().returnLogProbs) {
            result.logProbs = logProbs;
            result.cumLogProbs = sums;
        }
        add_context_logits(active, result);
        sequence.ended = true;
        mResponses.emplace_back(active.id, std::move(result), active.request.getClientId());
    }

    Settings mSettings;
    ExecutorConfig mConfig;
    TokenIdType mVocab = 0;
    TokenIdType mColumns = 0;
    std::size_t mMaxBatch = 0;
    std::mutex mMutex;
    std::condition_variable mWork;
    std::condition_variable mReady;
    std::list<Active> mActive;
    std::vector<Response> mResponses;
    std::deque<IterationStats> mStats;
    std::deque<RequestStatsPerIteration> mRequestStats;
    std::shared_ptr<KVCacheEventManager> mEvents;
    std::unique_ptr<Workers> mWorkers;
    std::set<IdType> mAdapters;
    std::set<std::pair<std::optional<CacheSaltIDType>, VecTokens>> mPrompts;
    IdType mLastId = 0;
    IterationType mIter = 0;
    bool mClosed = false;
    bool mStopped = false;
    std::thread mThread;
};

Executor::Executor(std::filesystem::path const& modelPath, ModelType, ExecutorConfig const& executorConfig)
    : mImpl(std::make_unique<Impl>(modelPath, executorConfig)) {}

Executor::~Executor() = default;

IdType Executor::enqueueRequest(Request const& request) { return mImpl->enqueue(request); }

std::vector<Response> Executor::awaitResponses(std::optional<std::chrono::milliseconds> const& timeout) {
    return mImpl->await(timeout);
}

void Executor::cancelRequest(IdType requestId) { mImpl->cancel(requestId); }

void Executor::shutdown() {
    mImpl->settings().maybe_throw("shutdown");
    mImpl->shutdown();
}

std::deque<IterationStats> Executor::getLatestIterationStats() { return mImpl->stats(); }

std::deque<RequestStatsPerIteration> Executor::getLatestRequestStats() { return mImpl->request_stats(); }

std::optional<std::shared_ptr<KVCacheEventManager>> Executor::getKVCacheEventManager() const {
    auto const events = mImpl->events();
    return events ? std::optional(events) : std::nullopt;
}

// Of the ranks that mpirun started, the first.
bool Executor::canEnqueueRequests() const {
    char const* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
    return rank == nullptr || std::string(rank) == "0";
}

}  // namespace tensorrt_llm::executor
