//! A STUN server on an address, or on two addresses by two ports, which also tells how NATs filter:
//! `stun_server ADDRESS:PORT [ADDRESS:PORT]`. It answers until it is ended.

use natpipe::stun::{Client, Server, ServerName};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut addresses = std::env::args().skip(1);
    let first = addresses.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let mut server = Server::listen(first.parse()?);
    if let Some(second) = addresses.next() {
        server = server.listen2(second.parse()?);
    }
    let server = server.start()?;
    println!("{}", server.addr());

    let answer = Client::new().server(server.addr().to_string().parse::<ServerName>()?).ask().await?;
    println!("it sees us as {}", answer.mapped);
    std::future::pending().await
}
