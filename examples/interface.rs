//! Every interface, its routes, and a pipe bound to one of them.

use natpipe::{Family, Interface, Proto, pipe_open};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    for interface in Interface::list()? {
        for route in Family::BOTH.into_iter().flat_map(|family| interface.routes(family)) {
            println!("{}: {:?}, seen from outside as {}", interface.name(), route.nic(), route.external());
        }
    }
    let route = Interface::by_addr(Family::V4.loopback())?.route(Family::V4)?;
    let pipe = pipe_open(Proto::Udp).route(&route.bind(0)).await?;
    println!("bound to {} on {}", pipe.local_addr(), route.interface().name());
    Ok(())
}
