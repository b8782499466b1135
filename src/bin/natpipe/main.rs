//! The natpipe command: what is asked for, and how it ended.

mod args;
mod commands;
mod ends;
mod holes;
mod output;
mod pattern;
mod peering;
mod progress;
mod simulate;
mod spec;
mod stdio;
mod usage;
mod world;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use args::{Args, Command};
use ends::{Signals, Stopped};

/// How a command came to its end.
enum Outcome {
    Done(anyhow::Result<()>),
    /// By a signal, and the status that this is.
    Stopped(ExitCode),
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(why) = args.check() {
        Args::command().error(ErrorKind::ArgumentConflict, why).exit();
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    // Networks of our own can only be had while there is one thread.
    let lab = match &args.command {
        Command::Lab(_) | Command::Demo { .. } => natpipe::lab::enter(),
        _ => Ok(()),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::failed(&anyhow::Error::new(error).context("cannot start")),
    };
    let status = match runtime.block_on(done_or_stopped(args, lab)) {
        // What could not be written is why anything else broke.
        Outcome::Done(done) => match stdio::written().and(done) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => output::failed(&error),
        },
        Outcome::Stopped(status) => {
            runtime.block_on(ends::parted());
            status
        }
    };
    // A thread that still waits for standard input must not hold the process.
    runtime.shutdown_background();
    status
}

async fn done_or_stopped(args: Args, lab: Result<(), natpipe::lab::LabError>) -> Outcome {
    if args.command.finishes_what_it_has() {
        let done = run(args, lab).await;
        let stopped = done.as_ref().err().and_then(|error| error.downcast_ref::<Stopped>());
        return match stopped {
            Some(Stopped(signal)) => Outcome::Stopped(signal.status().into()),
            None => Outcome::Done(done),
        };
    }
    let goes_on = args.command.goes_on();
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return Outcome::Done(Err(anyhow::Error::new(error).context("cannot listen to signals"))),
    };
    tokio::select! {
        done = run(args, lab) => Outcome::Done(done),
        signal = signals.next() => {
            Outcome::Stopped(if goes_on { ExitCode::SUCCESS } else { signal.status().into() })
        }
    }
}

async fn run(args: Args, lab: Result<(), natpipe::lab::LabError>) -> anyhow::Result<()> {
    let json = args.json;
    match args.command {
        Command::Interfaces { external, stun } => commands::interfaces::run(external, stun, json).await,
        Command::Nat(args) => commands::nat::run(args, json).await,
        Command::StunServer { listen, listen2 } => commands::stun_server::run(listen, listen2, json).await,
        Command::Peers { wait, interface } => commands::peers::run(wait, &interface, json).await,
        Command::Serve(args) => commands::serve::run(args, json).await,
        Command::Link { a, b } => commands::link::run(a, b, json).await,
        Command::Send(args) => commands::messages::send(args, json).await,
        Command::Recv(args) => commands::messages::recv(args, json).await,
        Command::Pool { role } => commands::pool::run(role, json).await,
        Command::Mq { command } => commands::mq::run(command, json).await,
        Command::Echo { spec } => commands::echo::run(spec, json).await,
        Command::Demo { mib } => commands::demo::run(mib, lab, json).await,
        Command::Listen(args) => commands::listen::run(args, json).await,
        Command::Connect(args) => commands::connect::run(args, json).await,
        Command::Punch(args) => commands::punch::run(args, json).await,
        Command::Lab(args) => commands::lab::run(args, lab, json).await,
        Command::Completions { shell } => commands::manual::completions(shell),
        Command::Man { dir } => commands::manual::man(dir.as_deref()),
    }
}
