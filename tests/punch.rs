//! A punch leaves nothing behind: no descriptor, no task, whichever way it ends. One process for this alone, since descriptors are
//! counted.

#![cfg(all(feature = "lab", target_os = "linux"))]

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use natpipe::lab::{Host, Internet, Kind, Link};
use natpipe::nat::Proto;
use natpipe::punch::{Channel, PunchError, Punched, Puncher};
use natpipe::stun::Server;
use natpipe::{Family, Interface, NetConf};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

natpipe::lab_tests!();

/// A channel between two runtimes of this process, without a socket.
struct Wire {
    to: mpsc::Sender<Bytes>,
    from: mpsc::Receiver<Bytes>,
}

fn wires() -> [Wire; 2] {
    let ((a, to_a), (b, to_b)) = (mpsc::channel(64), mpsc::channel(64));
    [Wire { to: b, from: to_a }, Wire { to: a, from: to_b }]
}

impl Channel for Wire {
    async fn send(&mut self, message: Bytes) -> io::Result<()> {
        self.to.send(message).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn recv(&mut self) -> io::Result<Bytes> {
        self.from.recv().await.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// One end: a host, with a runtime that outlives each punch.
struct End {
    host: Host,
    runtime: Runtime,
}

impl End {
    fn behind(internet: &Internet, kind: Kind) -> Self {
        let host = internet.behind(kind).unwrap();
        let runtime = host.runtime().unwrap();
        Self { host, runtime }
    }

    fn puncher(&self, stun: [SocketAddr; 2], limit: Duration) -> Puncher {
        let routes = self.host.run(Interface::list).unwrap().into_iter().filter_map(|i| i.route(Family::V4).ok());
        let routes = routes.filter(|route| !route.nic()[0].is_loopback());
        routes.fold(Puncher::new().stun(stun[0]).stun(stun[1]).limit(limit), |puncher, route| puncher.route(&route))
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Both ends punch; each is given up after its own time, if it is not done by then. A hole is used and closed.
fn punch(
    ends: [&End; 2],
    stun: [SocketAddr; 2],
    proto: Proto,
    limit: Duration,
    give_up: [Option<Duration>; 2],
) -> Vec<Result<Punched, PunchError>> {
    let wires = wires();
    std::thread::scope(|scope| {
        let ends: Vec<_> = ends
            .into_iter()
            .zip(wires)
            .zip(give_up)
            .map(|((end, mut wire), give_up)| {
                let puncher = end.puncher(stun, limit);
                scope.spawn(move || {
                    end.host.run(|| {
                        end.runtime.block_on(async {
                            let punching = puncher.punch(proto, &mut wire);
                            match give_up {
                                Some(after) => timeout(after, punching).await.ok(),
                                None => Some(punching.await),
                            }
                        })
                    })
                })
            })
            .collect();
        ends.into_iter().filter_map(|end| end.join().unwrap()).collect()
    })
}

/// What is there now must be what was there before, soon: a runtime closes what a cancelled task held when it next runs.
#[track_caller]
fn nothing_is_left(before: usize, ends: [&End; 2], what: &str) {
    let begun = Instant::now();
    loop {
        let (now, tasks) = (descriptors(), ends.map(|end| end.runtime.metrics().num_alive_tasks()));
        if now <= before && tasks == [0, 0] {
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{what}: {now} descriptors, {before} before; tasks {tasks:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn success_failure_and_cancellation_leave_no_socket_and_no_task() {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let servers = ["first", "second"].map(|name| {
        let host = internet.host(name).unwrap();
        let runtime = host.runtime().unwrap();
        let server = host.run(|| {
            let _inside = runtime.enter();
            Server::listen((host.v4().unwrap(), 3478).into()).tcp(true).start().unwrap()
        });
        (server, runtime, host)
    });
    let stun = [servers[0].0.addr(), servers[1].0.addr()];
    let [home, symmetric, blocked] =
        [Kind::Home, Kind::SymmetricRandom, Kind::TcpHostile].map(|kind| End::behind(&internet, kind));
    let hostile = End::behind(&internet, Kind::TcpHostile);
    let no_udp = End::behind(&internet, Kind::UdpBlocked);
    let never = [None, None];
    let long = Duration::from_secs(15);
    // The runtimes open what they need when they first run.
    for end in [&home, &symmetric, &blocked, &hostile, &no_udp] {
        end.host.run(|| end.runtime.block_on(tokio::task::yield_now()));
    }
    // Servers close what clients have left a little later.
    let before = descriptors();
    for proto in [Proto::Udp, Proto::Tcp] {
        // Many sockets, of which one is used.
        let holes = punch([&home, &symmetric], stun, proto, long, never);
        let [Ok(_), Ok(_)] = &holes[..] else { panic!("{holes:?}") };
        assert!(descriptors() > before, "two holes are open");
        drop(holes);
        nothing_is_left(before, [&home, &symmetric], "success");
        for ms in [1, 30, 90, 150, 260, 400] {
            let after = Duration::from_millis(ms);
            drop(punch([&home, &symmetric], stun, proto, long, [Some(after), Some(after)]));
            nothing_is_left(before, [&home, &symmetric], &format!("{proto}, both given up after {ms} ms"));
        }
        let given_up =
            punch([&home, &symmetric], stun, proto, Duration::from_secs(2), [None, Some(Duration::from_millis(100))]);
        drop(given_up);
        nothing_is_left(before, [&home, &symmetric], "one end given up, the other by its limit");
    }
    let failed = punch([&no_udp, &home], stun, Proto::Udp, Duration::from_secs(1), never);
    assert!(failed.iter().all(|end| matches!(end, Err(PunchError::Closed { .. }))), "{failed:?}");
    nothing_is_left(before, [&no_udp, &home], "failure over UDP");
    let failed = punch([&blocked, &hostile], stun, Proto::Tcp, Duration::from_secs(1), never);
    assert!(failed.iter().all(|end| matches!(end, Err(PunchError::Closed { .. }))), "{failed:?}");
    nothing_is_left(before, [&blocked, &hostile], "failure over TCP");

    // A hole that has become a pipe, and is dropped in its place.
    let holes = punch([&home, &symmetric], stun, Proto::Udp, long, never);
    for (hole, end) in holes.into_iter().zip([&home, &symmetric]) {
        let pipe = end.runtime.block_on(async { hole.unwrap().into_pipe(NetConf::default()).await.unwrap() });
        end.runtime.block_on(pipe.close());
    }
    nothing_is_left(before, [&home, &symmetric], "a pipe that was closed");
}
