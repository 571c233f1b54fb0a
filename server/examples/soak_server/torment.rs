//! What clients do to a server. Whatever one does, what it is told must be right.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use super::client::{Client, Reply, request};
use super::oracle::{Heard, Known, Oracle};
use super::script::Random;

/// A server and what is known of it.
pub struct World {
    pub address: SocketAddr,
    pub oracle: Oracle,
    /// It has been told to end: it may refuse, and close what is idle.
    pub is_ending: AtomicBool,
    /// It has ended.
    is_over: AtomicBool,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

/// An answer that does not come in this time never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client does, with equal shares.
const DEEDS: [&str; 14] = [
    "streams",
    "asks",
    "streams and goes",
    "streams and resets",
    "asks and goes",
    "reads slowly",
    "stops reading",
    "writes bytes one at a time",
    "closes its half",
    "writes garbage",
    "writes nearly a request",
    "goes in the middle of a request",
    "pipelines",
    "probes",
];

impl World {
    pub fn new(address: SocketAddr, oracle: Oracle) -> Self {
        Self {
            address,
            oracle,
            is_ending: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            counts: Mutex::default(),
        }
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst)
    }

    /// Nobody need try any more.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    /// How often what came of it.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does one thing.
    pub async fn deed(&self, random: &mut Random) -> anyhow::Result<()> {
        let deed = DEEDS[random.below(DEEDS.len() as u64) as usize];
        self.count(deed);
        let done = timeout(PATIENCE, self.act(deed, random)).await;
        done.map_err(|_| anyhow::anyhow!("no end came"))?.with_context(|| format!("a client that {deed}"))
    }

    async fn act(&self, deed: &str, random: &mut Random) -> anyhow::Result<()> {
        let known = self.oracle.any(random);
        let Ok(mut client) = Client::connect(self.address).await else {
            ensure!(self.is_ending(), "no connection");
            sleep(Duration::from_millis(20)).await;
            return Ok(());
        };
        match deed {
            "streams" => self.stream(&mut client, known, u64::MAX).await,
            "asks" => self.several(&mut client, random).await,
            "streams and goes" => self.stream(&mut client, self.oracle.long(random), random.below(40)).await,
            "streams and resets" => {
                self.stream(&mut client, self.oracle.long(random), random.below(40)).await?;
                Ok(client.socket.set_zero_linger()?)
            }
            "asks and goes" => {
                let _ = client.send(&self.oracle.long(random).request()).await;
                pause(random, 20_000).await;
                Ok(())
            }
            "reads slowly" => self.read_slowly(random).await,
            "stops reading" => {
                let _ = client.send(&self.oracle.long(random).streamed()).await;
                pause(random, 500_000).await;
                Ok(())
            }
            "writes bytes one at a time" => {
                for byte in known.request() {
                    if client.send(&[byte]).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                self.answer(&mut client, known).await
            }
            "closes its half" => self.half_close(&mut client, known, random).await,
            "writes garbage" => {
                let length = 1 + random.below(3000);
                let garbage: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
                self.nonsense(&mut client, &garbage).await
            }
            "writes nearly a request" => {
                let mut bytes = known.request();
                for _ in 0..=random.below(4) {
                    let place = random.below(bytes.len() as u64) as usize;
                    bytes[place] = random.below(256) as u8;
                }
                self.nonsense(&mut client, &bytes).await
            }
            "goes in the middle of a request" => {
                let bytes = known.request();
                let _ = client.send(&bytes[..random.below(bytes.len() as u64) as usize]).await;
                pause(random, 10_000).await;
                Ok(())
            }
            "pipelines" => {
                let other = self.oracle.any(random);
                let _ = client.send(&[known.request(), other.request()].concat()).await;
                self.answer(&mut client, known).await?;
                self.answer(&mut client, other).await
            }
            _ => {
                let path = ["/health", "/live", "/metrics", "/v1/models"][random.below(4) as usize];
                match client.ask(&request("GET", path, "")).await {
                    Ok(reply) => ensure!(reply.status == 200 || self.is_ending(), "{reply:?}"),
                    Err(error) => ensure!(self.is_ending(), "{path}: {error}"),
                }
                Ok(())
            }
        }
    }

    /// Checks an answer that did not give what was asked for: there was no room, or the server ends.
    fn refused(&self, reply: &Reply) -> anyhow::Result<()> {
        let code = reply.code();
        let is_right = reply.status == 503 && (code == "queue_full" || code == "shutting_down" && self.is_ending());
        ensure!(is_right, "{}: {}", reply.status, String::from_utf8_lossy(&reply.body));
        self.count("refused");
        Ok(())
    }

    /// Reads an answer that is not streamed.
    async fn answer(&self, client: &mut Client, known: &Known) -> anyhow::Result<()> {
        match client.receive().await {
            Ok(reply) if reply.status == 200 => {
                self.count("answers checked");
                known.check(&reply.json()?)
            }
            Ok(reply) => self.refused(&reply),
            Err(error) => {
                ensure!(self.is_ending(), "{error}");
                Ok(())
            }
        }
    }

    async fn several(&self, client: &mut Client, random: &mut Random) -> anyhow::Result<()> {
        for _ in 0..=random.below(5) {
            let known = self.oracle.any(random);
            if client.send(&known.request()).await.is_err() {
                ensure!(self.is_ending(), "the connection has ended");
                return Ok(());
            }
            self.answer(client, known).await?;
        }
        Ok(())
    }

    /// Streams, and reads so many parts of the body at most.
    async fn stream(&self, client: &mut Client, known: &Known, parts: u64) -> anyhow::Result<()> {
        let sent = client.send(&known.streamed()).await;
        let head = client.head().await;
        let status = match (sent, head) {
            (Ok(()), Ok(status)) => status,
            _ => return self.ended("before a head"),
        };
        let (mut heard, mut part, mut body) = (Heard::default(), Vec::new(), Vec::new());
        for _ in 0..parts {
            match client.part(&mut part).await {
                Ok(true) if status == 200 => heard.hear(&part)?,
                Ok(true) => body.extend_from_slice(&part),
                Ok(false) => return self.whole(status, body, &heard, known),
                // A stream that has begun is told how it ends, also by a server that ends.
                Err(error) => anyhow::bail!("a stream was cut: {error}"),
            }
        }
        heard.check(known)
    }

    fn whole(&self, status: u16, body: Vec<u8>, heard: &Heard, known: &Known) -> anyhow::Result<()> {
        if status != 200 {
            return self.refused(&Reply { status, body });
        }
        ensure!(heard.is_done, "a stream ended without [DONE]");
        if let Some(code) = &heard.error {
            ensure!(code == "shutting_down" && self.is_ending(), "a stream failed: {code}");
            self.count("streams ended by the server's end");
        } else {
            self.count("whole streams checked");
        }
        heard.check(known)
    }

    fn ended(&self, when: &str) -> anyhow::Result<()> {
        ensure!(self.is_ending(), "the connection has ended {when}");
        Ok(())
    }

    async fn read_slowly(&self, random: &mut Random) -> anyhow::Result<()> {
        let known = self.oracle.long(random);
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let Ok(socket) = socket.connect(self.address).await else { return self.ended("before it was there") };
        let mut client = Client::of(socket);
        if client.send(&known.streamed()).await.is_err() {
            return self.ended("before a head");
        }
        let Ok(status) = client.head().await else { return self.ended("before a head") };
        let (mut heard, mut part, mut body) = (Heard::default(), Vec::new(), Vec::new());
        loop {
            pause(random, 5_000).await;
            match client.part(&mut part).await {
                Ok(true) if status == 200 => heard.hear(&part)?,
                Ok(true) => body.extend_from_slice(&part),
                Ok(false) => return self.whole(status, body, &heard, known),
                // One that is slow may not have heard all when the server's time is over.
                Err(_) => return self.ended("within a stream").and_then(|()| heard.check(known)),
            }
        }
    }

    /// Says that nothing more will come: the answer is whole or none.
    async fn half_close(&self, client: &mut Client, known: &Known, random: &mut Random) -> anyhow::Result<()> {
        let _ = client.send(&known.request()).await;
        pause(random, 2_000).await;
        let _ = client.socket.shutdown().await;
        match client.receive().await {
            Ok(reply) if reply.status == 200 => known.check(&reply.json()?),
            Ok(reply) => self.refused(&reply),
            Err(_) => Ok(()),
        }
    }

    /// Whatever this is, it is answered as a client's fault, as what it happens to be, or not at all.
    async fn nonsense(&self, client: &mut Client, bytes: &[u8]) -> anyhow::Result<()> {
        let _ = client.send(bytes).await;
        // It may wait for more.
        if let Ok(Ok(reply)) = timeout(Duration::from_millis(300), client.receive()).await {
            ensure!(reply.status != 500, "{}", String::from_utf8_lossy(&reply.body));
        }
        Ok(())
    }
}

/// Waits for up to so many microseconds.
async fn pause(random: &mut Random, most: u64) {
    sleep(Duration::from_micros(random.below(most))).await;
}
