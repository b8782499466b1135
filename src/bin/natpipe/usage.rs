//! Decides: which options do not go together, where that hangs on what they say.

use crate::args::{Args, Call, Command, PoolRole};

impl Args {
    /// Whether all that is asked for can be done.
    ///
    /// # Errors
    /// What can not, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        match &self.command {
            Command::Listen(listen) if listen.qr && self.json => Err("--qr is a picture for people, and --json is not"),
            Command::Pool { role: PoolRole::Bind(pool) | PoolRole::Client(pool) }
                if pool.target.is_some() && !matches!(pool.call, Some(Call::Target)) =>
            {
                Err("--target says whom `--call target` asks, and nothing to any other call")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn is_usage(line: &str) -> bool {
        Args::try_parse_from(line.split(' ')).is_ok_and(|args| args.check().is_ok())
    }

    #[test]
    fn options_that_would_be_ignored_are_refused() {
        for (right, wrong) in [
            ("natpipe listen --qr", "natpipe listen --qr --json"),
            ("natpipe listen --json", "natpipe --json listen --qr"),
            (
                "natpipe pool bind 1 --call target --target a=b --message 1",
                "natpipe pool bind 1 --call target --message 1",
            ),
            ("natpipe pool bind 1 --call rand --message 1", "natpipe pool bind 1 --call rand --target a=b --message 1"),
            ("natpipe lab --simulate --runs 2", "natpipe lab --simulate --loss 3"),
            ("natpipe lab --loss 3 --mib 1", "natpipe lab --simulate --mib 1"),
            ("natpipe lab --a home", "natpipe lab --matrix --a home"),
        ] {
            assert!(is_usage(right), "{right}");
            assert!(!is_usage(wrong), "{wrong}");
        }
    }
}
