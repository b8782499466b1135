//! Our peers, as a program that uses the library has them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use natpipe::key::TicketAddress;
use natpipe::nat::Proto;
use natpipe::peer::{Node, PathKind};
use natpipe::{Identity, Pipe, Ticket, rendezvous};
use tokio::io::AsyncReadExt;

pub const CHUNK: usize = 64 << 10;

const LIMIT: Duration = Duration::from_secs(60);

/// Until the bench ends us.
pub async fn for_ever() {
    let _ = tokio::io::stdin().read_u8().await;
}

/// Says how fast it came, MiB/s, from the first byte to the last.
pub struct Meter {
    total: usize,
    got: usize,
    since: Option<Instant>,
}

impl Meter {
    pub fn new(mib: &str) -> Self {
        Self { total: mib.parse::<usize>().unwrap() << 20, got: 0, since: None }
    }

    /// The rate once everything is there.
    pub fn count(&mut self, bytes: usize) -> Option<f64> {
        self.got += bytes;
        let since = *self.since.get_or_insert_with(Instant::now);
        (self.got >= self.total).then(|| (self.total >> 20) as f64 / since.elapsed().as_secs_f64())
    }
}

/// `ours::receiver URL|- OWN MIB`
pub async fn receiver(args: &[String]) {
    let [via, _own, mib] = args else { panic!("{args:?}") };
    let builder = Node::builder().port_mapping(false);
    let builder = if via == "-" { builder } else { builder.via(via.parse::<natpipe::key::ServerUrl>().unwrap()) };
    let node = builder.start().await.unwrap();
    println!("{}", node.ticket().unwrap());
    let (_peer, pipe) = node.accept().await.unwrap();
    let mut meter = Meter::new(mib);
    let rate = loop {
        let data = pipe.recv_within(None).await.unwrap().data;
        if let Some(rate) = meter.count(data.len()) {
            break rate;
        }
    };
    println!("{rate}");
    for_ever().await;
}

/// A ticket that leaves only one way: straight over TCP or UDP, or only by the server.
pub fn narrowed(ticket: &Ticket, way: &str) -> Ticket {
    let bare = ticket.servers().iter().cloned().fold(Ticket::new(ticket.peer()), Ticket::with_server);
    if way == "hole" {
        return bare;
    }
    let only = |a: &TicketAddress| TicketAddress { addr: a.addr, tcp: way == "tcp", udp: way == "udp" };
    let addresses = ticket.addresses().iter().filter(|a| a.addr.is_ipv4());
    addresses.map(only).fold(bare, Ticket::with_address)
}

/// `ours::sender tcp|udp|hole TICKET MIB`
pub async fn sender(args: &[String]) {
    let [way, ticket, mib] = args else { panic!("{args:?}") };
    let pipe = connect(way, ticket).await;
    println!("connected");
    let (chunk, bytes) = (vec![7; CHUNK], mib.parse::<usize>().unwrap() << 20);
    for _ in 0..bytes / CHUNK {
        pipe.send(&chunk).await.unwrap();
    }
    for_ever().await;
}

async fn connect(way: &str, ticket: &str) -> Pipe {
    let ticket = narrowed(&ticket.parse().unwrap(), way);
    let builder = Node::builder().port_mapping(false);
    let node = builder.start().await.unwrap();
    let peer = node.peer(&ticket).await.unwrap();
    let wanted = |kind, proto| match way {
        "tcp" => kind == PathKind::Direct && proto == Proto::Tcp,
        "udp" => kind == PathKind::Direct && proto == Proto::Udp,
        _ => kind == PathKind::UdpPunch,
    };
    let mut paths = peer.paths();
    let path = paths.wait_for(|path| path.as_ref().is_some_and(|path| wanted(path.kind, path.proto)));
    tokio::time::timeout(LIMIT, path).await.unwrap_or_else(|_| panic!("only {:?}", peer.path())).map(drop).unwrap();
    let pipe = peer.open(Proto::Tcp, Default::default()).unwrap();
    // The node lives as long as this process.
    std::mem::forget(node);
    pipe
}

/// `ours::server OWN`
pub async fn server(args: &[String]) {
    let at = SocketAddr::new(args[0].parse().unwrap(), 3478);
    let server = rendezvous::Server::listen(at, Identity::generate().unwrap()).start().await.unwrap();
    println!("{}", server.url());
    for_ever().await;
}
