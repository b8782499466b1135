//! One echo handler over TCP and UDP: the two differ by a word.

use natpipe::{Pipe, Proto, pipe_open};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    for proto in [Proto::Tcp, Proto::Udp] {
        let server = pipe_open(proto)
            .bind("127.0.0.1:0")
            .msg_cb(|msg, _from, pipe: Pipe| async move {
                let _ = pipe.send(msg).await;
            })
            .await?;
        let client = pipe_open(proto).dest(server.local_addr()).await?;
        client.send("hello").await?;
        println!("{proto}: {}", String::from_utf8_lossy(&client.recv().await?));
    }
    Ok(())
}
