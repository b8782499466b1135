//! Holds: what can be said on the command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

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
    Interfaces,
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
