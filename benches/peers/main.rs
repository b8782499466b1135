//! A peer's stream beside bare quinn, bare tokio-rustls and dumbpipe, between two hosts in namespaces of the bench's own, and
//! what a pair that says nothing costs.
//!
//! `cargo bench --bench peers [-- udp tcp idle] [-- --without-dumbpipe]`. Linux only. dumbpipe is taken from the `PATH`, or from
//! where `DUMBPIPE` says: `cargo install dumbpipe --locked`. The bench fails where there is none, unless it is left out.
//!
//! All contenders of a table use the same two hosts and the same path: two veth pairs and the kernel's router between them. Each
//! end is a process of its own. What is timed is the receiving end, from the first byte to the last.

mod bare;
mod idle;
mod ours;
mod programs;
#[path = "../table.rs"]
mod table;
mod world;

use std::process::ExitCode;

use table::compare;
use world::World;

const ROUNDS: usize = 7;

/// What is sent over UDP and over TCP, MiB.
const UDP: usize = 192;
const TCP: usize = 3072;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(role) = args.iter().find_map(|arg| arg.strip_prefix("role=")) {
        play(role, &args[1..]);
        return ExitCode::SUCCESS;
    }
    let named: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !arg.starts_with("--")).collect();
    let dumbpipe = match programs::dumbpipe() {
        _ if args.iter().any(|arg| arg == "--without-dumbpipe") => None,
        Some(found) => Some(found),
        None => {
            eprintln!(
                "dumbpipe is missing: cargo install dumbpipe --locked, or leave it out with -- --without-dumbpipe"
            );
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = natpipe::lab::enter() {
        eprintln!("no networks of our own can be made here: {error}");
        return ExitCode::FAILURE;
    }
    let wanted = |name: &str| named.is_empty() || named.contains(&name);
    if wanted("udp") {
        udp(dumbpipe.as_deref());
    }
    if wanted("tcp") {
        tcp(dumbpipe.as_deref());
    }
    if wanted("idle") {
        idle::run(dumbpipe.as_deref());
    }
    ExitCode::SUCCESS
}

/// What a child of this process is: a task like any other, as a program's are.
fn play(role: &str, args: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (role, args) = (role.to_owned(), args.to_vec());
    let played = runtime.spawn(async move {
        match &role[..] {
            "quinn-receiver" => bare::quinn_receiver(&args).await,
            "quinn-sender" => bare::quinn_sender(&args).await,
            "rustls-receiver" => bare::rustls_receiver(&args).await,
            "rustls-sender" => bare::rustls_sender(&args).await,
            "peer-receiver" => ours::receiver(&args).await,
            "peer-sender" => ours::sender(&args).await,
            "server" => ours::server(&args).await,
            other => panic!("no role {other}"),
        }
    });
    runtime.block_on(played).unwrap();
}

fn udp(dumbpipe: Option<&str>) {
    let world = World::new();
    world.only_udp();
    let server = world.rendezvous();
    let at = &world;
    let mut theirs = dumbpipe.map(|program| || programs::dumbpipe_rate(&world, program, UDP));
    let mut quinn = || world.rate(&["quinn-receiver"], &["quinn-sender"], UDP);
    let mut direct = || world.rate(&["peer-receiver", "-"], &["peer-sender", "udp"], UDP);
    let mut hole = || world.rate(&["peer-receiver", &server.said], &["peer-sender", "hole"], UDP);
    let mut command = programs::natpipe().map(|program| move || programs::natpipe_rate(at, &program, "udp", UDP));
    let mut contenders: Vec<(&str, &mut dyn FnMut() -> f64)> =
        vec![("bare quinn", &mut quinn), ("natpipe, straight", &mut direct), ("natpipe, punched", &mut hole)];
    if let Some(command) = &mut command {
        contenders.push(("natpipe listen, connect", command));
    }
    if let Some(theirs) = &mut theirs {
        contenders.push(("dumbpipe listen, connect", theirs));
    }
    compare(&format!("a stream over UDP, {UDP} MiB"), "MiB/s", ROUNDS, &mut contenders);
}

fn tcp(dumbpipe: Option<&str>) {
    let world = World::new();
    let at = &world;
    let mut theirs = dumbpipe.map(|program| || programs::dumbpipe_rate(&world, program, UDP));
    let mut rustls = || world.rate(&["rustls-receiver"], &["rustls-sender"], TCP);
    let mut direct = || world.rate(&["peer-receiver", "-"], &["peer-sender", "tcp"], TCP);
    let mut command = programs::natpipe().map(|program| move || programs::natpipe_rate(at, &program, "tcp", TCP));
    let mut contenders: Vec<(&str, &mut dyn FnMut() -> f64)> =
        vec![("bare tokio-rustls", &mut rustls), ("natpipe", &mut direct)];
    if let Some(command) = &mut command {
        contenders.push(("natpipe listen, connect", command));
    }
    if let Some(theirs) = &mut theirs {
        contenders.push(("dumbpipe listen, connect (UDP)", theirs));
    }
    compare(&format!("a stream over TCP, {TCP} MiB"), "MiB/s", ROUNDS, &mut contenders);
}
