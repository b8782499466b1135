//! A hole between two processes, each behind a NAT of its own, and a pipe through it:
//! `punch MEETING STUN-SERVER... < message`.
//!
//! MEETING is where somebody joins the two while they agree, such as `natpipe link tcp-listen:7001 tcp-listen:7002`: one
//! end is given the one address, the other end the other. Nothing of what is sent through the hole passes there.

use std::io::Read;
use std::time::Duration;

use natpipe::punch::{PipeChannel, Puncher};
use natpipe::{Family, Interface, NetConf, Proto, nat, pipe_open};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let meeting = args.next().ok_or("usage: punch MEETING STUN-SERVER...")?;
    let mut message = String::new();
    std::io::stdin().read_to_string(&mut message)?;

    let route = Interface::default_for(Family::V4)?.route(Family::V4)?;
    let mut puncher = Puncher::new().route(&route);
    for server in args {
        puncher = puncher.stun(server.parse()?);
    }
    let mut channel = PipeChannel::new(pipe_open(Proto::Tcp).dest(meeting.as_str()).await?).await;
    let punched = puncher.punch(nat::Proto::Udp, &mut channel).await?;
    println!("{punched}");

    let pipe = punched.into_pipe(NetConf::default()).await?;
    pipe.send(&message).await?;
    let heard = pipe.recv_within(Duration::from_secs(10)).await?;
    println!("heard: {}", String::from_utf8_lossy(&heard.data));
    // A hole's end is not told to the other end: stay until its packet has surely arrived.
    tokio::time::sleep(Duration::from_secs(1)).await;
    pipe.close().await;
    Ok(())
}
