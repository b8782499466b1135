//! `natpipe interfaces`.

use anyhow::Result;
use natpipe::net::{External, InterfaceAddr, Mac};
use natpipe::{Family, Interface};
use serde::Serialize;

use crate::output;

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

pub fn run(json: bool) -> Result<()> {
    let defaults: Vec<_> =
        Family::BOTH.into_iter().filter_map(|f| Some((f, Interface::default_for(f).ok()?))).collect();
    let all = Interface::list()?;
    let rows: Vec<Row<'_>> = all.iter().map(|interface| row(interface, &defaults)).collect();
    if json {
        return output::json(&rows);
    }
    rows.iter().try_for_each(print)
}

fn row<'a>(interface: &'a Interface, defaults: &[(Family, Interface)]) -> Row<'a> {
    let default_for = defaults.iter().filter(|(_, default)| default == interface).map(|(family, _)| *family).collect();
    let routes = Family::BOTH.into_iter().flat_map(|family| interface.routes(family)).map(|route| RouteRow {
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
        output::line(format_args!("    route {}: {nic}  external unknown", route.family))?;
    }
    Ok(())
}
