//! Holds: what can be said on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use natpipe::stun::ServerName;

use crate::commands::stun_server::listen_addr;
use crate::spec::Spec;

const SPECS: &str = "A SPEC is one end of a pipe:\n  \
    stdio\n  \
    tcp:HOST:PORT        tcp-listen:[HOST:]PORT\n  \
    udp:HOST:PORT        udp-listen:[HOST:]PORT\n  \
    unix:PATH            unix-listen:PATH\n  \
    tls:HOST:PORT\n\n\
    Exit status: 0 done, 1 it failed (one line says why), 2 wrong usage.";

/// Get bytes from one program to another, whatever stands between them.
#[derive(Debug, Parser)]
#[command(name = "natpipe", version, after_help = SPECS)]
pub struct Args {
    /// Write for programs: JSON instead of tables and sentences.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the interfaces of this machine with their addresses and routes.
    Interfaces {
        /// Ask STUN servers, through each interface, which addresses the world sees.
        #[arg(long)]
        external: bool,
        /// A STUN server to ask (several may be given), instead of well-known public ones.
        #[arg(long, value_name = "HOST[:PORT]", requires = "external")]
        stun: Vec<ServerName>,
    },
    /// Find out what NAT or firewall stands between here and the world, and what will work through it.
    Nat(NatArgs),
    /// Answer STUN requests: with one address the mapping tests of RFC 5780, with two all of them.
    StunServer {
        /// ADDRESS:PORT, or a port for every address (on a machine with several, name the one that clients ask: answers leave
        /// from the address that the kernel chooses). One for each family may be given.
        #[arg(long, value_name = "ADDR", required = true, value_parser = listen_addr)]
        listen: Vec<SocketAddr>,
        /// A second address with another port, of the family of a --listen.
        #[arg(long, value_name = "ADDR2", value_parser = listen_addr)]
        listen2: Vec<SocketAddr>,
    },
    /// Join two pipes both ways, until both ends have ended.
    Link {
        /// One end.
        a: Spec,
        /// The other end.
        b: Spec,
    },
    /// Send everything that comes back to where it came from.
    Echo {
        /// Where: a listening SPEC serves all who come, any other its one peer.
        spec: Spec,
    },
    /// Push messages, call, and consume, over a message broker (or straight over a pipe).
    Mq {
        #[command(subcommand)]
        command: MqCommand,
    },
    /// Open pipes of every kind on this machine, move data through them, check it, and tell the rates.
    Demo {
        /// MiB through each stream.
        #[arg(long, value_name = "MIB", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        mib: u32,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, or write one for each command into a folder.
    Man {
        /// The folder.
        dir: Option<PathBuf>,
    },
}

impl Command {
    /// True when Ctrl-C does not end it at once: it finishes what it has in hand.
    pub fn finishes_what_it_has(&self) -> bool {
        matches!(self, Self::Mq { command: MqCommand::Consume { .. } })
    }
}

/// What is done with messages.
#[derive(Debug, Subcommand)]
pub enum MqCommand {
    /// Push a message, and return when the broker has taken it.
    Push {
        #[command(flatten)]
        to: MqArgs,
        /// The body, in the format of the queue (YAML by default). Without, it is read from standard input.
        body: Option<String>,
    },
    /// Call whoever consumes the queue, and print the answer.
    Call {
        #[command(flatten)]
        to: MqArgs,
        /// The body, as in push.
        body: Option<String>,
    },
    /// Print each message as a line, or run a command with it. Ctrl-C ends it when what is in hand is finished.
    Consume {
        #[command(flatten)]
        from: MqArgs,
        /// Run this in a shell for each message: the body comes on its standard input, what it prints is the answer. Exit status 0 is a
        /// result, 65 an error for good, any other one for now.
        #[arg(long, value_name = "COMMAND")]
        exec: Option<String>,
        /// End after so many messages.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
}

/// Where the messages go or come from.
#[derive(Debug, clap::Args)]
pub struct MqArgs {
    /// amqp://USER:PASSWORD@HOST[:PORT]/VHOST, amqps://…, or pipe://HOST:PORT (no broker: the consumer listens there).
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    pub url: Option<String>,
    /// A configuration in YAML, or in TOML when its name ends so.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub config: Option<PathBuf>,
    /// The queue.
    #[arg(long, value_name = "NAME", required_unless_present = "config")]
    pub queue: Option<String>,
    /// Any other key of the configuration, such as durable=true, timeout=5, prefetch=20, format=json (several may be given).
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is wanted")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// What `nat` can be told.
#[derive(Debug, clap::Args)]
pub struct NatArgs {
    /// A STUN server to ask (several may be given), instead of well-known public ones. Testing how a NAT filters takes
    /// one with two addresses.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub stun: Vec<ServerName>,
    /// Test this interface only.
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Leave TCP out.
    #[arg(long)]
    pub udp_only: bool,
    /// Measure as well how long an idle UDP binding lives. It takes up to three minutes.
    #[arg(long)]
    pub lifetime: bool,
}
