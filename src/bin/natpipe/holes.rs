//! Waits: two ends of a lab that punch a hole each for itself, without peers and sessions: what `natpipe lab --punch` shows.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use natpipe::lab::Host;
use natpipe::nat::Proto as Over;
use natpipe::punch::{Channel, Plan, PunchError, Puncher};
use natpipe::{Family, Interface, NetConf};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

use crate::world::World;

/// Messages of a channel that are under way.
const UNDER_WAY: usize = 64;

/// How long a hole may be silent that has just been opened.
const SILENT: Duration = Duration::from_secs(10);

/// Words that are said last: some may be lost.
const PARTING: u32 = 6;

/// What came of one end.
pub struct Story {
    /// From the start, and from the agreed instant.
    pub total: Duration,
    pub took: Duration,
    pub attempts: u32,
    pub plan: Plan,
}

/// A channel that is as slow as a third party in the middle would make it.
struct Wire {
    delay: Duration,
    to: mpsc::Sender<(Instant, Bytes)>,
    from: mpsc::Receiver<(Instant, Bytes)>,
    next: Option<(Instant, Bytes)>,
}

impl Wire {
    fn pair(delay: Duration) -> [Self; 2] {
        let ((a, to_a), (b, to_b)) = (mpsc::channel(UNDER_WAY), mpsc::channel(UNDER_WAY));
        [Self { delay, to: b, from: to_a, next: None }, Self { delay, to: a, from: to_b, next: None }]
    }
}

impl Channel for Wire {
    async fn send(&mut self, message: Bytes) -> io::Result<()> {
        self.to.send((Instant::now() + self.delay, message)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn recv(&mut self) -> io::Result<Bytes> {
        if self.next.is_none() {
            self.next = self.from.recv().await;
        }
        let (due, _) = self.next.as_ref().ok_or(io::ErrorKind::UnexpectedEof)?;
        sleep_until((*due).into()).await;
        self.next.take().map(|(_, message)| message).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl World {
    /// Punches at both hosts, and moves a message each way through the hole.
    ///
    /// # Errors
    /// When a host or a runtime fails; what the punch came to is inside.
    pub fn punch(&self, over: Over, hosts: [&Host; 2], all_out: bool) -> Result<[Result<Story, PunchError>; 2]> {
        let wires = Wire::pair(self.delay() * 2);
        std::thread::scope(|scope| {
            let mut ends = Vec::new();
            for (host, mut wire) in hosts.into_iter().zip(wires) {
                let stun = self.stun_servers();
                ends.push(scope.spawn(move || {
                    host.block_on(async {
                        let routes = Interface::list()?.into_iter().filter_map(|i| i.route(Family::V4).ok());
                        let routes = routes.filter(|route| !route.nic().iter().any(std::net::IpAddr::is_loopback));
                        let puncher = stun.into_iter().fold(Puncher::new().all_out(all_out), Puncher::stun);
                        let puncher = routes.fold(puncher, |puncher, route| puncher.route(&route));
                        let punched = match puncher.punch(over, &mut wire).await {
                            Ok(punched) => punched,
                            Err(error) => return Ok(Err(error)),
                        };
                        let (total, took, attempts) = (punched.total, punched.took, punched.attempts);
                        let plan = punched.plan.clone();
                        greet(punched).await?;
                        anyhow::Ok(Ok(Story { total, took, attempts, plan }))
                    })?
                }));
            }
            let mut ended = ends.into_iter().map(|end| end.join().map_err(|_| anyhow!("an end fell over"))?);
            match (ended.next(), ended.next()) {
                (Some(one), Some(other)) => Ok([one?, other?]),
                _ => Err(anyhow!("an end is missing")),
            }
        })
    }
}

/// Each says a word through the pipe until it hears the other's; a datagram may be lost.
async fn greet(punched: natpipe::punch::Punched) -> Result<()> {
    const WORD: &str = "through";
    const BYE: &str = "bye";
    const PATIENCE: Duration = Duration::from_secs(1);
    let pipe = punched.into_pipe(NetConf::default()).await?;
    let heard = async {
        loop {
            // The other end may have heard us and left; what it said is still to be heard.
            let sent = pipe.send(WORD).await;
            if let Ok(message) = pipe.recv_within(Duration::from_millis(200)).await {
                let ours = [WORD, BYE].iter().any(|word| message.data.starts_with(word.as_bytes()));
                anyhow::ensure!(ours, "something else came through the hole");
                break;
            }
            sent?;
        }
        // Or it has heard nothing yet, and nobody answers when we have gone: both leave when both have said so.
        for _ in 0..PARTING {
            if pipe.send(BYE).await.is_err() {
                break;
            }
        }
        let parted = async {
            while let Ok(message) = pipe.recv_within(PATIENCE).await {
                if message.data.ends_with(BYE.as_bytes()) {
                    break;
                }
            }
        };
        // Who has left already has heard us.
        let _ = timeout(PATIENCE, parted).await;
        anyhow::Ok(())
    };
    timeout(SILENT, heard).await.map_err(|_| anyhow!("nothing came through the hole"))??;
    pipe.close().await;
    Ok(())
}
