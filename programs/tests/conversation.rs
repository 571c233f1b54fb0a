//! `run-engine --chat` on a terminal, which is a pseudo-terminal here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a conversation that goes wrong is a test that fails"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";

/// The bundled model's engine.
fn engine() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (model, path) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo-model"), dir.path().join("engine"));
    let mut build = Command::new(env!("CARGO_BIN_EXE_build-engine"));
    build.args(["--gpu", "none", "--quiet", "--model"]).arg(model).arg("--output").arg(&path);
    assert!(build.status().unwrap().success());
    (dir, path)
}

/// The answer to `messages` in a run of its own.
fn answer(engine: &Path, messages: &Value, arguments: &[&str]) -> String {
    let mut run = Command::new(env!("CARGO_BIN_EXE_run-engine"));
    run.arg("--engine").arg(engine).args(["--chat", "--quiet", "--format", "json", "--prompt", &messages.to_string()]);
    let output = run.args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    line["text"].as_str().unwrap().trim_start().to_owned()
}

/// A pseudo-terminal: the side of the keyboard and the screen, and the program's.
fn terminal() -> (File, OwnedFd) {
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&user).unwrap();
    unlockpt(&user).unwrap();
    let size = Winsize { ws_row: 50, ws_col: 1000, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&user, size).unwrap();
    let name = ptsname(&user, Vec::new()).unwrap();
    let program = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (user.into(), program.into())
}

/// The program on a terminal.
struct Talk {
    child: Child,
    keyboard: File,
    screen: Receiver<String>,
    /// The terminal's other side, for its settings.
    terminal: OwnedFd,
    /// All that came, and how much of it, without what moves the cursor, was waited for.
    raw: String,
    waited_for: usize,
}

/// Text without escape sequences and carriage returns.
fn plain(raw: &str) -> String {
    let mut parts = raw.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    // A sequence ends with a letter; one that is not complete is nothing yet.
    let rest = parts.filter_map(|part| Some(&part[part.find(|c: char| c.is_ascii_alphabetic())? + 1..]));
    (first + &rest.collect::<String>()).replace('\r', "")
}

impl Talk {
    fn start(engine: &Path, arguments: &[&str]) -> Self {
        let (keyboard, terminal) = terminal();
        let side = || terminal.try_clone().unwrap();
        let mut run = Command::new(env!("CARGO_BIN_EXE_run-engine"));
        run.arg("--engine").arg(engine).arg("--chat").args(arguments).env("TERM", "xterm");
        let child = run.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let (sender, screen) = mpsc::channel();
        let mut output = keyboard.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Ends with an error when the other side is closed.
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(String::from_utf8_lossy(&buffer[..count]).into_owned()).is_err() {
                    return;
                }
            }
        });
        let mut talk = Self { child, keyboard, screen, terminal, raw: String::new(), waited_for: 0 };
        talk.expect("> ");
        talk
    }

    fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` is on the screen, after what was waited for before; what came up to its end.
    fn expect(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let plain = plain(&self.raw);
            let seen = &plain[self.waited_for..];
            if let Some(found) = seen.find(text) {
                self.waited_for += found + text.len();
                return seen[..found + text.len()].to_owned();
            }
            match self.screen.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(more) => self.raw.push_str(&more),
                Err(error) => panic!("{error}: no {text:?} in {seen:?}"),
            }
        }
    }

    /// Types a message; what is on the screen until the next is asked for.
    fn say(&mut self, message: &str) -> String {
        self.keys(&format!("{message}\r"));
        self.expect("\n");
        // The line editor draws the prompt when it is ready for keys.
        self.expect("\n> ")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ends_with(&mut self, code: i32) {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(code), "{:?}", self.raw);
                // Whatever the line editor did to the terminal is undone.
                let flags = tcgetattr(&self.terminal).unwrap().local_modes;
                assert!(flags.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{flags:?}");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().unwrap();
        panic!("the program did not end: {:?}", self.raw);
    }
}

#[test]
fn a_conversation_has_a_history() {
    let (_dir, engine) = engine();
    let limit = ["--max-new-tokens", "40"];
    let mut talk = Talk::start(&engine, &limit);
    // Nothing is no message.
    talk.keys("\r");
    talk.expect("\n");
    talk.expect("> ");
    talk.keys("   \r");
    talk.expect("\n");
    talk.expect("> ");
    let mut messages = vec![];
    for question in ["Which planet is the largest?", "And how many moons does Mars have?"] {
        messages.push(json!({"role": "user", "content": question}));
        let expected = answer(&engine, &json!(messages), &limit);
        assert!(talk.say(question).contains(&expected), "no {expected:?}");
        messages.push(json!({"role": "assistant", "content": expected}));
    }
    // A new conversation knows nothing of it.
    talk.keys("/new\r");
    talk.expect("\n");
    talk.expect("> ");
    let first = answer(&engine, &json!([messages[0]]), &limit);
    assert!(talk.say("Which planet is the largest?").contains(&first));
    talk.keys(CTRL_C);
    talk.expect("Ctrl-D ends the conversation.");
    talk.expect("> ");
    talk.keys(CTRL_D);
    talk.ends_with(0);
}

#[test]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let (_dir, engine) = engine();
    let mut talk = Talk::start(&engine, &["--ignore-eos", "--threads", "1"]);
    talk.keys("Tell me about Mars.\r");
    talk.expect("\n");
    // The answer has begun. It would fill the context.
    talk.expect(" ");
    talk.signal(Signal::INT);
    let rest = talk.expect("\n> ");
    assert!(!rest.contains("cut off"), "the answer went on to its end: {rest:?}");
    talk.keys("And of Venus?\r");
    talk.expect("\n");
    talk.expect(" ");
    // Another signal ends the program, whatever it does.
    talk.signal(Signal::TERM);
    talk.ends_with(130);

    let mut talk = Talk::start(&engine, &[]);
    talk.signal(Signal::TERM);
    talk.ends_with(130);
}

#[test]
fn a_full_context_is_said_with_what_to_do() {
    let (_dir, engine) = engine();
    let mut talk = Talk::start(&engine, &["--max-seq-len", "64"]);
    let long = "Mars is a planet. ".repeat(20);
    let screen = talk.say(long.trim());
    assert!(screen.contains("the context is full: max_seq_len is 64") && screen.contains("/new"), "{screen}");
    // The message that did not fit is forgotten.
    let screen = talk.say("What is Mars?");
    let expected = answer(&engine, &json!([{"role": "user", "content": "What is Mars?"}]), &["--max-length", "64"]);
    assert!(screen.contains(expected.trim_end()) && !screen.contains("error"), "{screen}");
    talk.keys(CTRL_D);
    talk.ends_with(0);
}

#[test]
fn what_a_conversation_cannot_be_is_refused() {
    let (_dir, engine) = engine();
    let (_keyboard, terminal) = terminal();
    for (arguments, part) in
        [(&["--format", "json"][..], "--format json"), (&["--n", "2"], "--n"), (&["--beam-width", "2"], "--beam-width")]
    {
        let mut run = Command::new(env!("CARGO_BIN_EXE_run-engine"));
        run.arg("--engine").arg(&engine).arg("--chat").args(arguments);
        let output = run.stdin(terminal.try_clone().unwrap()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(2) && stderr.contains("a conversation") && stderr.contains(part),
            "{stderr}"
        );
    }
}
