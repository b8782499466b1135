//! What both ends do, over whatever carries their messages.

use std::process::Command;
use std::time::{Duration, Instant};

/// A way to carry messages between two processes.
pub trait End {
    fn send(&mut self);
    fn recv(&mut self);
}

/// What is measured.
#[derive(Clone, Copy)]
pub struct Play {
    pub mode: &'static str,
    pub size: usize,
    pub count: usize,
}

impl Play {
    pub const fn new(mode: &'static str, size: usize, count: usize) -> Self {
        Self { mode, size, count }
    }

    /// Long enough for a quick peer to have more than a few turns of the scheduler.
    pub fn longer(&self) -> Self {
        let times = if self.size < 1000 && self.is_one_way() { 10 } else { 1 };
        Self { count: self.count * times, ..*self }
    }

    /// The command line of the child.
    pub fn child(&self, peer: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", peer, self.mode, &self.size.to_string(), &self.count.to_string()]);
        command
    }

    pub fn from_args(args: &[String]) -> Self {
        let mode = if args[0] == "one-way" { "one-way" } else { "round-trip" };
        Self::new(mode, args[1].parse().unwrap(), args[2].parse().unwrap())
    }

    pub fn is_one_way(&self) -> bool {
        self.mode == "one-way"
    }

    pub fn message(&self) -> Vec<u8> {
        vec![b'x'; self.size]
    }

    pub fn parent_plays(&self, end: &mut impl End) -> Duration {
        end.recv();
        let begun = Instant::now();
        for _ in 0..self.count {
            end.send();
            if !self.is_one_way() {
                end.recv();
            }
        }
        if self.is_one_way() {
            end.recv();
        }
        begun.elapsed()
    }

    pub fn child_plays(&self, end: &mut impl End) {
        end.send();
        for _ in 0..self.count {
            end.recv();
            if !self.is_one_way() {
                end.send();
            }
        }
        if self.is_one_way() {
            end.send();
        }
    }
}
