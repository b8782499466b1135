//! The commands, ours and dumbpipe's: bytes go in at one's standard input and come out at the other's standard output.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use natpipe::Ticket;
use natpipe::lab::Host;

use crate::ours::{CHUNK, narrowed};
use crate::world::World;

/// A program in a host, ended with this.
pub struct Program(pub Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where dumbpipe is, if it is.
pub fn dumbpipe() -> Option<String> {
    let named = std::env::var("DUMBPIPE").ok();
    let program = named.unwrap_or_else(|| "dumbpipe".to_owned());
    Command::new(&program).arg("--version").output().ok().filter(|output| output.status.success()).map(|_| program)
}

pub fn dumbpipe_rate(world: &World, program: &str, mib: usize) -> f64 {
    let (listening, ticket) = dumbpipe_listen(world, program);
    let connecting = start(&world.hosts[1], Command::new(program).args(["connect", &ticket]));
    through(connecting, listening, mib)
}

/// One that listens, and its ticket. It waits some seconds for a relay, which there is not.
pub fn dumbpipe_listen(world: &World, program: &str) -> (Program, String) {
    listen(&world.hosts[0], Command::new(program).arg("listen"), "endpoint")
}

/// Our command, where it is built too (feature `cli`, which is a default), or where `NATPIPE` says.
pub fn natpipe() -> Option<String> {
    // The name is there without the feature too, the program is not.
    let built = || option_env!("CARGO_BIN_EXE_natpipe").filter(|path| Path::new(path).exists()).map(str::to_owned);
    std::env::var("NATPIPE").ok().or_else(built)
}

pub fn natpipe_rate(world: &World, program: &str, way: &str, mib: usize) -> f64 {
    let quiet = ["--no-public", "--no-port-mapping"];
    let (listening, ticket) = listen(&world.hosts[0], Command::new(program).arg("listen").args(quiet), "np1");
    let ticket = narrowed(&ticket.parse::<Ticket>().unwrap(), way).to_string();
    let connecting = start(&world.hosts[1], Command::new(program).args(["connect", &ticket]).args(quiet));
    through(connecting, listening, mib)
}

pub fn start(host: &Host, command: &mut Command) -> Program {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    Program(host.start(command).unwrap())
}

/// Starts one that says on its standard error the ticket that begins so.
fn listen(host: &Host, command: &mut Command, begins: &str) -> (Program, String) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = Program(host.start(command).unwrap());
    let mut err = BufReader::new(program.0.stderr.take().unwrap());
    let mut line = String::new();
    while err.read_line(&mut line).unwrap() > 0 {
        if let Some(ticket) = line.split_whitespace().find(|word| word.starts_with(begins) && word.len() > 20) {
            let ticket = ticket.to_owned();
            // What else it says is read, so that it never waits.
            std::thread::spawn(move || std::io::copy(&mut err, &mut std::io::sink()));
            return (program, ticket);
        }
        line.clear();
    }
    panic!("no ticket was said");
}

fn through(mut from: Program, mut to: Program, mib: usize) -> f64 {
    let mut input = from.0.stdin.take().unwrap();
    let sending = std::thread::spawn(move || {
        let chunk = vec![7; CHUNK];
        for _ in 0..(mib << 20) / CHUNK {
            input.write_all(&chunk).unwrap();
        }
        input
    });
    let mut output = to.0.stdout.take().unwrap();
    let (mut got, mut buffer, mut since) = (0, vec![0; CHUNK], None);
    while got < mib << 20 {
        let len = output.read(&mut buffer).unwrap();
        assert!(len > 0, "it ended after {got} bytes");
        got += len;
        since.get_or_insert_with(Instant::now);
    }
    let took = since.map_or(f64::NAN, |since| since.elapsed().as_secs_f64());
    drop(sending.join().unwrap());
    mib as f64 / took
}
