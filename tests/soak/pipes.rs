//! Pipes of each kind, and links between them.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use natpipe::pipe::Relay;
use natpipe::pipe::tls::{Identity, TlsClient, TlsServer};
use natpipe::{Filter, NetConf, Pipe, Proto, pipe_open};

use crate::{Cutter, LONG};

const TIMES: usize = 20;

fn certificate() -> &'static Identity {
    static MADE: OnceLock<Identity> = OnceLock::new();
    MADE.get_or_init(|| Identity::self_signed(&["127.0.0.1"]).unwrap())
}

/// The machine may have much else to do: no limit is what is tested here.
fn patient() -> NetConf {
    NetConf::default().con_timeout(LONG).recv_timeout(LONG)
}

/// Echo servers over TCP, TLS, UDP and Unix sockets; of every two clients one goes away without a word.
pub async fn kinds(round: u64) {
    let path = std::env::temp_dir().join(format!("natpipe-soak-{}", std::process::id()));
    let tls = patient().tls_server(TlsServer::new(certificate().clone()).unwrap());
    let trusting = patient().tls_client(TlsClient::trusting(&certificate().root_pem()).unwrap());
    for (proto, conf, client_conf) in [
        (Proto::Tcp, patient(), patient()),
        (Proto::Tcp, tls, trusting),
        (Proto::Udp, patient(), patient()),
        (Proto::Unix, patient(), patient()),
    ] {
        let open =
            pipe_open(proto).conf(conf).msg_cb(|msg, _from, pipe: Pipe| async move { drop(pipe.send(msg).await) });
        let server = if proto == Proto::Unix {
            open.bind(PathBuf::from(&path)).await.unwrap()
        } else {
            open.bind("127.0.0.1:0").await.unwrap()
        };
        for client in 0..4 {
            let pipe = pipe_open(proto).dest(server.local_addr()).conf(client_conf.clone()).await.unwrap();
            let words = pipe.subscribe(Filter::all());
            for time in 0..TIMES {
                pipe.send(vec![round as u8; 500]).await.unwrap();
                // A datagram may be lost, and is sent again.
                let mut tries = if proto == Proto::Udp { 100 } else { 1 };
                let limit = if proto == Proto::Udp { Duration::from_millis(200) } else { LONG / 2 };
                let answer = loop {
                    tries -= 1;
                    match pipe.recv_within(limit).await {
                        Ok(answer) => break answer,
                        Err(error) => assert!(tries > 0, "{proto}, client {client}, question {time}: {error}"),
                    }
                    pipe.send(vec![round as u8; 500]).await.unwrap();
                };
                assert_eq!(answer.data[0], round as u8);
            }
            drop(words);
            match client % 2 {
                0 => pipe.close().await,
                _ => pipe.send("nobody waits for the answer").await.unwrap(),
            }
        }
        server.close().await;
        // It may be gone already.
        let _ = std::fs::remove_file(&path);
    }
}

/// A relay between two sockets, cut in the middle every other time, and links in memory.
pub async fn links(round: u64) {
    let service = pipe_open(Proto::Tcp).conf(patient()).bind("127.0.0.1:0").await.unwrap();
    let cutter = Cutter::before(std::net::SocketAddr::new(
        service.local_addr().ip().unwrap().ip(),
        service.local_addr().port().unwrap(),
    ))
    .await;
    let front = pipe_open(Proto::Tcp).conf(patient()).bind("127.0.0.1:0").await.unwrap();
    let client = pipe_open(Proto::Tcp).conf(patient()).dest(front.local_addr()).await.unwrap();
    let near = front.accept().await.unwrap();
    let far = pipe_open(Proto::Tcp).conf(patient()).dest(cutter.addr).await.unwrap();
    let served = service.accept().await.unwrap();
    let relay = tokio::spawn(async { Relay::new(near, far).wait().await });
    for _ in 0..TIMES {
        client.send(vec![1; 5000]).await.unwrap();
        assert_eq!(served.recv_n(5000).await.unwrap().len(), 5000);
    }
    cutter.cut(round.is_multiple_of(2));
    client.send("the last").await.unwrap();
    client.finish().await.unwrap();
    while served.recv_within(LONG).await.is_ok() {}
    served.close().await;
    relay.await.unwrap();

    let ((a, b), (c, d)) = (pair(), pair());
    b.add_pipe(&c);
    c.add_pipe(&b);
    a.send("through memory").await.unwrap();
    assert_eq!(d.recv_within(LONG).await.unwrap().data, "through memory");
    if round.is_multiple_of(2) {
        b.del_pipe(&c);
    }
}

fn pair() -> (Pipe, Pipe) {
    Pipe::pair(65_536, patient()).unwrap()
}
