//! A rendezvous server and two peers that meet there: a word, sealed, and a relayed stream.
//!
//! `cargo run --example rendezvous`

use natpipe::Identity;
use natpipe::rendezvous::{Client, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::listen("127.0.0.1:0".parse()?, Identity::generate()?).start().await?;
    println!("peers meet at {}", server.url());
    let (ann, bob) = (Identity::generate()?, Identity::generate()?);
    let at_ann = Client::connect(&server.url(), &ann).await?;
    let at_bob = Client::connect(&server.url(), &bob).await?;

    // Ann begins; nothing is waited for, the stream's first bytes follow at once.
    let to_bob = at_ann.signal(bob.peer_id())?;
    to_bob.send("hello Bob").await?;
    let mut stream = to_bob.relay().await?.into_stream().await;
    stream.write_all(b"what goes through the relay is to be encrypted: run TLS in it").await?;
    stream.shutdown().await?;

    let from_ann = at_bob.accept().await?;
    println!("{} says {:?}", from_ann.peer().short(), from_ann.recv().await?);
    let mut text = String::new();
    from_ann.relay().await?.into_stream().await.read_to_string(&mut text).await?;
    println!("and: {text}");
    println!("{} bytes were relayed", server.counters().relayed);
    Ok(())
}
