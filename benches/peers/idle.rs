//! What a connected pair costs that says nothing: packets and bytes between the two hosts, counted by the kernel.

use std::process::Command;
use std::time::Duration;

use natpipe::lab::Host;

use crate::programs::{Program, dumbpipe_listen, start as start_program};
use crate::world::{Running, World, start};

/// What goes before is not counted.
const SETTLE: Duration = Duration::from_secs(30);

/// How long is counted.
const COUNTED: Duration = Duration::from_secs(240);

/// A pair that is connected, in a world of its own.
struct Pair {
    name: &'static str,
    world: World,
    _ends: Ends,
}

#[expect(dead_code, reason = "held so that it goes on")]
enum Ends {
    Ours(Vec<Running>),
    Theirs([Program; 2]),
}

pub fn run(dumbpipe: Option<&str>) {
    let mut pairs = vec![
        ours("natpipe, straight over TCP", "tcp"),
        ours("natpipe, straight over UDP", "udp"),
        ours("natpipe, punched over UDP", "hole"),
    ];
    pairs.extend(dumbpipe.map(theirs));
    std::thread::sleep(SETTLE);
    let before: Vec<[u64; 2]> = pairs.iter().map(Pair::counted).collect();
    std::thread::sleep(COUNTED);
    println!("\na pair that says nothing, between its two hosts both ways (over {} s)", COUNTED.as_secs());
    for (pair, before) in pairs.iter().zip(before) {
        let each = |at: usize| (pair.counted()[at] - before[at]) as f64 * 60.0 / COUNTED.as_secs_f64();
        println!("  {:<34} {:>8.1} packets/min {:>9.0} bytes/min", pair.name, each(0), each(1));
    }
}

fn ours(name: &'static str, way: &str) -> Pair {
    let world = World::new();
    if way != "tcp" {
        world.only_udp();
    }
    let server = world.rendezvous();
    let via = if way == "hole" { server.said.as_str() } else { "-" };
    let own = world.address(0).to_string();
    let listening = start(&world.hosts[0], &["peer-receiver", via, &own, "1"]);
    let said = listening.said.clone();
    let connecting = start(&world.hosts[1], &["peer-sender", way, &said, "0"]);
    count(&world.hosts[0], &world.address(1).to_string());
    Pair { name, world, _ends: Ends::Ours(vec![server, listening, connecting]) }
}

fn theirs(program: &str) -> Pair {
    let world = World::new();
    let (listening, ticket) = dumbpipe_listen(&world, program);
    let connecting = start_program(&world.hosts[1], Command::new(program).args(["connect", &ticket]));
    count(&world.hosts[0], &world.address(1).to_string());
    Pair { name: "dumbpipe", world, _ends: Ends::Theirs([listening, connecting]) }
}

/// Has the kernel count what a host and another say to each other, over both families.
fn count(host: &Host, other: &str) {
    let counters = "counter said {\n}\n";
    let of = |hook: &str, side: &str| {
        format!(
            "chain {hook} {{\ntype filter hook {hook} priority -300\nip {side} {other} counter name said\nip6 nexthdr udp counter name said\n}}\n"
        )
    };
    let rules = format!("table inet idle {{\n{counters}{}{}}}", of("input", "saddr"), of("output", "daddr"));
    host.nft(&rules).unwrap();
}

impl Pair {
    /// Packets and bytes so far.
    fn counted(&self) -> [u64; 2] {
        let list = self.world.hosts[0].output(Command::new("nft").args(["list", "counters"])).unwrap();
        let text = String::from_utf8(list.stdout).unwrap();
        let after = |word: &str| {
            let mut words = text.split_whitespace().skip_while(|said| *said != word).skip(1);
            words.next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text}"))
        };
        [after("packets"), after("bytes")]
    }
}
