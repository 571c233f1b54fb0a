use engine_format::Architecture;
use engine_format::rope::{Rope, RopeScaling};

use super::budget::GPU_RESERVE;
use super::*;

/// Mistral-NeMo-Minitron-8B-Base.
pub(crate) fn minitron() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Mistral,
        hidden_size: 4096,
        num_hidden_layers: 40,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        head_size: 128,
        intermediate_size: 11520,
        vocab_size: 131_072,
        max_position_embeddings: 8192,
        norm_epsilon: 1e-5,
        attention_bias: false,
        tie_word_embeddings: false,
        sliding_window: None,
        rope: Rope { theta: 1e6, scaling: RopeScaling::None },
    }
}

fn place(executor: Executor, memory_bytes: u64) -> Place {
    Place { target: "test".into(), description: "a test".into(), memory_bytes, source: "made up".into(), executor }
}

fn gpu(memory_bytes: u64) -> Place {
    place(Executor::TensorRtLlm, memory_bytes)
}

fn mapping(tp_size: usize, pp_size: usize) -> Mapping {
    Mapping { tp_size, pp_size }
}

const GB: u64 = 1_000_000_000;

#[test]
fn the_parts_of_an_8b_model_are_what_a_hand_computes() {
    let request = LimitRequest { max_seq_len: Some(8192), max_batch_size: Some(16), max_num_tokens: Some(4096) };
    let plan = MemoryPlan::new(&minitron(), Mapping::SINGLE, gpu(80 * GB), request.into());
    // Per layer: QKV 6144 x 4096, output 4096 x 4096, MLP 3 x 11520 x 4096, two norms; then embedding, head, norm.
    let layer = 6144 * 4096 + 4096 * 4096 + 3 * 11520 * 4096 + 2 * 4096;
    let parameters = 40 * layer + 2 * 131_072 * 4096 + 4096;
    assert_eq!(plan.weights_bytes, 2 * parameters);
    assert_eq!(plan.weights_bytes, 2 * minitron().parameters());
    assert_eq!(plan.kv_bytes_per_token, 2 * 2 * 8 * 128 * 40);
    let activations = 4096 * (4 * 4096 + 2 * (2 * 4096 + 2 * 11520)) + 16 * 131_072 * 8;
    assert_eq!(plan.activation_bytes, activations);
    let free = 80 * GB - plan.weights_bytes - activations - GPU_RESERVE;
    assert_eq!(plan.kv_cache_bytes, free / 10 * 9 + free % 10 * 9 / 10);
    assert_eq!(plan.largest_batch, plan.kv_cache_bytes / (163_840 * 8192));
    assert_eq!(plan.longest_sequence, 8192);
    assert!(plan.fits());
}

#[test]
fn ranks_share_the_model_and_repeat_key_value_heads() {
    let config = minitron();
    let request = LimitRequest::default();
    let of = |tp, pp| MemoryPlan::new(&config, mapping(tp, pp), gpu(80 * GB), request.into());
    assert_eq!(of(8, 1).kv_bytes_per_token, 2 * 2 * 128 * 40);
    assert_eq!(of(16, 1).kv_bytes_per_token, 2 * 2 * 128 * 40);
    assert_eq!(of(1, 3).kv_bytes_per_token, 2 * 2 * 8 * 128 * 14);
    // The first stage has 14 layers and the embedding, the last 13 and the head: the first has most.
    let layer = (6144 + 4096 + 3 * 11520) * 4096 + 2 * 4096;
    assert_eq!(of(1, 3).weights_bytes, 2 * (14 * layer + 131_072 * 4096));
    assert!(of(2, 1).weights_bytes > of(1, 1).weights_bytes / 2);
    assert!(of(2, 1).weights_bytes < of(1, 1).weights_bytes);
}

#[test]
fn what_does_not_fit_says_how_much_is_missing_and_what_would_help() {
    let config = minitron();
    let plan = MemoryPlan::new(&config, Mapping::SINGLE, gpu(12 * GB), LimitRequest::default().into());
    assert!(!plan.fits());
    assert_eq!((plan.largest_batch, plan.longest_sequence), (0, 0));
    assert_eq!(plan.limits.max_seq_len, 8192);
    assert_eq!(plan.smallest_tp_size, Some(4));
    let limits = LimitRequest {
        max_seq_len: Some(plan.limits.max_seq_len),
        max_batch_size: Some(plan.limits.max_batch_size),
        max_num_tokens: Some(plan.limits.max_num_tokens),
    };
    let more = |bytes| MemoryPlan::new(&config, Mapping::SINGLE, gpu(12 * GB + bytes), limits.into()).missing_bytes;
    assert_eq!(more(plan.missing_bytes), 0);
    assert_eq!(more(plan.missing_bytes - 1), 1);
    let on_cpu = MemoryPlan::new(&config, Mapping::SINGLE, place(Executor::Cpu, 12 * GB), limits.into());
    assert_eq!(on_cpu.smallest_tp_size, None);
    assert!(!on_cpu.fits());
}

#[test]
fn the_chosen_batch_is_bounded_by_its_logits_and_not_by_full_length_sequences() {
    let config = minitron();
    let plan = |memory| MemoryPlan::new(&config, Mapping::SINGLE, gpu(memory * GB), LimitRequest::default().into());
    for (memory, batch) in [(24, 128), (40, 512), (48, 512), (80, 1024), (141, 2048), (186, 2048)] {
        let plan = plan(memory);
        assert_eq!((plan.limits.max_batch_size, plan.limits.max_num_tokens), (batch, 8192), "{memory} GB");
        assert!(plan.fits(), "{memory} GB");
        assert!((plan.largest_batch as usize) < batch, "{memory} GB: full-length sequences bound nothing");
        // The logits of twice as many would take more than 1/32 of what is left without any.
        let logits = |batch: usize| batch as u64 * 131_072 * 8;
        let left = memory * GB - plan.weights_bytes - plan.reserve_bytes - (plan.activation_bytes - logits(batch));
        assert!(logits(batch) <= left / 32 && (batch == 2048 || logits(2 * batch) > left / 32), "{memory} GB");
    }
    // Beams have logits each.
    let request = EngineRequest { max_beam_width: 4, ..LimitRequest::default().into() };
    let beams = MemoryPlan::new(&config, Mapping::SINGLE, gpu(80 * GB), request);
    assert_eq!(beams.limits.max_batch_size, 256);
    assert_eq!(beams.activation_bytes, plan(80).activation_bytes);
}

#[test]
fn logits_of_whole_prompts_are_in_the_plan() {
    let config = minitron();
    let asked = EngineRequest { gather_context_logits: true, ..LimitRequest::default().into() };
    let plan = |memory, mapping| MemoryPlan::new(&config, mapping, gpu(memory * GB), asked);
    let one = plan(80, Mapping::SINGLE);
    let elements = 8192 * 131_072;
    assert_eq!((one.context_logits_engine_bytes, one.context_logits_runtime_bytes), (elements * 2, elements * 4));
    assert_eq!(plan(80, mapping(2, 1)).context_logits_engine_bytes, elements * 4);
    let without = MemoryPlan::new(&config, Mapping::SINGLE, gpu(80 * GB), LimitRequest::default().into());
    assert_eq!((without.context_logits_engine_bytes, without.context_logits_runtime_bytes), (0, 0));
    // What they take, the KV cache does not get, and the batch is chosen of what is left.
    let batch = (without.limits.max_batch_size - one.limits.max_batch_size) as u64 * 131_072 * 8;
    assert!((without.kv_cache_bytes + batch * 9 / 10 - one.kv_cache_bytes).abs_diff(elements * 6 * 9 / 10) < 2);
    // A tenth of 60 GB holds the runtime's buffer, a tenth of 20 GB does not: then the cache has to be smaller.
    assert_eq!(one.smaller_cache_percent, None);
    let small = plan(40, Mapping::SINGLE);
    let percent = small.smaller_cache_percent.unwrap();
    let free = 40 * GB - small.weights_bytes - small.activation_bytes - small.reserve_bytes - elements * 2;
    assert!(free / 10 < elements * 4, "{free}");
    assert!(free * (100 - percent) / 100 >= elements * 4, "{percent} % of {free}");
    assert!(small.context_logits_note().contains(&format!("`kv_cache.free_memory_fraction` 0.{percent:02}")));
    assert!(!one.context_logits_note().contains("free_memory_fraction"));
}

#[test]
fn a_long_context_is_shortened_to_what_fits_unless_it_was_asked_for() {
    let mut config = minitron();
    config.max_position_embeddings = 1 << 20;
    let plan = MemoryPlan::new(&config, Mapping::SINGLE, gpu(24 * GB), LimitRequest::default().into());
    assert!(plan.fits());
    assert_eq!(plan.limits.max_seq_len as u64, plan.longest_sequence);
    assert!(plan.limits.max_seq_len < 1 << 20);
    let request = LimitRequest { max_seq_len: Some(1 << 20), ..LimitRequest::default() };
    let plan = MemoryPlan::new(&config, Mapping::SINGLE, gpu(24 * GB), request.into());
    assert!(!plan.fits());
    assert_eq!(plan.limits.max_seq_len, 1 << 20);
}

#[test]
fn a_window_bounds_a_sequence() {
    let mut config = minitron();
    config.sliding_window = Some(1024);
    let request = LimitRequest { max_batch_size: Some(1), ..LimitRequest::default() };
    let sequences = |place| {
        let plan = MemoryPlan::new(&config, Mapping::SINGLE, place, request.into());
        plan.sequences_by_length
    };
    let on_gpu = sequences(gpu(80 * GB));
    // 33 blocks of 32 tokens from 1056 tokens on, 32 blocks for 1024.
    assert_eq!(on_gpu.iter().map(|row| row.0).collect::<Vec<_>>(), [1024, 2048, 4096, 8192]);
    assert!(on_gpu[0].1 > on_gpu[1].1);
    assert!(on_gpu[1..].iter().all(|row| row.1 == on_gpu[1].1));
    // On the CPU one prompt at a time takes a chunk more.
    let on_cpu = sequences(place(Executor::Cpu, 80 * GB));
    assert!(on_cpu[0].1 > on_cpu[1].1);
    assert!(on_cpu[1..].iter().all(|row| on_cpu[1].1 - 2 <= row.1 && row.1 <= on_cpu[1].1));
    let whole = {
        config.sliding_window = None;
        MemoryPlan::new(&config, Mapping::SINGLE, place(Executor::Cpu, 80 * GB), request.into()).sequences_by_length
    };
    assert!(on_cpu[3].1 > 7 * whole[3].1, "{on_cpu:?}, and without a window {whole:?}");
}

#[test]
fn limits_of_the_cpu_engine_follow_each_other() {
    let config = minitron();
    let limits = |max_batch_size, max_num_tokens| {
        let request = LimitRequest { max_seq_len: None, max_batch_size, max_num_tokens };
        let limits = cpu_limits(&config, request);
        (limits.max_seq_len, limits.max_batch_size, limits.max_num_tokens)
    };
    assert_eq!(limits(None, None), (8192, 64, 2048));
    assert_eq!(limits(None, Some(8)), (8192, 8, 8));
    assert_eq!(limits(Some(5000), None), (8192, 5000, 5000));
    assert_eq!(limits(Some(3), Some(9)), (8192, 3, 9));
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let mut config = minitron();
    let most = 1 << 20;
    config.hidden_size = most;
    config.num_hidden_layers = 4096;
    (config.num_attention_heads, config.num_key_value_heads) = (8192, 8192);
    config.intermediate_size = most;
    config.vocab_size = most;
    config.max_position_embeddings = 1 << 30;
    let request =
        LimitRequest { max_seq_len: Some(1 << 30), max_batch_size: Some(1 << 30), max_num_tokens: Some(1 << 30) };
    for executor in [Executor::TensorRtLlm, Executor::Cpu] {
        let plan = MemoryPlan::new(&config, Mapping::SINGLE, place(executor, u64::MAX), request.into());
        assert!(plan.weights_bytes > 1 << 50);
        assert!(plan.fits() || plan.missing_bytes > 0);
    }
}
