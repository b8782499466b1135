//! `natpipe interfaces`.

use std::time::Duration;

use anyhow::{Result, bail};
use natpipe::nat::DEFAULT_SERVERS;
use natpipe::net::{External, InterfaceAddr, Mac};
use natpipe::stun::{Client, ServerName, Timing};
use natpipe::{Family, Interface, Route, Scope};
use serde::Serialize;

use crate::output;
use crate::progress::spinner;

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    index: u32,
    mac: Option<Mac>,
    mtu: Option<u32>,
    flags: natpipe::net::Flags,
    default_for: Vec<Family>,
    addresses: &'a [InterfaceAddr],
    routes: Vec<RouteRow>,
}

#[derive(Serialize)]
struct RouteRow {
    family: Family,
    nic: Vec<std::net::IpAddr>,
    /// Null while nobody outside was asked.
    external: Option<Vec<std::net::IpAddr>>,
}

pub async fn run(external: bool, stun: Vec<ServerName>, json: bool) -> Result<()> {
    let defaults: Vec<_> =
        Family::BOTH.into_iter().filter_map(|f| Some((f, Interface::default_for(f).ok()?))).collect();
    let all = Interface::list()?;
    let routes =
        all.iter().map(|interface| Family::BOTH.into_iter().flat_map(|family| interface.routes(family)).collect());
    let routes: Vec<Vec<Route>> = routes.collect();
    if external {
        ask(routes.concat(), stun, json).await?;
    }
    let rows: Vec<Row<'_>> = all.iter().zip(&routes).map(|(one, routes)| row(one, routes, &defaults)).collect();
    if json {
        return output::json(&rows);
    }
    rows.iter().try_for_each(print)
}

/// A person waits for the answer: about four seconds in all.
fn patience() -> Timing {
    Timing::default().rto(Duration::from_millis(250)).requests(4).last_wait(2)
}

/// Asks through each route which addresses the world sees; a route that nobody answers stays unknown.
async fn ask(routes: Vec<Route>, stun: Vec<ServerName>, json: bool) -> Result<()> {
    let mut servers = stun;
    if servers.is_empty() {
        servers.extend(DEFAULT_SERVERS.iter().filter_map(|server| server.parse::<ServerName>().ok()));
    }
    let bar = spinner(json);
    bar.set_message("asking STUN servers through each interface …");
    let client = Client::new().servers(servers).timing(patience());
    let outward = |route: &Route| Scope::of(route.nic()[0]) != Scope::LinkLocal;
    let mut asking = tokio::task::JoinSet::new();
    for route in routes.into_iter().filter(outward) {
        let client = client.clone().route(&route);
        asking.spawn(async move { (client.ask().await, route) });
    }
    let (mut known, mut failures) = (0, Vec::new());
    while let Some(asked) = asking.join_next().await {
        match asked? {
            (Ok(_), _) => known += 1,
            (Err(error), route) => failures.push(format!("{} {}: {error}", route.interface().name(), route.family())),
        }
    }
    bar.finish_and_clear();
    failures.iter().for_each(|failure| tracing::info!("{failure}"));
    if known == 0 {
        bail!("no STUN server answered through any interface ({})", failures.join("; "));
    }
    Ok(())
}

fn row<'a>(interface: &'a Interface, routes: &[Route], defaults: &[(Family, Interface)]) -> Row<'a> {
    let default_for = defaults.iter().filter(|(_, default)| default == interface).map(|(family, _)| *family).collect();
    let routes = routes.iter().map(|route| RouteRow {
        family: route.family(),
        nic: route.nic().to_vec(),
        external: match route.external() {
            External::Known(addrs) => Some(addrs),
            _ => None,
        },
    });
    Row {
        name: interface.name(),
        index: interface.index(),
        mac: interface.mac(),
        mtu: interface.mtu(),
        flags: interface.flags(),
        default_for,
        addresses: interface.addrs(),
        routes: routes.collect(),
    }
}

fn print(row: &Row<'_>) -> Result<()> {
    let state = match (row.flags.up, row.flags.running) {
        (true, true) => "up",
        (true, false) => "no link",
        (false, _) => "down",
    };
    let mtu = row.mtu.map(|mtu| format!("  mtu {mtu}")).unwrap_or_default();
    let mac = row.mac.map(|mac| format!("  {mac}")).unwrap_or_default();
    let default: String = row.default_for.iter().map(|family| format!("  default for {family}")).collect();
    output::line(format_args!("{}: {}  {state}{mtu}{mac}{default}", row.index, row.name))?;
    for addr in row.addresses {
        output::line(format_args!("    {:<44} {}", format!("{}/{}", addr.ip, addr.prefix), addr.scope))?;
    }
    for route in &row.routes {
        let nic = route.nic.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let external = match &route.external {
            Some(addrs) => addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            None => "unknown".into(),
        };
        output::line(format_args!("    route {}: {nic}  external {external}", route.family))?;
    }
    Ok(())
}
