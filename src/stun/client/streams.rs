//! Waits: a query over a connection to each server, TCP or TLS.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::super::query::Query;
use super::super::stream::next_message;
use super::{Client, Over};
use crate::base::task::Nursery;
use crate::pipe::{NetConf, Proto, pipe_open};

/// Requests that wait for their connection: the first, and one with credentials.
const WAITING: usize = 8;

/// The longest answer.
const ROOM: usize = 4096;

/// How long connecting may take: the query itself gives up later.
const CONNECT: Duration = Duration::from_secs(10);

enum Heard {
    Message(SocketAddr, Vec<u8>),
    Broken(SocketAddr, io::Error),
}

/// Drives the query until it is over.
pub(super) async fn drive(query: &mut Query, client: &Client, servers: &[(usize, SocketAddr)]) {
    let (tell, mut heard) = mpsc::channel(WAITING);
    let mut tasks = Nursery::new(&Handle::current());
    let mut open: BTreeMap<SocketAddr, mpsc::Sender<Bytes>> = BTreeMap::new();
    loop {
        while let Some(transmit) = query.poll_transmit() {
            let to = transmit.to;
            let requests = open.entry(to).or_insert_with(|| {
                let (requests, wanted) = mpsc::channel(WAITING);
                let name = servers.iter().find(|(_, addr)| *addr == to).map(|(index, _)| client.servers[*index].host());
                tasks.begin(connection(pipe(client, to, name), to, wanted, tell.clone()));
                requests
            });
            // A connection that has ended says so itself; one that does not take it gets no second question.
            let _ = requests.try_send(transmit.bytes);
        }
        let Some(next) = query.poll_timeout() else { return };
        tokio::select! {
            Some(heard) = heard.recv() => match heard {
                Heard::Message(from, bytes) => { query.handle_packet(Instant::now(), from, &bytes); }
                Heard::Broken(server, error) => {
                    open.remove(&server);
                    query.handle_unreachable(Instant::now(), server, error);
                }
            },
            () = sleep_until(next.into()) => query.handle_timeout(Instant::now()),
        }
    }
}

fn pipe(client: &Client, to: SocketAddr, name: Option<&str>) -> crate::pipe::Opening {
    let mut conf = NetConf::default().con_timeout(CONNECT).recv_timeout(None);
    #[cfg(feature = "tls")]
    if let Over::Tls(tls) = &client.over {
        // The certificate is for the name, though the address is what is connected to.
        conf = conf
            .use_ssl(true)
            .tls_client(tls.clone().server_name(name.map_or_else(|| to.ip().to_string(), Into::into)));
    }
    #[cfg(not(feature = "tls"))]
    let _ = (name, &mut conf, matches!(client.over, Over::Tcp));
    let opening = pipe_open(Proto::Tcp).dest(to).conf(conf);
    match &client.route {
        Some(route) => opening.route(route),
        None => opening,
    }
}

/// One connection: sends what it is given and tells what comes, until either end is tired of it.
async fn connection(
    opening: crate::pipe::Opening,
    server: SocketAddr,
    mut requests: mpsc::Receiver<Bytes>,
    tell: mpsc::Sender<Heard>,
) {
    if let Err(error) = exchange(opening, server, &mut requests, &tell).await {
        let _ = tell.send(Heard::Broken(server, error)).await;
    }
}

async fn exchange(
    opening: crate::pipe::Opening,
    server: SocketAddr,
    requests: &mut mpsc::Receiver<Bytes>,
    tell: &mpsc::Sender<Heard>,
) -> io::Result<()> {
    let mut stream = opening.await?.into_stream().await;
    let mut buf = Vec::with_capacity(ROOM);
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => stream.write_all(&request).await?,
                None => return Ok(()),
            },
            read = stream.read_buf(&mut buf) => {
                if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                while let Some(len) = next_message(&buf, ROOM).map_err(io::Error::other)? {
                    if tell.send(Heard::Message(server, buf.drain(..len).collect())).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}
