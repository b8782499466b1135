//! One end of a duct that sends back whatever it receives until the other end closes:
//! `duct_echo --role parent|child --unix PATH | --tcp HOST:PORT`.
//!
//! A parent prints the address that it listens on. The other end may be written in any language
//! (`interop/duct/child.py`).

use std::process::ExitCode;

use natpipe::duct::blocking::{Duct, DuctChild, DuctParent};
use natpipe::duct::{DuctOptions, Raw, RecvError};

const USAGE: &str = "usage: duct_echo --role parent|child (--unix PATH | --tcp HOST:PORT)";

type Bytes = Vec<u8>;
type Failure = Box<dyn std::error::Error>;

enum Place {
    Unix(String),
    Tcp(String, u16),
}

fn main() -> ExitCode {
    let Some((role, place)) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let done = if role == "parent" { parent(place) } else { child(place) };
    match done.and_then(|duct| echo(&duct)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("duct_echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Option<(String, Place)> {
    let (mut role, mut place) = (None, None);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next()?;
        match flag.as_str() {
            "--role" if role.is_none() && matches!(value.as_str(), "parent" | "child") => role = Some(value),
            "--unix" if place.is_none() => place = Some(Place::Unix(value)),
            "--tcp" if place.is_none() => {
                let (host, port) = value.rsplit_once(':')?;
                let host = host.trim_start_matches('[').trim_end_matches(']');
                place = Some(Place::Tcp(host.to_owned(), port.parse().ok()?));
            }
            _ => return None,
        }
    }
    Some((role?, place?))
}

/// An echo waits as long as it takes.
fn options() -> DuctOptions {
    DuctOptions::new().timeout(None)
}

fn parent(place: Place) -> Result<Duct<Bytes, Raw>, Failure> {
    let parent = match place {
        Place::Unix(path) => DuctParent::unix(path),
        Place::Tcp(host, port) => DuctParent::tcp(host, port),
    };
    let mut parent = parent.codec(Raw).options(options());
    parent.bind()?;
    if let Some(address) = parent.listener_address() {
        println!("{address}");
    }
    parent.listen(None)?;
    parent.into_duct().ok_or_else(|| "no child came".into())
}

fn child(place: Place) -> Result<Duct<Bytes, Raw>, Failure> {
    let child = match place {
        Place::Unix(path) => DuctChild::unix(path),
        Place::Tcp(host, port) => DuctChild::tcp(host, port),
    };
    let mut child = child.codec(Raw).options(options());
    child.connect()?;
    child.into_duct().ok_or_else(|| "not connected".into())
}

fn echo(duct: &Duct<Bytes, Raw>) -> Result<(), Failure> {
    loop {
        match duct.recv() {
            Ok(message) => duct.send(&message)?,
            Err(RecvError::RemoteDuctClosed { inside: false }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
