//! The natpipe command: what is asked for, and how it ended.

mod args;
mod commands;
mod holes;
mod output;
mod pattern;
mod peering;
mod progress;
mod simulate;
mod spec;
mod world;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
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
    let finishes = args.command.finishes_what_it_has();
    let result = runtime.block_on(async {
        tokio::select! {
            result = run(args, lab) => result,
            _ = tokio::signal::ctrl_c(), if !finishes => Ok(()),
        }
    });
    // A thread that still waits for standard input must not hold the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failed(&error),
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
