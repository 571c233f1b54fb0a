//! The whole chain once more, for tests: in f64, with everything sorted, and nothing clever.

use crate::executor::{RequestSpec, TokenId};

/// What may be drawn, in the order of ids, with probabilities, and how sure that set is.
pub(super) struct Distribution {
    pub(super) kept: Vec<(TokenId, f64)>,
    /// The least relative distance of a filter's decision from falling the other way.
    pub(super) margin: f64,
}

/// Logits divided by the temperature, with penalties and bans, by the formulas as they are written down.
pub(super) fn processed(spec: &RequestSpec, logits: &[f32], tokens: &[TokenId], temperature: f64) -> Vec<f64> {
    let config = &spec.sampling;
    let mut z: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    for &(token, bias) in &spec.embedding_bias {
        z[token as usize] += f64::from(bias);
    }
    for (token, z) in z.iter_mut().enumerate() {
        *z /= temperature;
        let is_it = |&seen: &TokenId| seen as usize == token;
        if tokens.iter().any(|seen| is_it(seen)) {
            let repetition = f64::from(config.repetition_penalty);
            *z = if *z < 0.0 { *z * repetition } else { *z / repetition };
        }
        let overlooked = config.prompt_ignore_length.min(spec.input_token_ids.len());
        let times = tokens[overlooked..].iter().filter(|seen| is_it(seen)).count();
        if times > 0 {
            *z -= f64::from(config.presence_penalty) + times as f64 * f64::from(config.frequency_penalty);
        }
    }
    let unbanned = z.clone();
    let n = config.no_repeat_ngram_size;
    for (token, z) in z.iter_mut().enumerate() {
        let next = [tokens, &[token as TokenId]].concat();
        let too_short = tokens.len() - spec.input_token_ids.len() < config.min_tokens;
        let ends_early = too_short && spec.end_ids.contains(&(token as TokenId));
        let is_bad = spec.bad_words.iter().any(|word| next.ends_with(word));
        let repeats = n > 0 && next.len() > n && tokens.windows(n).any(|old| next.ends_with(old));
        if ends_early || is_bad || repeats {
            *z = f64::NEG_INFINITY;
        }
    }
    if z.iter().all(|&z| z == f64::NEG_INFINITY) { unbanned } else { z }
}

/// What top-k, top-p and min-p leave of processed logits.
pub(super) fn filtered(spec: &RequestSpec, z: &[f64]) -> Distribution {
    let config = &spec.sampling;
    let best = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut kept: Vec<(TokenId, f64)> = z.iter().zip(0..).map(|(z, token)| (token, (z - best).exp())).collect();
    kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut margin = f64::INFINITY;
    // Equal logits are equal in f32 too, and then ids decide; only what is nearly equal is unsure.
    let mut between = |a: f64, b: f64| {
        if a != b {
            margin = margin.min((a - b).abs() / a.abs().max(b.abs()));
        }
    };
    if (1..kept.len()).contains(&config.top_k) {
        between(kept[config.top_k - 1].1, kept[config.top_k].1);
        kept.truncate(config.top_k);
    }
    if config.top_p < 1.0 {
        let enough = f64::from(config.top_p) * kept.iter().map(|(_, weight)| weight).sum::<f64>();
        let mut sum = 0.0;
        let mut last = kept.len() - 1;
        for (place, (_, weight)) in kept.iter().enumerate() {
            // An exact tie is unsure as well: the two sums are rounded differently.
            margin = margin.min((sum - enough).abs() / enough).min((sum + weight - enough).abs() / enough);
            sum += weight;
            if sum >= enough {
                last = place;
                break;
            }
        }
        if let Some(next) = kept.get(last + 1) {
            let (a, b) = (kept[last].1, next.1);
            margin = if a == b { margin } else { margin.min((a - b).abs() / a) };
        }
        kept.truncate(last + 1);
    }
    let min_p = f64::from(config.min_p);
    if min_p > 0.0 {
        margin = kept.iter().fold(margin, |margin, (_, weight)| {
            // The best weighs 1, exactly.
            if *weight == 1.0 { margin } else { margin.min((weight - min_p).abs() / min_p) }
        });
        kept.retain(|&(_, weight)| weight >= min_p);
    }
    kept.retain(|&(_, weight)| weight > 0.0);
    let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    kept.iter_mut().for_each(|(_, weight)| *weight /= total);
    kept.sort_by_key(|&(token, _)| token);
    Distribution { kept, margin }
}
