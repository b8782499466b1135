//! Two pipes linked as a relay, with bytes that never leave the kernel on their way.

use natpipe::pipe::Relay;
use natpipe::{Pipe, Proto, pipe_open};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await?;
    let upstream = service.local_addr().clone();
    let front = pipe_open(Proto::Tcp)
        .bind("127.0.0.1:0")
        .up_cb(move |client: Pipe| {
            let upstream = pipe_open(Proto::Tcp).dest(&upstream);
            async move {
                if let Ok(upstream) = upstream.await {
                    Relay::new(client, upstream).wait().await;
                }
            }
        })
        .await?;

    let client = pipe_open(Proto::Tcp).dest(front.local_addr()).await?;
    client.send("through the relay").await?;
    let served = service.accept().await?;
    println!("{}", String::from_utf8_lossy(&served.recv().await?));
    Ok(())
}
