//! API keys: compared as hashes, in a time that does not depend on what was presented.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use http::StatusCode;
use subtle::ConstantTimeEq;

use crate::error::ApiError;
use crate::rates::{Bucket, KeyLimits};

/// The variable that keys may be in, separated by commas.
pub const VARIABLE: &str = "SERVE_API_KEYS";

/// A key.
#[derive(Debug)]
pub struct Key {
    /// What it is called in logs.
    pub name: String,
    hash: [u8; 32],
    limits: KeyLimits,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    /// Requests with it that are under way.
    active: AtomicUsize,
}

impl Key {
    fn new(name: &str, secret: &str, limits: KeyLimits) -> Self {
        let now = Instant::now();
        let bucket = |per_minute: Option<u32>| per_minute.map(|per_minute| Bucket::new(per_minute, now));
        Self {
            name: name.to_owned(),
            hash: *blake3::hash(secret.as_bytes()).as_bytes(),
            limits,
            requests: bucket(limits.requests_per_minute),
            tokens: bucket(limits.tokens_per_minute),
            active: AtomicUsize::new(0),
        }
    }

    /// A place for a request, among those at once (`limit` where the key has no limit of its own; 0 for none) and those of a minute.
    ///
    /// # Errors
    /// There is none.
    pub fn enter(self: &Arc<Self>, limit: usize) -> Result<KeyPlace, ApiError> {
        let limit = self.limits.max_requests.unwrap_or(limit);
        let active = self.active.fetch_add(1, Ordering::Relaxed);
        let place = KeyPlace(self.clone());
        if limit > 0 && active >= limit {
            let own = if self.limits.max_requests.is_some() { "max_requests" } else { "max_requests_per_key" };
            let message = format!("the API key has {limit} requests under way already ({own})");
            return Err(refused("too_many_requests", message, Duration::ZERO));
        }
        take(&self.requests, 1, "requests")?;
        Ok(place)
    }

    /// Takes a request's tokens, at most as many as it may come to, from those of a minute.
    ///
    /// # Errors
    /// There are not so many.
    pub fn charge(self: &Arc<Self>, tokens: usize) -> Result<Charged, ApiError> {
        take(&self.tokens, tokens, "tokens")?;
        Ok(Charged { key: self.clone(), tokens })
    }

    /// The priority of a request that asks for one, or does not.
    ///
    /// # Errors
    /// It asks for a higher one than the key may have.
    pub fn priority(&self, asked: Option<f32>, default: f32) -> Result<f32, ApiError> {
        let Some(most) = self.limits.max_priority else { return Ok(asked.unwrap_or(default)) };
        match asked.filter(|&asked| f64::from(asked) > most) {
            Some(asked) => {
                Err(ApiError::invalid("priority", format!("{asked} is above the API key's {most} (max_priority)")))
            }
            None => Ok(asked.unwrap_or(default).min(most as f32)),
        }
    }

    /// What the key has left of its minute, as headers.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let now = Instant::now();
        let mut headers = Vec::new();
        let requests = ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
        let tokens = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
        for (bucket, [limit, remaining, reset]) in [(&self.requests, requests), (&self.tokens, tokens)] {
            let Some(level) = bucket.as_ref().map(|bucket| bucket.level(now)) else { continue };
            headers.push((limit, level.limit.to_string()));
            headers.push((remaining, level.remaining.to_string()));
            headers.push((reset, format!("{}s", level.reset.as_secs_f64().ceil())));
        }
        headers
    }

    /// A salt of prefixes that nobody with another key can have.
    pub fn salt(&self, asked: &str) -> u64 {
        salt(&self.hash, asked)
    }
}

fn take(bucket: &Option<Bucket>, amount: usize, what: &str) -> Result<(), ApiError> {
    let Some(bucket) = bucket else { return Ok(()) };
    let now = Instant::now();
    bucket.take(amount, now).map_err(|wait| {
        let level = bucket.level(now);
        let message = format!(
            "the API key has {} of its {} {what} of a minute left, and this needs {amount} ({what}_per_minute)",
            level.remaining, level.limit
        );
        refused("rate_limited", message, wait)
    })
}

fn refused(code: &'static str, message: String, wait: Duration) -> ApiError {
    let error = ApiError::of(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", code, message);
    ApiError { retry_after: Some((wait.as_secs_f64().ceil() as u64).max(1)), ..error }
}

/// Tokens that were taken from those of a key's minute.
#[derive(Debug)]
pub struct Charged {
    key: Arc<Key>,
    tokens: usize,
}

impl Charged {
    /// Gives back what was not used.
    pub fn settle(self, used: usize) {
        if let Some(bucket) = &self.key.tokens {
            bucket.give_back(self.tokens.saturating_sub(used), Instant::now());
        }
    }
}

/// A salt for those who have no key.
pub fn salt(of: &[u8; 32], asked: &str) -> u64 {
    let hash = blake3::keyed_hash(of, asked.as_bytes());
    let bytes = hash.as_bytes();
    u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// One of the requests that a key has under way.
#[derive(Debug)]
pub struct KeyPlace(Arc<Key>);

impl Drop for KeyPlace {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The keys that are accepted.
#[derive(Debug, Default)]
pub struct Keys {
    file: Option<PathBuf>,
    variable: Option<String>,
    limits: BTreeMap<String, KeyLimits>,
    keys: RwLock<Vec<Arc<Key>>>,
}

impl Keys {
    /// Those of a file, and those of [`VARIABLE`], as they were given, with limits by their names.
    ///
    /// # Errors
    /// The file cannot be read, one of them is not `NAME:KEY`, or there are limits for none of them.
    pub fn open(file: &str, variable: Option<String>, limits: &BTreeMap<String, KeyLimits>) -> Result<Self, String> {
        let keys = Self {
            file: (!file.is_empty()).then(|| PathBuf::from(file)),
            variable: variable.filter(|keys| !keys.is_empty()),
            limits: limits.clone(),
            keys: RwLock::default(),
        };
        keys.reload()?;
        let known = keys.keys.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = limits.keys().find(|name| !known.iter().any(|key| key.name == **name)) {
            return Err(format!("[server.keys.{name}] is for an API key that is not there"));
        }
        drop(known);
        Ok(keys)
    }

    /// Reads the file again: how many there are now. On an error those that were there stay.
    ///
    /// # Errors
    /// As [`Keys::open`].
    pub fn reload(&self) -> Result<usize, String> {
        let mut read = Vec::new();
        if let Some(path) = &self.file {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
            for (line, number) in text.lines().zip(1..) {
                let line = line.trim();
                if !line.is_empty() && !line.starts_with('#') {
                    read.push(self.parse(line).ok_or_else(|| bad_line(path, number))?);
                }
            }
        }
        for entry in self.variable.iter().flat_map(|keys| keys.split(',')) {
            read.push(self.parse(entry.trim()).ok_or_else(|| format!("{VARIABLE} must have NAME:KEY between commas"))?);
        }
        let count = read.len();
        if count == 0 && (self.file.is_some() || self.variable.is_some()) {
            return Err("there is no API key where keys were to be: everybody would be let in".to_owned());
        }
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        // A key that stays keeps its count.
        for key in &mut read {
            if let Some(known) = keys.iter().find(|known| known.hash == key.hash && known.name == key.name) {
                *key = known.clone();
            }
        }
        *keys = read;
        Ok(count)
    }

    fn parse(&self, entry: &str) -> Option<Arc<Key>> {
        let (name, secret) = entry.split_once(':')?;
        let limits = self.limits.get(name).copied().unwrap_or_default();
        (!name.is_empty() && !secret.is_empty()).then(|| Arc::new(Key::new(name, secret, limits)))
    }

    /// Whether keys are asked for.
    pub fn are_needed(&self) -> bool {
        !self.keys.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The key that was presented, if it is one. Every key is compared, whichever it is.
    pub fn find(&self, presented: &str) -> Option<Arc<Key>> {
        let hash = blake3::hash(presented.as_bytes());
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        for key in keys.iter() {
            if bool::from(key.hash.ct_eq(hash.as_bytes())) {
                found = Some(key.clone());
            }
        }
        found
    }
}

fn bad_line(path: &Path, number: usize) -> String {
    format!("`{}`: line {number} must be NAME:KEY", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_file_and_variable_and_can_be_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        std::fs::write(&file, "# ours\nann:secret:with:colons\n\nbob:hunter2\n").unwrap();
        let keys = Keys::open(file.to_str().unwrap(), Some("eve:x".to_owned()), &BTreeMap::new()).unwrap();
        assert!(keys.are_needed());
        assert_eq!(keys.find("secret:with:colons").unwrap().name, "ann");
        assert_eq!(keys.find("x").unwrap().name, "eve");
        for wrong in ["", "HUNTER2", "hunter", "hunter22", "bob:hunter2"] {
            assert!(keys.find(wrong).is_none(), "{wrong}");
        }
        let bob = keys.find("hunter2").unwrap();
        let place = bob.enter(1).unwrap();
        std::fs::write(&file, "bob:hunter2\n").unwrap();
        assert_eq!(keys.reload(), Ok(2));
        assert!(keys.find("secret:with:colons").is_none());
        assert!(keys.find("hunter2").unwrap().enter(1).is_err(), "its place is taken");
        drop(place);
        assert!(keys.find("hunter2").unwrap().enter(1).is_ok());
        for wrong in ["", "# none\n", "bob\n", "bob:\n"] {
            std::fs::write(&file, wrong).unwrap();
            let keys = Keys::open(file.to_str().unwrap(), None, &BTreeMap::new());
            assert!(keys.is_err(), "{wrong:?}");
        }
        assert!(!Keys::open("", None, &BTreeMap::new()).unwrap().are_needed());
        let limits = BTreeMap::from([("bob".to_owned(), KeyLimits::default())]);
        let problem = Keys::open("", Some("ann:x".to_owned()), &limits).unwrap_err();
        assert_eq!(problem, "[server.keys.bob] is for an API key that is not there");
    }

    #[test]
    fn salts_of_keys_differ_whatever_is_asked_for() {
        let (one, other) = (Key::new("one", "a", KeyLimits::default()), Key::new("other", "b", KeyLimits::default()));
        assert_eq!(one.salt("x"), one.salt("x"));
        assert_ne!(one.salt("x"), other.salt("x"));
        assert_ne!(one.salt(""), other.salt(""));
        assert_ne!(one.salt("x"), one.salt("y"));
    }
}
