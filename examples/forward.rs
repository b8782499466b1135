//! A TCP port behind one NAT, reached from behind another. Where the service is: `forward --expose HOST:PORT --via URL`,
//! which prints a ticket. Where it is wanted: `forward --at ADDRESS:PORT TICKET`.

use natpipe::key::Place;
use natpipe::peer::Node;
use natpipe::pipe::Relay;
use natpipe::{NetConf, Pipe, Proto, Ticket, nat, pipe_open};

type Failed = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--expose", service, "--via", url] => expose(service, url.parse()?).await,
        ["--at", local, ticket] => bring(local, &ticket.parse()?).await,
        _ => Err("usage: forward --expose HOST:PORT --via URL | forward --at ADDRESS:PORT TICKET".into()),
    }
}

/// Every pipe that a peer opens leads to the service.
async fn expose(service: &str, via: Place) -> Result<(), Failed> {
    let node = Node::builder().via(via).start().await?;
    println!("{}", node.ticket()?);
    loop {
        let (_peer, pipe) = node.accept().await?;
        match pipe_open(Proto::Tcp).dest(service).await {
            Ok(served) => drop(tokio::spawn(async { Relay::new(pipe, served).wait().await })),
            Err(error) => eprintln!("{error}"),
        }
    }
}

/// Every connection to the local port becomes a pipe to the peer.
async fn bring(local: &str, ticket: &Ticket) -> Result<(), Failed> {
    let node = Node::start().await?;
    let peer = node.peer(ticket).await?;
    let door = pipe_open(Proto::Tcp)
        .bind(local)
        .up_cb(move |client: Pipe| {
            let pipe = peer.open(nat::Proto::Tcp, NetConf::default());
            async move {
                match pipe {
                    Ok(pipe) => drop(tokio::spawn(async { Relay::new(client, pipe).wait().await })),
                    Err(error) => eprintln!("{error}"),
                }
            }
        })
        .await?;
    println!("{}", door.local_addr());
    std::future::pending().await
}
