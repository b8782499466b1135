//! Holds: what can be said on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use natpipe::key::Place;
use natpipe::lab::{Kind, Setup};
use natpipe::rendezvous::Proxy;
use natpipe::smart::Identity;
use natpipe::stun::ServerName;
use natpipe::turn::TurnServer;
use natpipe::{PeerId, Ticket};

use crate::commands::stun_server::listen_addr;
use crate::spec::Spec;

const SPECS: &str = "A SPEC is one end of a pipe:\n  \
    stdio\n  \
    tcp:HOST:PORT        tcp-listen:[HOST:]PORT\n  \
    udp:HOST:PORT        udp-listen:[HOST:]PORT\n  \
    unix:PATH            unix-listen:PATH\n  \
    tls:HOST:PORT        ws://HOST[:PORT]/PATH, wss://…  (a client, bytes in binary messages)\n  \
    peer:TICKET          (of link)\n\n\
    Exit status: 0 done, 1 it failed (one line says why), 2 wrong usage, 130 or 143 stopped by a signal\n\
    (0 for what goes on until it is stopped, as a server does).";

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
        /// A second address with another port, of the family of a --listen; where there are several of a family, in the same order.
        #[arg(long, value_name = "ADDR2", value_parser = listen_addr)]
        listen2: Vec<SocketAddr>,
    },
    /// Make a ticket, and wait for whoever uses it, whatever stands between: connect it to standard input and output, or to
    /// --to.
    Listen(ListenArgs),
    /// Reach the peer that a ticket names, and connect it to standard input and output, or to --from.
    Connect(ConnectArgs),
    /// List the peers that announce themselves on this network (`listen --lan`). Anybody can announce anything: who they are proves
    /// itself when they are connected to.
    Peers {
        /// How many seconds to listen.
        #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
        wait: f64,
        /// On this interface only (several may be given).
        #[arg(long, value_name = "NAME")]
        interface: Vec<String>,
    },
    /// Be the server where peers meet: STUN, signalling and relay in one process.
    Serve(ServeArgs),
    /// Punch one hole through the NATs of both ends, with no server in between, and connect it to standard input and output:
    /// by two lines that people carry, or agreed over any stream. What goes through it is encrypted, and both ends prove their
    /// keys.
    Punch(PunchArgs),
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
    /// Send standard input as messages, each to one peer in turn, to all, or to one by name (see the guide to
    /// smart sockets). What is sent while nobody is there is kept; at the end of input it waits for the rest to leave.
    Send(SendArgs),
    /// Receive messages, from whoever sends, and write them to standard output.
    Recv(RecvArgs),
    /// Push messages, call, and consume, over a message broker (or straight over a pipe).
    Mq {
        #[command(subcommand)]
        command: MqCommand,
    },
    /// Be in a pool of websocket connections: answer what members ask, or ask them once.
    Pool {
        #[command(subcommand)]
        role: PoolRole,
    },
    /// Connect two peers that are each behind a home router, on this machine, and move data both ways; then the same through
    /// pipes of every kind. Every byte is checked.
    Demo {
        /// MiB through each stream, and each way.
        #[arg(long, value_name = "MIB", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        mib: u32,
    },
    /// Build two NATs, a rendezvous server and two peers on this machine (Linux, no root), and connect them.
    Lab(LabArgs),
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
        /// End after so many messages, which are processed one after the other.
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

/// Whom `send` sends to.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Mode {
    /// Each message to one peer, in turn.
    Roundrobin,
    /// Each message to all peers.
    Publish,
    /// Only to the peer that --to names.
    Identity,
}

/// What is promised.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Guarantee {
    /// A message arrives once or not at all.
    AtMostOnce,
    /// It is sent again until it is acknowledged.
    AtLeastOnce,
}

/// How messages stand in a byte stream.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Framing {
    /// A line each.
    Lines,
    /// A length of 32 bits (big-endian), then that many bytes.
    Length,
}

/// What both ends can be told.
#[derive(Debug, clap::Args)]
pub struct SmartArgs {
    /// Where: tcp:, unix: and tls: connect, and connect again whenever that ends; tcp-listen: and unix-listen: bind.
    /// Any number of them.
    #[arg(required = true)]
    pub spec: Vec<Spec>,
    /// Who this end is, 32 hexadecimal digits, instead of a random identity.
    #[arg(long, value_name = "HEX")]
    pub identity: Option<Identity>,
    /// How messages stand in standard input or output.
    #[arg(long, default_value = "lines")]
    pub framing: Framing,
}

/// What `send` can be told.
#[derive(Debug, clap::Args)]
pub struct SendArgs {
    #[command(flatten)]
    pub socket: SmartArgs,
    /// Whom each message goes to.
    #[arg(long, default_value = "roundrobin")]
    pub mode: Mode,
    /// The peer that all messages are for.
    #[arg(long, value_name = "HEX", required_if_eq("mode", "identity"))]
    pub to: Option<Identity>,
    /// What is promised about a message. What is published is sent at most once all the same.
    #[arg(long, default_value = "at-most-once")]
    pub delivery: Guarantee,
    /// Begin when so many peers are connected.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub peers: usize,
    /// Seconds to wait, at the end of input, for what has not left or is not acknowledged.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub linger: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is no number of seconds from 0 to 1000000");
    text.parse().ok().filter(|seconds| (0.0..=1e6).contains(seconds)).ok_or_else(wrong)
}

/// What `recv` can be told.
#[derive(Debug, clap::Args)]
pub struct RecvArgs {
    #[command(flatten)]
    pub socket: SmartArgs,
    /// End after so many messages.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Write the sender's identity and a space before each message.
    #[arg(long)]
    pub with_identity: bool,
    /// Receive of what is published only what begins so. Several may be given.
    #[arg(long, value_name = "PREFIX")]
    pub topic: Vec<String>,
}

/// How a pool gets its members.
#[derive(Debug, Subcommand)]
pub enum PoolRole {
    /// Listen for members at these addresses.
    Bind(PoolArgs),
    /// Connect to members at these addresses (HOST:PORT, ws://…, wss://…), and again when a connection is lost.
    Client(PoolArgs),
}

/// What `pool` can be told.
#[derive(Debug, clap::Args)]
pub struct PoolArgs {
    /// Where.
    #[arg(value_name = "ADDR")]
    pub addrs: Vec<String>,
    /// A Unix socket as well.
    #[arg(long, value_name = "PATH")]
    pub unix: Option<PathBuf>,
    /// What to answer: `echo`, or `exec:COMMAND`, which gets each message as JSON on its standard input and answers with
    /// each line that it writes.
    #[arg(long, value_name = "WITH", default_value = "echo", value_parser = answer_with)]
    pub answer: AnswerWith,
    /// Wait for a member, ask, print each answer as a line of JSON, and end.
    #[arg(long, value_name = "WHOM", requires = "message")]
    pub call: Option<Call>,
    /// What to ask, as JSON.
    #[arg(long, value_name = "JSON", requires = "call")]
    pub message: Option<String>,
    /// With `--call target`: those whose metadata KEY is like GLOB.
    #[arg(long, value_name = "KEY=GLOB", value_parser = key_value, requires = "call", required_if_eq("call", "target"))]
    pub target: Option<(String, String)>,
    /// What to tell of oneself (several may be given).
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub meta: Vec<(String, String)>,
    /// A bearer token: wanted from those who connect, or sent to those who listen.
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Seconds to wait for a member, and then for its answers.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds, requires = "call")]
    pub timeout: f64,
}

/// What a member is answered with.
#[derive(Clone, Debug)]
pub enum AnswerWith {
    /// Its own message.
    Echo,
    /// What a command writes.
    Exec(String),
}

/// Whom to ask.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Call {
    /// One at random.
    Rand,
    /// All.
    Publish,
    /// The least busy.
    Avail,
    /// Those whose metadata match `--target`.
    Target,
}

fn answer_with(text: &str) -> Result<AnswerWith, String> {
    match text.strip_prefix("exec:") {
        Some(command) if !command.trim().is_empty() => Ok(AnswerWith::Exec(command.to_owned())),
        None if text == "echo" => Ok(AnswerWith::Echo),
        _ => Err("it is echo or exec:COMMAND".to_owned()),
    }
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

/// What `serve` can be told.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// ADDRESS:PORT, or a port for every address: TLS and STUN over TCP, STUN over UDP.
    #[arg(long, value_name = "ADDR", default_value = "3478", value_parser = listen_addr)]
    pub listen: SocketAddr,
    /// A second address of the same family with another port, for STUN: with it clients can test how their NAT filters.
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub listen2: Option<SocketAddr>,
    /// The name or address by which others reach this server, for its URL.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// The server's key, made where there is none. Without it the server has another key, and another URL, at each start.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Answer http://ADDR/metrics for Prometheus, and http://ADDR/health.
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub metrics: Option<SocketAddr>,
    /// Peers in all.
    #[arg(long, value_name = "N")]
    pub max_peers: Option<usize>,
    /// Connections of one address.
    #[arg(long, value_name = "N")]
    pub max_per_address: Option<usize>,
    /// Kilobytes that each peer may relay each second.
    #[arg(long, value_name = "KB", value_parser = clap::value_parser!(u64).range(1..))]
    pub relay_rate: Option<u64>,
    /// Megabytes that each address may relay each day.
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..))]
    pub relay_quota: Option<u64>,
    /// Relay nothing: signalling and STUN only.
    #[arg(long, conflicts_with_all = ["relay_rate", "relay_quota"])]
    pub no_relay: bool,
}

/// What several paths are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Several {
    /// Each datagram goes by two paths.
    Duplicate,
    /// The bytes of streams go by all paths, where both ends say so.
    Throughput,
}

impl From<Several> for natpipe::peer::Multipath {
    fn from(several: Several) -> Self {
        match several {
            Several::Duplicate => Self::Duplicate,
            Several::Throughput => Self::Throughput,
        }
    }
}

/// What `listen` and `connect` can both be told.
#[derive(Debug, clap::Args)]
pub struct PeerArgs {
    /// Where to meet: a rendezvous server, as `natpipe serve` prints it, or an MQTT broker: mqtt://[USER:PASSWORD@]HOST[:PORT],
    /// mqtts://…, ws://…/PATH, wss://…/PATH (several may be given). A ticket brings its own.
    #[arg(long, value_name = "URL")]
    pub via: Vec<Place>,
    /// Whom the web's TLS trusts instead of this system's authorities: a file of certificates (PEM).
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Who we are, made where there is none. Default: someone new each time.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Let in this peer only (several may be given).
    #[arg(long, value_name = "PEER")]
    pub allow: Vec<PeerId>,
    /// Send no bytes through a server.
    #[arg(long, conflicts_with = "relay_only")]
    pub direct_only: bool,
    /// Send all bytes through a server, so that the peers do not learn each other's addresses.
    #[arg(long)]
    pub relay_only: bool,
    /// Use several paths to the peer at once: for each datagram that this end sends two of them, or all of them for streams.
    #[arg(long, value_enum, value_name = "USE")]
    pub multipath: Option<Several>,
    /// How long to wait for a peer that is out of reach, while its machine sleeps for example. Default: five minutes.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub patience: Option<u64>,
    /// Use this interface only (several may be given).
    #[arg(long, value_name = "NAME")]
    pub interface: Vec<String>,
    /// One more STUN server to ask (several may be given).
    #[arg(long, value_name = "HOST[:PORT]")]
    pub stun: Vec<ServerName>,
    /// Tell this network that we are here, and look there for the peer (mDNS): no server and no Internet is needed.
    #[arg(long)]
    pub lan: bool,
    /// Use no public server of those that are used where none is named: as --no-public-mqtt and --no-public-stun.
    #[arg(long)]
    pub no_public: bool,
    /// Do not be met at public MQTT brokers, which `listen` uses without --via.
    #[arg(long)]
    pub no_public_mqtt: bool,
    /// Do not ask public STUN servers, which are asked without --stun where no rendezvous server answers.
    #[arg(long)]
    pub no_public_stun: bool,
    /// Go to rendezvous servers and brokers through this HTTP proxy: http://[USER:PASSWORD@]HOST:PORT.
    #[arg(long, value_name = "URL")]
    pub proxy: Option<Proxy>,
    /// Meet at this TURN server where nothing straighter works (several may be given): turn:USER:PASSWORD@HOST[:PORT][?transport=udp|tcp],
    /// turns:… over TLS, turn:HOST?secret=SECRET. One end that has one is enough.
    #[arg(long, value_name = "URL")]
    pub turn: Vec<TurnServer>,
    /// Do not ask the router to open ports (PCP, NAT-PMP, UPnP).
    #[arg(long)]
    pub no_port_mapping: bool,
}

/// What `listen` can be told.
#[derive(Debug, clap::Args)]
pub struct ListenArgs {
    /// Connect each pipe of a peer to this, instead of one to standard input and output.
    #[arg(long, value_name = "SPEC")]
    pub to: Option<Spec>,
    /// End when the first pipes have ended.
    #[arg(long)]
    pub once: bool,
    /// The ticket is good for one connection.
    #[arg(long)]
    pub one_time: bool,
    /// Show the ticket as QR code as well.
    #[arg(long)]
    pub qr: bool,
    #[command(flatten)]
    pub peer: PeerArgs,
}

/// What `connect` can be told.
#[derive(Debug, clap::Args)]
pub struct ConnectArgs {
    /// The ticket, from `natpipe listen`.
    pub ticket: Ticket,
    /// Connect this to the peer; a listening SPEC takes all who come.
    #[arg(long, value_name = "SPEC")]
    pub from: Option<Spec>,
    #[command(flatten)]
    pub peer: PeerArgs,
}

/// UDP or TCP.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OverArg {
    /// ICE, and QUIC over it.
    Udp,
    /// Simultaneous open, and TLS over it.
    Tcp,
}

/// What `punch` can be told.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("how").required(true).args(["manual", "through"]))]
pub struct PunchArgs {
    /// Print a line for the other side, and read the other side's line as the first of standard input. What follows is data.
    #[arg(long)]
    pub manual: bool,
    /// Agree with the other end over this stream instead: straight, or joined by someone who can reach both.
    #[arg(long, value_name = "SPEC")]
    pub through: Option<Spec>,
    /// What the hole is for.
    #[arg(long, default_value = "udp")]
    pub proto: OverArg,
    /// A STUN server to ask for our external address (several may be given; two of different addresses show what the NAT does),
    /// instead of well-known public ones.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub stun: Vec<ServerName>,
    /// Use this interface only (several may be given).
    #[arg(long, value_name = "NAME")]
    pub interface: Vec<String>,
    /// Who we are, made where there is none. Default: someone new each time.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// The other end has to be this peer.
    #[arg(long, value_name = "PEER")]
    pub peer: Option<PeerId>,
    /// Seconds to wait for the other end to begin.
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0, value_parser = seconds)]
    pub wait: f64,
    /// Do not ask the router to open the ports that are punched from.
    #[arg(long)]
    pub no_port_mapping: bool,
    /// Read the other side's line from the terminal, so that all of standard input is data.
    #[arg(long, requires = "manual")]
    pub tty: bool,
    /// Where both NATs choose ports at random out of all of them, try all the same: 280,000 packets in 40 seconds. Both ends
    /// have to say so.
    #[arg(long)]
    pub all_out: bool,
}

/// What `lab` can be told.
#[derive(Debug, clap::Args)]
pub struct LabArgs {
    /// The router before the peer that has the ticket, as `home`, `symmetric-random`, `linux/drop`.
    #[arg(long, value_name = "KIND", default_value = "home")]
    pub a: Setup,
    /// The router before the peer that made it.
    #[arg(long, value_name = "KIND", default_value = "home")]
    pub b: Setup,
    /// Every pair of these kinds instead.
    #[arg(long, conflicts_with_all = ["a", "b"])]
    pub matrix: bool,
    /// Only punch holes for this, without a server that relays, and tell how often, how soon and with how many packets.
    #[arg(long, value_name = "PROTO", conflicts_with = "mib")]
    pub punch: Option<OverArg>,
    /// With --punch: try where both NATs choose ports at random out of all of them.
    #[arg(long, requires = "punch")]
    pub all_out: bool,
    /// Instead, simulate every pair of the 35 NATs of seed 002's system in memory, --runs times each, and show the theory beside it.
    #[arg(long, conflicts_with_all = ["matrix", "punch", "a", "b", "delay", "loss", "mib"])]
    pub simulate: bool,
    /// The kinds of the matrix. Default: fourteen.
    #[arg(long, value_name = "KIND", value_delimiter = ',', requires = "matrix")]
    pub kinds: Vec<Kind>,
    /// How often each pair is connected.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// How many rows of a matrix of peers are made at once, each in a network of its own.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "matrix", conflicts_with = "punch", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub jobs: u8,
    /// One way through the middle of the network, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 10)]
    pub delay: u64,
    /// Packets that the middle of the network loses, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub loss: f64,
    /// MiB each way. Default: 8, and 1 in the matrix.
    #[arg(long, value_name = "MIB")]
    pub mib: Option<u32>,
    /// List the kinds.
    #[arg(long)]
    pub list: bool,
}
