//! A chat between two peers, wherever they are. `chat [--via URL]` prints a ticket; who has it says `chat TICKET`, and
//! lines go both ways until one end closes its input. Without `--via` the ticket leads to this machine's own addresses.

use natpipe::key::Place;
use natpipe::nat::Proto;
use natpipe::peer::Node;
use natpipe::{NetConf, Ticket};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, stdin};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut node, mut ticket) = (Node::builder(), None::<Ticket>);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--via" => node = node.via(args.next().ok_or("--via wants a URL")?.parse::<Place>()?),
            text => ticket = Some(text.parse()?),
        }
    }
    let node = node.start().await?;
    let (peer, pipe) = match ticket {
        Some(ticket) => {
            let peer = node.peer(&ticket).await?;
            let pipe = peer.open(Proto::Tcp, NetConf::default())?;
            // The other end hears of a pipe by its first bytes.
            pipe.send("(comes in)\n").await?;
            (peer, pipe)
        }
        None => {
            println!("{}", node.ticket()?);
            node.accept().await?
        }
    };
    println!("with {}", peer.id().short());

    let (theirs, mut ours) = tokio::io::split(pipe.into_stream().await);
    let (mut said, mut heard) = (BufReader::new(stdin()).lines(), BufReader::new(theirs).lines());
    let mut talking = true;
    loop {
        tokio::select! {
            line = said.next_line(), if talking => match line? {
                Some(line) => ours.write_all(format!("{line}\n").as_bytes()).await?,
                None => { ours.shutdown().await?; talking = false }
            },
            line = heard.next_line() => match line? {
                Some(line) => println!("> {line}"),
                None => break,
            },
        }
    }
    drop((ours, heard));
    node.close().await;
    Ok(())
}
