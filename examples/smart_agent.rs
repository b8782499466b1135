//! A smart socket that does one thing, with the flags of the test agents of its protocol: sends numbered messages,
//! receives, or answers each message with itself.
//!
//! ```text
//! cargo run --example smart_agent -- --role bind --behavior sink --count 3
//! cargo run --example smart_agent -- --role connect --behavior source --count 3 --prefix hello-
//! ```

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use natpipe::NetConf;
use natpipe::pipe::tls::{Identity as Certificate, TlsClient, TlsServer};
use natpipe::smart::{Delivery, Endpoint, Identity, SendMode, SmartSocket};

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Bind,
    Connect,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Publish,
    Roundrobin,
}

#[derive(Clone, Copy, ValueEnum)]
enum Behavior {
    Source,
    Sink,
    Echo,
}

#[derive(Clone, Copy, ValueEnum)]
enum Guarantee {
    AtMostOnce,
    AtLeastOnce,
}

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "connect")]
    role: Role,
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    #[arg(long, default_value_t = 25000)]
    port: u16,
    #[arg(long, default_value = "roundrobin")]
    send_mode: Mode,
    #[arg(long, default_value = "sink")]
    behavior: Behavior,
    #[arg(long, default_value_t = 10)]
    count: u64,
    #[arg(long, default_value = "m")]
    prefix: String,
    #[arg(long, default_value = "at-most-once")]
    delivery: Guarantee,
    #[arg(long)]
    identity: Option<Identity>,
    /// Seconds that a source or an echo stays after its last message.
    #[arg(long, default_value_t = 1.0)]
    linger: f64,
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set)]
    tls: bool,
    #[arg(long)]
    tls_cert: Option<PathBuf>,
    #[arg(long)]
    tls_key: Option<PathBuf>,
    #[arg(long)]
    tls_ca: Option<PathBuf>,
    #[arg(long)]
    tls_server_name: Option<String>,
}

type Failed = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let args = Args::parse();
    let socket = socket(&args)?;
    let endpoint = Endpoint::from((args.host.as_str(), args.port)).conf(conf(&args)?);
    match args.role {
        Role::Bind => eprintln!("bound to {}", socket.bind(endpoint).await?),
        Role::Connect => socket.connect(endpoint)?,
    }
    match args.behavior {
        Behavior::Source => {
            for n in 0..args.count {
                socket.send(format!("{}{n}", args.prefix)).await?;
            }
            stay(&args).await;
        }
        Behavior::Sink => {
            for _ in 0..args.count {
                show(&socket.recv().await?)?;
            }
        }
        Behavior::Echo => {
            for _ in 0..args.count {
                let message = socket.recv_from().await?;
                show(&message.data)?;
                socket.send_to(message.from, message.data).await?;
            }
            stay(&args).await;
        }
    }
    socket.close().await?;
    Ok(())
}

fn socket(args: &Args) -> Result<SmartSocket, Failed> {
    let builder = SmartSocket::builder()
        .mode(match args.send_mode {
            Mode::Publish => SendMode::Publish,
            Mode::Roundrobin => SendMode::RoundRobin,
        })
        .delivery(match args.delivery {
            Guarantee::AtMostOnce => Delivery::AtMostOnce,
            Guarantee::AtLeastOnce => Delivery::AtLeastOnce,
        });
    Ok(match args.identity {
        Some(identity) => builder.identity(identity),
        None => builder,
    }
    .build()?)
}

fn conf(args: &Args) -> Result<NetConf, Failed> {
    let conf = NetConf::default();
    if !args.tls {
        return Ok(conf);
    }
    let own = match (&args.tls_cert, &args.tls_key) {
        (Some(chain), Some(key)) => Some(Certificate::from_files(chain, key)?),
        _ => None,
    };
    let ca = args.tls_ca.as_ref().map(std::fs::read_to_string).transpose()?;
    Ok(match (args.role, own) {
        (Role::Bind, None) => return Err("a bound end needs --tls-cert and --tls-key".into()),
        (Role::Bind, Some(own)) => conf.tls_server(match ca {
            Some(ca) => TlsServer::with_client_roots(own, &ca)?,
            None => TlsServer::new(own)?,
        }),
        (Role::Connect, own) => {
            let client = match ca {
                Some(ca) => TlsClient::trusting(&ca)?,
                None => TlsClient::system()?,
            };
            let client = match own {
                Some(own) => client.identity(own),
                None => client,
            };
            conf.tls_client(match &args.tls_server_name {
                Some(name) => client.server_name(name),
                None => client,
            })
        }
    })
}

async fn stay(args: &Args) {
    tokio::time::sleep(Duration::from_secs_f64(args.linger)).await;
}

fn show(payload: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(payload)?;
    out.write_all(b"\n")?;
    out.flush()
}
