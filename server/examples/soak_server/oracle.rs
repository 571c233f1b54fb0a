//! What is asked while everything goes wrong, and what the answers must be. The server is asked once for each when nothing else runs.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::{Value as Json, json};

use super::client::{Client, completion, events};
use super::script::{Random, Script};

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct Known {
    pub body: Json,
    choices: Vec<Choice>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Choice {
    text: String,
    ids: Vec<u64>,
    finish_reason: Option<String>,
}

/// All of them.
#[derive(Debug, Clone)]
pub struct Oracle(Vec<Known>);

impl Oracle {
    /// Asks a server that does nothing else. `script` is what a stand-in must say.
    pub async fn learn(address: SocketAddr, longest: usize, script: Option<&Script>) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        let mut client = Client::connect(address).await?;
        for number in 0..24 {
            let max_tokens = [1, 7, 40, longest][number % 4];
            let prompt = match number % 3 {
                0 => json!([5, number + 10]),
                1 => json!([[6, number + 10], [7, number + 40]]),
                _ => json!("Our solar system is"),
            };
            let n = if number % 5 == 0 { 2 } else { 1 };
            let body = json!({
                "prompt": prompt, "max_tokens": max_tokens, "n": n, "seed": number, "temperature": 0.9,
                "ignore_eos": true, "return_token_ids": true,
            });
            let reply = client.ask(&completion(&body)).await?;
            ensure!(reply.status == 200, "{reply:?}");
            let known = Known { choices: choices(&reply.json()?)?, body };
            if let Some(script) = script {
                known.check_script(script, n)?;
            }
            all.push(known);
        }
        Ok(Self(all))
    }

    /// One of them.
    pub fn any(&self, random: &mut Random) -> &Known {
        &self.0[random.below(self.0.len() as u64) as usize]
    }

    /// One that is long.
    pub fn long(&self, random: &mut Random) -> &Known {
        &self.0[3 + 4 * random.below(self.0.len() as u64 / 4) as usize]
    }
}

fn choices(answer: &Json) -> anyhow::Result<Vec<Choice>> {
    let list = answer["choices"].as_array().with_context(|| answer.to_string())?;
    let mut choices = vec![Choice::default(); list.len()];
    for of in list {
        let index = of["index"].as_u64().context("a choice has an index")? as usize;
        let choice = choices.get_mut(index).with_context(|| format!("there is no choice {index}"))?;
        choice.add(of);
    }
    Ok(choices)
}

impl Choice {
    /// Takes in a choice of an answer or of a chunk.
    fn add(&mut self, of: &Json) {
        self.text += of["text"].as_str().unwrap_or_default();
        self.ids.extend(of["token_ids"].as_array().into_iter().flatten().filter_map(Json::as_u64));
        if let Some(reason) = of["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
    }
}

impl Known {
    /// The same, streamed.
    pub fn streamed(&self) -> Vec<u8> {
        let mut body = self.body.clone();
        body["stream"] = json!(true);
        completion(&body)
    }

    pub fn request(&self) -> Vec<u8> {
        completion(&self.body)
    }

    fn check_script(&self, script: &Script, n: usize) -> anyhow::Result<()> {
        let prompts: Vec<u64> = match &self.body["prompt"] {
            Json::Array(list) if list[0].is_u64() => list[1].as_u64().into_iter().collect(),
            Json::Array(lists) => lists.iter().filter_map(|list| list[1].as_u64()).collect(),
            _ => return Ok(()),
        };
        for (index, choice) in self.choices.iter().enumerate() {
            let said = (0..choice.ids.len()).map(|place| script.token(prompts[index / n] as u32, index % n, place));
            ensure!(choice.ids.iter().copied().eq(said.map(u64::from)), "the stand-in does not say its script");
        }
        Ok(())
    }

    /// Checks an answer that was not streamed.
    pub fn check(&self, answer: &Json) -> anyhow::Result<()> {
        let found = choices(answer)?;
        ensure!(found == self.choices, "{found:?}\ninstead of {:?}", self.choices);
        Ok(())
    }
}

/// What was heard of a stream.
#[derive(Debug, Default)]
pub struct Heard {
    rest: Vec<u8>,
    choices: Vec<Choice>,
    pub is_done: bool,
    /// The code of the error that ended it.
    pub error: Option<String>,
}

impl Heard {
    /// Takes in bytes of the body.
    pub fn hear(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let (events, used) = events(&rest);
        for event in events {
            ensure!(!self.is_done, "{event:?} after [DONE]");
            match event.strip_prefix("data: ") {
                None => ensure!(event == ": keep-alive", "{event:?}"),
                Some("[DONE]") => self.is_done = true,
                Some(data) => self.event(&serde_json::from_str(data).with_context(|| data.to_owned())?)?,
            }
        }
        self.rest = rest[used..].to_vec();
        Ok(())
    }

    fn event(&mut self, event: &Json) -> anyhow::Result<()> {
        if let Some(code) = event["error"]["code"].as_str() {
            self.error = Some(code.to_owned());
            return Ok(());
        }
        for of in event["choices"].as_array().with_context(|| event.to_string())? {
            let index = of["index"].as_u64().context("a choice has an index")? as usize;
            if self.choices.len() <= index {
                self.choices.resize(index + 1, Choice::default());
            }
            ensure!(self.choices[index].finish_reason.is_none(), "{event} after the choice's end");
            self.choices[index].add(of);
        }
        Ok(())
    }

    /// Checks what was heard: all of the answer, or its beginning.
    pub fn check(&self, known: &Known) -> anyhow::Result<()> {
        if self.is_done && self.error.is_none() {
            ensure!(self.choices == known.choices, "{:?}\ninstead of {:?}", self.choices, known.choices);
            return Ok(());
        }
        for (heard, whole) in self.choices.iter().zip(&known.choices) {
            let begins = whole.text.starts_with(&heard.text) && whole.ids.starts_with(&heard.ids);
            ensure!(begins, "{heard:?}\nis not the beginning of {whole:?}");
        }
        Ok(())
    }
}
