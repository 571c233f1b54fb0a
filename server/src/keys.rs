//! API keys: compared as hashes, in a time that does not depend on what was presented.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use subtle::ConstantTimeEq;

/// The variable that keys may be in, separated by commas.
pub const VARIABLE: &str = "SERVE_API_KEYS";

/// A key.
#[derive(Debug)]
pub struct Key {
    /// What it is called in logs.
    pub name: String,
    hash: [u8; 32],
    /// Requests with it that are under way.
    active: AtomicUsize,
}

impl Key {
    fn new(name: &str, secret: &str) -> Self {
        Self { name: name.to_owned(), hash: *blake3::hash(secret.as_bytes()).as_bytes(), active: AtomicUsize::new(0) }
    }

    /// A place among the `limit` requests that the key may have at once; 0 for no limit.
    pub fn enter(self: &Arc<Self>, limit: usize) -> Option<KeyPlace> {
        let active = self.active.fetch_add(1, Ordering::Relaxed);
        let place = KeyPlace(self.clone());
        (limit == 0 || active < limit).then_some(place)
    }

    /// A salt of prefixes that nobody with another key can have.
    pub fn salt(&self, asked: &str) -> u64 {
        salt(&self.hash, asked)
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
    keys: RwLock<Vec<Arc<Key>>>,
}

impl Keys {
    /// Those of a file, and those of [`VARIABLE`], as they were given.
    ///
    /// # Errors
    /// The file cannot be read, or one of them is not `NAME:KEY`.
    pub fn open(file: &str, variable: Option<String>) -> Result<Self, String> {
        let keys = Self {
            file: (!file.is_empty()).then(|| PathBuf::from(file)),
            variable: variable.filter(|keys| !keys.is_empty()),
            keys: RwLock::default(),
        };
        keys.reload()?;
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
                    read.push(parse(line).ok_or_else(|| bad_line(path, number))?);
                }
            }
        }
        for entry in self.variable.iter().flat_map(|keys| keys.split(',')) {
            read.push(parse(entry.trim()).ok_or_else(|| format!("{VARIABLE} must have NAME:KEY between commas"))?);
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

fn parse(entry: &str) -> Option<Arc<Key>> {
    let (name, secret) = entry.split_once(':')?;
    (!name.is_empty() && !secret.is_empty()).then(|| Arc::new(Key::new(name, secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_file_and_variable_and_can_be_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        std::fs::write(&file, "# ours\nann:secret:with:colons\n\nbob:hunter2\n").unwrap();
        let keys = Keys::open(file.to_str().unwrap(), Some("eve:x".to_owned())).unwrap();
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
        assert!(keys.find("hunter2").unwrap().enter(1).is_none(), "its place is taken");
        drop(place);
        assert!(keys.find("hunter2").unwrap().enter(1).is_some());
        for wrong in ["", "# none\n", "bob\n", "bob:\n"] {
            std::fs::write(&file, wrong).unwrap();
            let keys = Keys::open(file.to_str().unwrap(), None);
            assert!(keys.is_err(), "{wrong:?}");
        }
        assert!(!Keys::open("", None).unwrap().are_needed());
    }

    #[test]
    fn salts_of_keys_differ_whatever_is_asked_for() {
        let (one, other) = (Key::new("one", "a"), Key::new("other", "b"));
        assert_eq!(one.salt("x"), one.salt("x"));
        assert_ne!(one.salt("x"), other.salt("x"));
        assert_ne!(one.salt(""), other.salt(""));
        assert_ne!(one.salt("x"), one.salt("y"));
    }
}
