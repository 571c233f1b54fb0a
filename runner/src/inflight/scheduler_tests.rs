//! The scheduler and the block book-keeping, driven for thousands of iterations without a model: a simulated cache
//! remembers for each slot of each block which prefix was stored there, so that a block lost, shared wrongly or reused
//! for another prefix shows at once.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use proptest::prelude::*;

use super::kv_cache::BlockManager;
use super::prefix::Salt;
use super::scheduler::{Demand, IterationTime, NewSequence, Scheduler, SchedulerConfig, SequenceId, Size, Step};
use crate::executor::{CapacitySchedulerPolicy, TokenId};
use crate::model::BlockId;

/// A request to the simulation.
#[derive(Debug, Clone)]
struct Plan {
    prompt: Vec<TokenId>,
    max_tokens: usize,
    beam_width: usize,
    copies: usize,
    priority: u8,
    salt: Option<u64>,
    computes_whole_prompt: bool,
    arrives: usize,
    cancelled: Option<usize>,
}

struct Simulation {
    scheduler: Scheduler,
    config: SchedulerConfig,
    tokens_per_block: usize,
    /// What is stored in each slot of each block: the hash of the prefix that ends there.
    slots: Vec<Option<u64>>,
    left: HashMap<SequenceId, (usize, usize)>,
    paused: usize,
    time: Option<IterationTime>,
}

fn prefix_hash(tokens: &[TokenId]) -> u64 {
    let mut hasher = DefaultHasher::new();
    tokens.hash(&mut hasher);
    hasher.finish()
}

impl Simulation {
    fn new(config: SchedulerConfig, num_blocks: usize, tokens_per_block: usize) -> Self {
        let scheduler = Scheduler::new(config.clone(), BlockManager::new(num_blocks, tokens_per_block));
        let slots = vec![None; num_blocks * tokens_per_block];
        Self { scheduler, config, tokens_per_block, slots, left: HashMap::new(), paused: 0, time: None }
    }

    fn add(&mut self, plan: &Plan) -> Vec<SequenceId> {
        let mut ids: Vec<SequenceId> = Vec::new();
        for index in 0..plan.copies {
            let id = self.scheduler.add(NewSequence {
                prompt: plan.prompt.clone(),
                max_tokens: plan.max_tokens,
                beam_width: plan.beam_width,
                priority: f32::from(plan.priority) / 4.0,
                salt: Salt { shared: plan.salt, private: None },
                computes_whole_prompt: plan.computes_whole_prompt && index == 0,
                follows: ids.first().copied(),
            });
            self.left.insert(id, (plan.max_tokens, plan.beam_width));
            ids.push(id);
        }
        ids
    }

    fn slot(&self, blocks: &[BlockId], position: usize) -> usize {
        blocks[position / self.tokens_per_block] as usize * self.tokens_per_block + position % self.tokens_per_block
    }

    /// One iteration, checked.
    fn step(&mut self, iteration: usize) -> Step {
        let step = self.pass();
        self.scheduler.computed(&step);
        self.choose(&step, iteration);
        step
    }

    /// The pass of an iteration, which may be all that there is of it.
    fn pass(&mut self) -> Step {
        let step = self.scheduler.schedule(self.time);
        self.paused += step.paused;
        if step.paused > 0 {
            assert_eq!(self.config.policy, CapacitySchedulerPolicy::MaxUtilization, "a pause");
        }
        assert_eq!(step.parts.is_empty(), self.scheduler.is_empty(), "nothing is done though there is work");
        let tokens: usize = step.parts.iter().map(|part| part.tokens).sum();
        assert!(tokens <= self.config.max_num_tokens && step.parts.len() <= self.config.max_batch_size);

        let mut written = HashMap::new();
        for (index, part) in step.parts.iter().enumerate() {
            let all = self.scheduler.tokens(part.sequence, part.beam).to_vec();
            let blocks = self.scheduler.part_blocks(part).to_vec();
            assert!(part.tokens > 0 && part.start + part.tokens <= all.len());
            assert_eq!(part.completes, part.start + part.tokens == all.len());
            // What is behind the window of the first token is not looked at.
            let window = self.config.sliding_window.unwrap_or(usize::MAX);
            for position in (part.start + 1).saturating_sub(window)..part.start {
                let stored = self.slots[self.slot(&blocks, position)];
                assert_eq!(stored, Some(prefix_hash(&all[..=position])), "position {position} of {part:?}");
            }
            for position in part.start..part.start + part.tokens {
                let slot = self.slot(&blocks, position);
                assert!(written.insert(slot, index).is_none(), "two sequences write slot {slot}");
                self.slots[slot] = Some(prefix_hash(&all[..=position]));
            }
        }
        step
    }

    fn choose(&mut self, step: &Step, iteration: usize) {
        let mut done: Vec<SequenceId> = Vec::new();
        for part in step.parts.iter().filter(|part| part.completes) {
            if done.contains(&part.sequence) {
                continue;
            }
            done.push(part.sequence);
            let (left, beam_width) = self.left[&part.sequence];
            if left == 1 {
                self.scheduler.remove(part.sequence);
                self.left.remove(&part.sequence);
                continue;
            }
            self.left.insert(part.sequence, (left - 1, beam_width));
            if beam_width == 1 {
                self.scheduler.append(part.sequence, (iteration % 3) as TokenId);
                continue;
            }
            let beams = step.parts.iter().filter(|other| other.sequence == part.sequence).count();
            // Parents in any order, some of them twice, some not at all; siblings differ in their token.
            let next: Vec<_> =
                (0..beam_width).map(|beam| ((beam * iteration + beam / 2) % beams, beam as TokenId)).collect();
            for (from, to) in self.scheduler.branch(part.sequence, &next) {
                let (from, to) = (from as usize * self.tokens_per_block, to as usize * self.tokens_per_block);
                self.slots.copy_within(from..from + self.tokens_per_block, to);
            }
        }
    }

    fn cancel(&mut self, id: SequenceId) {
        self.scheduler.remove(id);
        self.left.remove(&id);
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    let prompt = (0usize..30, prop::collection::vec(0u32..2, 1..20))
        .prop_map(|(shared, own)| std::iter::repeat_n(1, shared).chain(own).collect::<Vec<_>>());
    let shape = (1usize..30, prop::sample::select(vec![1, 1, 1, 2, 3]), 1usize..4);
    let rest = (0u8..3, prop::option::weighted(0.2, 0u64..2), prop::bool::ANY, 0usize..60);
    (prompt, shape, rest, prop::option::weighted(0.2, 0usize..80)).prop_map(
        |(prompt, (max_tokens, beam_width, copies), (priority, salt, computes_whole_prompt, arrives), cancelled)| {
            Plan {
                prompt,
                max_tokens,
                beam_width,
                copies: if beam_width > 1 { 1 } else { copies },
                priority,
                salt,
                computes_whole_prompt,
                arrives,
                cancelled,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_ends_and_no_block_is_lost(
        plans in prop::collection::vec(plans(), 1..30),
        tokens_per_block in prop::sample::select(vec![1usize, 2, 5, 16]),
        spare_blocks in 0usize..20,
        max_batch_size in 3usize..9,
        max_num_tokens in 3usize..80,
        max_utilization: bool,
        enable_chunked_context: bool,
        sliding_window in prop::option::of(1usize..40),
        seconds in prop::option::of(0u8..40),
        drops: bool,
    ) {
        let config = SchedulerConfig {
            max_batch_size,
            max_num_tokens: if enable_chunked_context { max_num_tokens } else { max_num_tokens.max(50) },
            policy: if max_utilization { CapacitySchedulerPolicy::MaxUtilization } else { CapacitySchedulerPolicy::GuaranteedNoEvict },
            enable_chunked_context,
            sliding_window,
        };
        let demand = Demand { tokens_per_block, max_num_tokens: config.max_num_tokens, sliding_window };
        let worst = |plan: &Plan| {
            let prompt_len = plan.prompt.len();
            demand.most(Size { prompt_len, max_cached: prompt_len + plan.max_tokens - 1, beam_width: plan.beam_width })
        };
        let num_blocks = plans.iter().map(worst).max().unwrap_or(1) + spare_blocks;
        let mut simulation = Simulation::new(config, num_blocks, tokens_per_block);
        simulation.time =
            seconds.map(|seconds| IterationTime { seconds: seconds.into(), per_token: 1.0, per_key: 0.01 });
        let mut waiting: Vec<_> = plans.iter().collect();
        let mut cancellations: Vec<(usize, SequenceId)> = Vec::new();
        let work: usize = plans.iter().map(|plan| plan.copies * (plan.prompt.len() + plan.max_tokens)).sum();
        let mut iteration = 0;
        while !waiting.is_empty() || !simulation.scheduler.is_empty() {
            let (now, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|plan| plan.arrives <= iteration);
            waiting = later;
            for plan in now {
                let ids = simulation.add(plan);
                // One after another, so that some go on for a while without the one whose prompt they waited for.
                let cancelled = plan.cancelled.iter().flat_map(|at| (*at..).step_by(2).zip(ids.iter().copied()));
                cancellations.extend(cancelled);
            }
            for &(_, id) in cancellations.iter().filter(|&&(at, _)| at == iteration) {
                simulation.cancel(id);
            }
            // A pass that is dropped leaves nothing but what it wrote.
            if drops && iteration % 7 == 3 {
                simulation.pass();
            } else {
                simulation.step(iteration);
            }
            iteration += 1;
            // Each iteration brings at least one token of the first sequence; a pause repeats none of it.
            prop_assert!(iteration <= 100 + 4 * work, "starvation");
        }
        prop_assert!(simulation.left.is_empty());
        prop_assert_eq!(simulation.scheduler.blocks().available(), num_blocks);
    }
}

fn plan(prompt: usize, max_tokens: usize) -> Plan {
    Plan {
        prompt: vec![7; prompt],
        max_tokens,
        beam_width: 1,
        copies: 1,
        priority: 2,
        salt: None,
        computes_whole_prompt: false,
        arrives: 0,
        cancelled: None,
    }
}

fn config(policy: CapacitySchedulerPolicy) -> SchedulerConfig {
    SchedulerConfig {
        max_batch_size: 8,
        max_num_tokens: 16,
        policy,
        enable_chunked_context: true,
        sliding_window: None,
    }
}

#[test]
fn max_utilization_runs_more_at_once_and_pauses_the_last() {
    let run = |policy| {
        let mut simulation = Simulation::new(config(policy), 10, 4);
        let ids: Vec<_> = (0..3).flat_map(|salt| simulation.add(&Plan { salt: Some(salt), ..plan(4, 20) })).collect();
        let (mut most, mut order) = (0, Vec::new());
        for iteration in 0..1000 {
            let step = simulation.step(iteration);
            most = most.max(step.parts.len());
            for &id in &ids {
                if !simulation.left.contains_key(&id) && !order.contains(&id) {
                    order.push(id);
                }
            }
            if simulation.scheduler.is_empty() {
                break;
            }
        }
        assert_eq!(order, ids, "the first to arrive ends first");
        (most, simulation.paused)
    };
    assert_eq!(run(CapacitySchedulerPolicy::GuaranteedNoEvict), (1, 0));
    let (most, paused) = run(CapacitySchedulerPolicy::MaxUtilization);
    assert!(most == 3 && paused > 0, "{most} at once, {paused} pauses");
}

#[test]
fn context_and_generation_share_an_iteration() {
    let mut simulation = Simulation::new(config(CapacitySchedulerPolicy::GuaranteedNoEvict), 100, 4);
    simulation.add(&Plan { salt: Some(1), ..plan(3, 10) });
    simulation.step(0);
    simulation.add(&Plan { salt: Some(2), ..plan(40, 10) });
    let chunks: Vec<Vec<_>> =
        (1..4).map(|iteration| simulation.step(iteration).parts.iter().map(|part| part.tokens).collect()).collect();
    assert_eq!(chunks, [vec![1, 15], vec![1, 15], vec![1, 10]]);
}

#[test]
fn shared_prefixes_are_computed_once_and_by_salt() {
    let mut simulation = Simulation::new(config(CapacitySchedulerPolicy::GuaranteedNoEvict), 100, 4);
    let run = |simulation: &mut Simulation, plan: Plan| {
        simulation.add(&plan);
        (0..100)
            .map(|iteration| simulation.step(iteration))
            .take_while(|step| !step.parts.is_empty())
            .flat_map(|step| step.parts)
            .filter(|part| part.is_context)
            .map(|part| part.tokens)
            .sum::<usize>()
    };
    assert_eq!(run(&mut simulation, plan(14, 2)), 14);
    assert_eq!(run(&mut simulation, plan(14, 2)), 2);
    // The last token's logits are needed: the block that it is in is computed again.
    assert_eq!(run(&mut simulation, plan(12, 2)), 4);
    assert_eq!(run(&mut simulation, Plan { computes_whole_prompt: true, ..plan(14, 2) }), 14);
    assert_eq!(run(&mut simulation, Plan { salt: Some(1), ..plan(14, 2) }), 14);
    let stats = simulation.scheduler.blocks().stats();
    assert_eq!((stats.used_num_blocks, stats.reused_blocks), (0, 5));
}

#[test]
fn a_shared_prompt_is_computed_once_though_its_first_sequence_is_cancelled() {
    let mut simulation = Simulation::new(config(CapacitySchedulerPolicy::GuaranteedNoEvict), 100, 4);
    let ids = simulation.add(&Plan { copies: 3, ..plan(40, 2) });
    assert_eq!(simulation.step(0).parts[0].tokens, 16);
    simulation.cancel(ids[0]);
    let steps = (1..100).map(|iteration| simulation.step(iteration)).take_while(|step| !step.parts.is_empty());
    let parts: Vec<_> = steps.flat_map(|step| step.parts).filter(|part| part.is_context).collect();
    // The second goes on where the first was; the third computes the block with the last token of the prompt.
    let computed = |id| parts.iter().filter(|part| part.sequence == id).map(|part| part.tokens).sum::<usize>();
    assert_eq!((computed(ids[0]), computed(ids[1]), computed(ids[2])), (0, 24, 4));
}

#[test]
fn higher_priority_starts_first() {
    let config = SchedulerConfig { max_batch_size: 1, ..config(CapacitySchedulerPolicy::GuaranteedNoEvict) };
    let mut simulation = Simulation::new(config, 100, 4);
    let low = simulation.add(&Plan { priority: 0, ..plan(3, 1) })[0];
    let high = simulation.add(&Plan { priority: 4, ..plan(3, 1) })[0];
    assert_eq!(simulation.step(0).parts[0].sequence, high);
    assert_eq!(simulation.step(1).parts[0].sequence, low);
}

/// Tokens of context that each step computes, until everything has ended.
fn contexts(simulation: &mut Simulation) -> Vec<usize> {
    let context = |step: &Step| step.parts.iter().filter(|part| part.is_context).map(|part| part.tokens).sum::<usize>();
    let steps = (0..1000).map(|iteration| simulation.step(iteration)).take_while(|step| !step.parts.is_empty());
    steps.map(|step| context(&step)).collect()
}

fn prompt(shared: u32, own: u32, number: u32) -> Vec<TokenId> {
    (0..shared).chain((0..own).map(|position| 1000 * (number + 1) + position)).collect()
}

#[test]
fn prompts_that_arrive_together_compute_what_they_share_once() {
    for max_num_tokens in [8192, 100] {
        let policy = CapacitySchedulerPolicy::GuaranteedNoEvict;
        let config = SchedulerConfig { max_batch_size: 64, max_num_tokens, ..config(policy) };
        let mut simulation = Simulation::new(config, 1000, 32);
        for number in 0..16 {
            simulation.add(&Plan { prompt: prompt(500, 12, number), ..plan(1, 4) });
        }
        // One that shares nothing waits for nobody.
        let other = simulation.add(&Plan { prompt: vec![9; 10], ..plan(1, 4) })[0];
        let first = simulation.step(0);
        assert!(max_num_tokens < 512 || first.parts.iter().any(|part| part.sequence == other));
        let first: usize = first.parts.iter().map(|part| part.tokens).sum();
        // 15 of the 16 full blocks of 32 tokens are shared; the last tokens differ.
        let total = first + contexts(&mut simulation).iter().sum::<usize>();
        assert_eq!(total, 512 + 15 * (512 - 480) + 10, "{max_num_tokens} tokens a step");
        assert_eq!(simulation.scheduler.blocks().stats().reused_blocks, 15 * 15);
    }
}

#[test]
fn who_follows_is_handed_on_when_the_first_is_gone_or_paused() {
    let mut simulation = Simulation::new(config(CapacitySchedulerPolicy::GuaranteedNoEvict), 100, 4);
    let ids: Vec<_> =
        (0..3).flat_map(|number| simulation.add(&Plan { prompt: prompt(40, 2, number), ..plan(1, 2) })).collect();
    let sequences = |step: &Step| step.parts.iter().map(|part| (part.sequence, part.tokens)).collect::<Vec<_>>();
    assert_eq!(sequences(&simulation.step(0)), [(ids[0], 16)]);
    simulation.cancel(ids[0]);
    // The second finds what the first has computed, and computes the rest for the third.
    assert_eq!(sequences(&simulation.step(1)), [(ids[1], 16)]);
    assert_eq!(sequences(&simulation.step(2)), [(ids[1], 10)]);
    assert_eq!(sequences(&simulation.step(3)), [(ids[1], 1), (ids[2], 2)]);
}

#[test]
fn nobody_waits_for_one_of_lower_priority() {
    let config = SchedulerConfig { max_num_tokens: 40, ..config(CapacitySchedulerPolicy::GuaranteedNoEvict) };
    let mut simulation = Simulation::new(config, 100, 4);
    let low = simulation.add(&Plan { prompt: prompt(50, 2, 0), priority: 0, ..plan(1, 2) })[0];
    simulation.step(0);
    let high = simulation.add(&Plan { prompt: prompt(50, 2, 1), priority: 4, ..plan(1, 2) })[0];
    // It goes on from the 40 tokens that are computed, beside the other.
    let parts: Vec<_> = simulation.step(1).parts.iter().map(|part| (part.sequence, part.start)).collect();
    assert_eq!(parts, [(low, 40), (high, 40)]);
}

#[test]
fn a_window_is_all_that_is_held() {
    let policy = CapacitySchedulerPolicy::GuaranteedNoEvict;
    let config = SchedulerConfig { sliding_window: Some(16), max_num_tokens: 64, ..config(policy) };
    let mut simulation = Simulation::new(config, 26, 4);
    let ids: Vec<_> =
        (0..2).flat_map(|number| simulation.add(&Plan { prompt: prompt(0, 100, number), ..plan(1, 156) })).collect();
    let (mut most, mut most_generating) = (0, 0);
    for iteration in 0..1000 {
        let step = simulation.step(iteration);
        let used = simulation.scheduler.blocks().stats().used_num_blocks;
        most = most.max(used);
        if step.parts.len() == 2 && step.parts.iter().all(|part| !part.is_context) {
            most_generating = most_generating.max(used);
        }
    }
    // Their 512 tokens would take 128 blocks; a window of 16 tokens is in at most 5, a chunk of 64 in 16 more.
    assert!(most <= 26, "{most}");
    assert!(most_generating > 0 && most_generating <= 10, "{most_generating}");
    assert!(ids.iter().all(|id| !simulation.left.contains_key(id)));
    // What is behind the window is found as long as nobody needs its blocks.
    let mut simulation = Simulation::new(SchedulerConfig { max_num_tokens: 64, ..simulation.config }, 100, 4);
    for _ in 0..2 {
        simulation.add(&Plan { prompt: prompt(0, 101, 0), ..plan(1, 2) });
        assert!(contexts(&mut simulation).len() > 1);
    }
    assert_eq!(simulation.scheduler.blocks().stats().reused_blocks, 25);
}

#[test]
fn the_cost_is_linear_in_what_does_something() {
    // Look-ups of sequences and prefixes: of the first step, and of one that generates.
    let look_ups = |count: usize, waiting: usize, prompt_len: u32| {
        let policy = CapacitySchedulerPolicy::GuaranteedNoEvict;
        let config = SchedulerConfig { max_batch_size: count + 1, max_num_tokens: 100 * count, ..config(policy) };
        let mut simulation = Simulation::new(config, 4 * count, 32);
        for number in 0..count {
            simulation.add(&Plan { prompt: prompt(0, 3, number as u32), ..plan(1, 100) });
        }
        for number in 0..waiting {
            simulation.add(&Plan { prompt: prompt(0, prompt_len, (count + number) as u32), ..plan(1, 10) });
        }
        let mut cost = |iteration| {
            let before = simulation.scheduler.look_ups();
            assert_eq!(simulation.step(iteration).parts.len(), count);
            let after = simulation.scheduler.look_ups();
            (after.0 - before.0) + (after.1 - before.1)
        };
        let first = cost(0);
        // Also where all take another block.
        let generating = (1..=40).map(cost).max().unwrap();
        (first, generating)
    };
    let (one, two) = (look_ups(100, 0, 0), look_ups(200, 0, 0));
    assert!(two.0 <= 2 * one.0 + 10 && two.1 <= 2 * one.1 + 10, "{one:?} for 100 sequences, {two:?} for 200");
    assert!(one.1 <= 100 * 20, "{one:?}");
    // Neither do those that wait cost something, nor the length of a prompt that does not fit.
    assert_eq!(look_ups(100, 1, 3).1, look_ups(100, 1000, 1000).1);
}
