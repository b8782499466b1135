//! Decides: which interface holds the default route, and by which gateway, from the kernel's own route tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Family;

/// Bits of `flags` in the tables (`<linux/route.h>`).
const RTF_UP: u32 = 0x1;
const RTF_REJECT: u32 = 0x200;

/// The interface of the default route with the lowest metric, in the text of `net/route` (IPv4)
/// or `net/ipv6_route` (IPv6) of a Linux proc file system. Lines that do not parse are passed over.
pub(crate) fn default_interface(family: Family, table: &str) -> Option<&str> {
    entries(family, table).min_by_key(|entry| entry.metric).map(|entry| entry.interface)
}

/// The next hop of an interface's default route with the lowest metric, in the same texts; none where the route leads to
/// whoever is asked for.
pub(crate) fn gateway(family: Family, interface: &str, table: &str) -> Option<IpAddr> {
    let own = entries(family, table).filter(|entry| entry.interface == interface);
    own.min_by_key(|entry| entry.metric)?.gateway.filter(|gateway| !gateway.is_unspecified())
}

/// The default routes of a table as a text that differs when they do, whatever their order; what the kernel counts is left out.
#[cfg_attr(not(feature = "peer"), allow(dead_code, reason = "for those who watch for changes"))]
pub(crate) fn default_routes(family: Family, table: &str) -> String {
    let told = |entry: Entry<'_>| format!("{} {:?} {}\n", entry.interface, entry.gateway, entry.metric);
    let mut routes: Vec<String> = entries(family, table).map(told).collect();
    routes.sort();
    routes.concat()
}

fn entries(family: Family, table: &str) -> impl Iterator<Item = Entry<'_>> {
    table.lines().filter_map(move |line| match family {
        Family::V4 => entry_v4(line),
        Family::V6 => entry_v6(line),
    })
}

struct Entry<'a> {
    interface: &'a str,
    gateway: Option<IpAddr>,
    metric: u32,
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, numbers in hexadecimal but the metric.
fn entry_v4(line: &str) -> Option<Entry<'_>> {
    let mut fields = line.split_ascii_whitespace();
    let interface = fields.next()?;
    let destination = hex(fields.next()?)?;
    // The kernel prints the four bytes as they lie in memory.
    let gateway = Some(Ipv4Addr::from(hex(fields.next()?)?.to_ne_bytes()).into());
    let flags = hex(fields.next()?)?;
    let metric = fields.nth(2)?.parse().ok()?;
    let mask = hex(fields.next()?)?;
    (destination == 0 && mask == 0 && usable(flags)).then_some(Entry { interface, gateway, metric })
}

/// `destination length source length next-hop metric refcount use flags interface`, all hexadecimal.
fn entry_v6(line: &str) -> Option<Entry<'_>> {
    let mut fields = line.split_ascii_whitespace();
    let destination = fields.next()?;
    let length = hex(fields.next()?)?;
    let next_hop = u128::from_str_radix(fields.nth(2)?, 16).ok()?;
    let metric = hex(fields.next()?)?;
    let flags = hex(fields.nth(2)?)?;
    let interface = fields.next()?;
    let is_default = length == 0 && destination.bytes().all(|b| b == b'0');
    let gateway = Some(Ipv6Addr::from(next_hop).into());
    (is_default && usable(flags)).then_some(Entry { interface, gateway, metric })
}

fn usable(flags: u32) -> bool {
    flags & RTF_UP != 0 && flags & RTF_REJECT == 0
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
down0\t00000000\t0101A8C0\t0002\t0\t0\t1\t00000000\t0\t0\t0
";

    const V6: &str = "\
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    #[test]
    fn the_default_route_of_lowest_metric_that_is_up_wins() {
        assert_eq!(default_interface(Family::V4, V4), Some("eth0"));
    }

    #[test]
    fn the_gateway_is_the_next_hop_of_the_interfaces_own_default_route() {
        let seen = [(Family::V4, V4, "wlan0"), (Family::V6, V6, "eth0"), (Family::V4, V4, "down0")]
            .map(|(family, table, interface)| gateway(family, interface, table).map(|ip| ip.to_string()));
        // Written for a little-endian machine, as nearly all are.
        if cfg!(target_endian = "little") {
            assert_eq!(seen, [Some("192.168.1.1".into()), Some("fe80::1".into()), None]);
        }
        let on_link = "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0";
        assert_eq!(default_interface(Family::V4, on_link), Some("tun0"));
        assert_eq!(gateway(Family::V4, "tun0", on_link), None);
    }

    #[test]
    fn the_kernels_unreachable_route_is_no_default_route() {
        assert_eq!(default_interface(Family::V6, V6), Some("eth0"));
        let unreachable_only = V6.lines().last().unwrap();
        assert_eq!(default_interface(Family::V6, unreachable_only), None);
    }

    #[test]
    fn default_routes_differ_by_where_they_lead_and_not_by_what_is_counted() {
        let routes = |text: &str| default_routes(Family::V6, text);
        assert_eq!(routes(V6), routes(&V6.replace("00000001 00000000", "00000007 000000aa")));
        assert_ne!(
            routes(V6),
            routes(&V6.replace("fe800000000000000000000000000001", "fe800000000000000000000000000002"))
        );
        assert_ne!(routes(V6), routes(V6.lines().next().unwrap()));
    }

    #[test]
    fn lines_that_do_not_parse_are_passed_over() {
        for table in ["", "garbage", "eth0\tzz\t0\t1\t0\t0\t0\t0", "\u{0}\u{0} \t", "eth0 00000000"] {
            assert_eq!(default_interface(Family::V4, table), None);
            assert_eq!(default_interface(Family::V6, table), None);
        }
    }
}
