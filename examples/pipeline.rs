//! A pipeline in which nothing is lost when a stage dies: `pipeline source TO COUNT`, `pipeline stage FROM TO`,
//! `pipeline sink FROM COUNT`. Each stage acknowledges a message only when it has passed it on; one that was killed in between
//! gets it again, so a message may come twice, and the sink drops what it has seen.

use std::collections::BTreeSet;
use std::io::Write;

use natpipe::smart::{Acknowledge, Delivery, SmartSocket};

fn socket() -> Result<SmartSocket, Box<dyn std::error::Error>> {
    Ok(SmartSocket::builder().delivery(Delivery::AtLeastOnce).acknowledge(Acknowledge::NextAsked).build()?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["source", to, count] => {
            let next = socket()?;
            println!("{}", next.bind(to).await?);
            for number in 0..count.parse::<u64>()? {
                next.send_acknowledged(number.to_string(), None).await?;
            }
            Ok(next.close().await?)
        }
        ["stage", from, to] => {
            let (before, next) = (socket()?, socket()?);
            before.connect(from)?;
            next.connect(to)?;
            loop {
                let message = before.recv().await?;
                next.send_acknowledged(message, None).await?;
            }
        }
        ["sink", at, count] => {
            let (before, mut seen) = (socket()?, BTreeSet::new());
            println!("{}", before.bind(at).await?);
            let count = count.parse::<usize>()?;
            while seen.len() < count {
                let message = before.recv().await?;
                if seen.insert(message.clone()) {
                    println!("{}", String::from_utf8_lossy(&message));
                    std::io::stdout().flush()?;
                }
            }
            Ok(before.close().await?)
        }
        _ => Err("usage: pipeline source TO COUNT | stage FROM TO | sink AT COUNT".into()),
    }
}
