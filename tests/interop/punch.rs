//! Punching: aioice as the other end of a UDP hole.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use natpipe::lab::{Host, Internet, Kind, Link};
use natpipe::nat::Proto as Over;
use natpipe::punch::{PipeChannel, Puncher};
use natpipe::stun::Server;
use natpipe::{Family, Interface, NetConf, Proto, pipe_open};

use crate::{python, said, script};

/// Joins the first two who come to a port of this host.
fn joiner(host: &Host) -> SocketAddr {
    let listener = host.run(|| TcpListener::bind((host.v4().unwrap(), 0))).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let [a, b] = [(); 2].map(|()| listener.accept().unwrap().0);
        let copies = [(&a, &b), (&b, &a)].map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()));
        for (from, to) in copies {
            std::thread::spawn(move || copy(from, to));
        }
    });
    addr
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    to.set_nodelay(true).unwrap();
    // Whichever end leaves first, the other hears of it.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// Punches to aioice, which controls where `tie` is high, and has each of a few datagrams answered.
fn with_aioice(ours: Kind, theirs: Kind, tie: u64) -> String {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let (meeting, stun) = (internet.host("meeting").unwrap(), internet.host("stun").unwrap());
    let runtime = stun.runtime().unwrap();
    let server = stun.run(|| {
        let _inside = runtime.enter();
        Server::listen((stun.v4().unwrap(), 3478).into()).start().unwrap()
    });
    let (ours, theirs) = (internet.behind(ours).unwrap(), internet.behind(theirs).unwrap());
    let door = joiner(&meeting);
    let args = [
        door.ip().to_string(),
        door.port().to_string(),
        server.addr().ip().to_string(),
        "3478".to_owned(),
        tie.to_string(),
    ];
    let mut command = python();
    command.arg(script("punch/aioice_end.py")).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    let aioice = theirs.start(&mut command).unwrap();
    ours.block_on(async {
        let pipe = pipe_open(Proto::Tcp).dest(door).await.unwrap();
        let mut channel = PipeChannel::new(pipe).await;
        let routes = Interface::list().unwrap().into_iter().filter_map(|i| i.route(Family::V4).ok());
        let routes = routes.filter(|route| !route.nic()[0].is_loopback());
        let puncher = routes.fold(Puncher::new().stun(server.addr()), |puncher, route| puncher.route(&route));
        let punched = puncher.punch(Over::Udp, &mut channel).await.unwrap();
        assert_eq!(punched.controlling, tie == 0);
        println!("{punched}");
        let pipe = punched.into_pipe(NetConf::default()).await.unwrap();
        for word in ["one", "two", "three", "bye"] {
            let mut left = 20;
            // One that comes before aioice has nominated is lost.
            let heard = loop {
                pipe.send(word).await.unwrap();
                if let Ok(message) = pipe.recv_within(Duration::from_millis(300)).await {
                    break message.data;
                }
                left -= 1;
                assert!(left > 0, "aioice does not answer");
            };
            assert!(heard.starts_with(b"aioice heard "), "{heard:?}");
        }
        let output = tokio::task::spawn_blocking(|| aioice.wait_with_output()).await.unwrap().unwrap();
        drop(pipe);
        said(&output)
    })
    .unwrap()
}

#[test]
fn aioice_controls_and_a_hole_to_it_carries_datagrams_both_ways() {
    let said = with_aioice(Kind::Home, Kind::Home, u64::MAX);
    assert!(said.starts_with("controlling 192.168."), "{said}");
}

#[test]
fn aioice_is_controlled_and_a_hole_to_it_carries_datagrams_both_ways() {
    let said = with_aioice(Kind::Home, Kind::FullCone, 0);
    assert!(said.starts_with("controlled 192.168."), "{said}");
}
