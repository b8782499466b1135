//! What stands between this machine and the world, and what will get through it to a peer like us:
//! `find_nat [STUN-SERVER]...`, public ones unless named.

use natpipe::nat::pairs::ways;
use natpipe::nat::{DEFAULT_SERVERS, Delta, Entry, Filtering, Finding, Mapping, Prober, Proto, Report};
use natpipe::stun::ServerName;
use natpipe::{Family, Interface};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut servers: Vec<String> = std::env::args().skip(1).collect();
    if servers.is_empty() {
        servers = DEFAULT_SERVERS.map(str::to_owned).to_vec();
    }
    let mut prober = Prober::new(Interface::list()?).family(Family::V4).proto(Proto::Udp);
    for server in servers {
        prober = prober.stun(server.parse::<ServerName>()?);
    }
    let report = prober.run().await?;
    for entry in &report.entries {
        let Some(seen) = entry.external else { continue };
        println!("{} is seen as {seen}", entry.interface);
        for (what, known) in [
            ("mapping", entry.mapping.known().map(|found| found.to_string())),
            ("filtering", entry.filtering.known().map(|found| found.to_string())),
            ("ports", entry.delta.known().map(|found| found.to_string())),
        ] {
            println!("  {what}: {}", known.as_deref().unwrap_or("not known"));
        }
    }
    // A peer behind a home router: mappings that are kept, and a filter that wants the exact address.
    let home = Entry {
        answered: 1,
        translated: Finding::Known(true),
        mapping: Finding::Known(Mapping::EndpointIndependent),
        filtering: Finding::Known(Filtering::AddressAndPortDependent),
        delta: Finding::Known(Delta::Equal),
        ..Entry::untested("peer", Family::V4, Proto::Udp)
    };
    if let Some(best) = ways(&report, &Report { entries: vec![home] }).first() {
        println!("to a peer behind a home router: {}", best.method);
    }
    Ok(())
}
