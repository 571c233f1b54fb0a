//! A file of prompts, a line at a time.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};

use runner::generation_options::GenerationOptions;

use super::{Given, parse_line};

/// What some editors begin a text file with.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The prompts of a file.
pub(crate) struct PromptsFile {
    reader: Box<dyn BufRead + Send>,
    /// What it is called in messages.
    name: String,
    chat: bool,
    /// For what a line does not say.
    defaults: GenerationOptions,
    /// The line that was read last, from 1.
    line: usize,
    /// The next line that is not blank, where it was read already.
    next: Option<(usize, Vec<u8>)>,
    found: bool,
}

impl fmt::Debug for PromptsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PromptsFile").field("name", &self.name).field("line", &self.line).finish_non_exhaustive()
    }
}

impl PromptsFile {
    /// Opens a file, or with `-` standard input. A file without a prompt is noticed at once; standard input may still be empty
    /// now.
    pub(crate) fn open(path: &Path, chat: bool, defaults: &GenerationOptions) -> Result<Self> {
        let is_stdin = path == Path::new("-");
        let (reader, name): (Box<dyn BufRead + Send>, _) = if is_stdin {
            (Box::new(BufReader::new(io::stdin())), "standard input".to_owned())
        } else {
            let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            (Box::new(BufReader::new(file)), format!("`{}`", path.display()))
        };
        let defaults = defaults.clone();
        let mut file = Self { reader, name, chat, defaults, line: 0, next: None, found: false };
        if !is_stdin {
            file.next = file.read()?;
            ensure!(file.next.is_some(), "{} holds no prompt", file.name);
        }
        Ok(file)
    }

    /// The next line that is not blank, without its end.
    fn read(&mut self) -> Result<Option<(usize, Vec<u8>)>> {
        loop {
            let mut line = Vec::new();
            let read = self.reader.read_until(b'\n', &mut line);
            if read.with_context(|| format!("cannot read {}", self.name))? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if self.line == 1 && line.starts_with(BYTE_ORDER_MARK) {
                line.drain(..BYTE_ORDER_MARK.len());
            }
            if line.ends_with(b"\n") {
                line.pop();
                if line.ends_with(b"\r") {
                    line.pop();
                }
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some((self.line, line)));
            }
        }
    }

    fn given(&self, number: usize, line: &[u8]) -> Given {
        let line = std::str::from_utf8(line).map_err(|_| anyhow!("the line is not UTF-8 text"));
        Given {
            name: Some(format!("{}, line {number}", self.name)),
            prompt: line.and_then(|line| parse_line(line, self.chat, &self.defaults)),
        }
    }
}

impl Iterator for PromptsFile {
    type Item = Result<Given>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = match self.next.take() {
            Some(line) => Ok(Some(line)),
            None => self.read(),
        };
        match read {
            Ok(Some((number, line))) => {
                self.found = true;
                Some(Ok(self.given(number, &line)))
            }
            Ok(None) if self.found => None,
            // Said once.
            Ok(None) => {
                self.found = true;
                Some(Err(anyhow!("{} holds no prompt", self.name)))
            }
            Err(error) => Some(Err(error)),
        }
    }
}
