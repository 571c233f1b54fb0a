//! Where a server is, and the key that it wants.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use ureq::http::Uri;

/// The variable that OpenAI's clients read, too.
pub(super) const KEY_VARIABLE: &str = "OPENAI_API_KEY";

/// The URL below which OpenAI's routes are; it ends in `/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Address(String);

impl FromStr for Address {
    type Err = String;

    /// Takes `http://host:port`, with or without `/v1`.
    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| format!("`{text}` is no URL; give http://HOST:PORT"))?;
        let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
        let scheme = scheme.ok_or_else(|| format!("`{text}` begins with neither http:// nor https://"))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err("the URL holds a user's name or key; give a key by --api-key-file or OPENAI_API_KEY".to_owned());
        }
        if let Some(query) = uri.query() {
            return Err(format!("the URL ends in `?{query}`; give the server's address alone"));
        }
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/v1").unwrap_or(path);
        Ok(Self(format!("{scheme}://{authority}{path}/v1")))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of the file, or else of the variable; none where there is neither.
pub(super) fn key(file: Option<&Path>) -> Result<Option<String>> {
    let (key, origin) = match file {
        Some(path) => {
            let key = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            (key, format!("`{}`", path.display()))
        }
        None => match std::env::var(KEY_VARIABLE) {
            Ok(key) => (key, KEY_VARIABLE.to_owned()),
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => bail!("{KEY_VARIABLE} is not UTF-8 text"),
        },
    };
    let key = key.trim();
    if key.is_empty() && file.is_none() {
        return Ok(None);
    }
    ensure!(!key.is_empty(), "{origin} holds no key");
    ensure!(
        key.bytes().all(|byte| byte.is_ascii_graphic()),
        "{origin} holds more than a key of visible ASCII characters"
    );
    Ok(Some(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_end_in_v1() {
        for (typed, url) in [
            ("http://localhost:8000", "http://localhost:8000/v1"),
            ("http://localhost:8000/", "http://localhost:8000/v1"),
            ("http://localhost:8000/v1", "http://localhost:8000/v1"),
            ("https://[::1]:9/proxy/v1/", "https://[::1]:9/proxy/v1"),
            ("http://host/models/a", "http://host/models/a/v1"),
        ] {
            assert_eq!(typed.parse::<Address>().map(|address| address.to_string()), Ok(url.to_owned()));
        }
        for (wrong, part) in [
            ("localhost:8000", "neither http:// nor"),
            ("ftp://a", "neither http:// nor"),
            ("http://", "no URL"),
            ("http://key@host", "--api-key-file"),
            ("http://host/?key=1", "`?key=1`"),
        ] {
            let error = wrong.parse::<Address>().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_key_file_holds_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "k-1\n").unwrap();
        assert_eq!(key(Some(&path)).unwrap().as_deref(), Some("k-1"));
        for wrong in ["", " \n", "one\ntwo\n", "kä"] {
            fs::write(&path, wrong).unwrap();
            let error = key(Some(&path)).unwrap_err().to_string();
            assert!(error.contains("/key` holds"), "{error}");
        }
        assert!(key(Some(&dir.path().join("none"))).unwrap_err().to_string().contains("cannot read"));
    }
}
