//! Touches: a namespace with a name: what `ip`, `nft` and kernel settings do in it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs, io};

use super::LabError;
use crate::net::sys::netns::{Namespace, memory_file};
use crate::net::sys::tun::{self, Tun};

/// Where the programs are that an ordinary user's PATH leaves out.
const SYSTEM_PROGRAMS: &str = "/usr/sbin:/sbin";

/// Set in every namespace: addresses may be used at once, replies may come by any interface.
const SETTINGS: [(&str, &str); 6] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
];

/// What a host's interfaces have carried since they were made, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Packets that it sent. One that the kernel hands over uncut (GSO) counts once.
    pub sent: u64,
    /// Bytes in them.
    pub bytes_sent: u64,
    /// Packets that it received.
    pub received: u64,
    /// Bytes in them.
    pub bytes_received: u64,
}

/// One network namespace of the lab.
#[derive(Debug)]
pub(crate) struct Space {
    name: String,
    namespace: Namespace,
}

impl Space {
    /// A new one with a loopback interface that is up.
    pub(crate) fn new(name: &str) -> Result<Self, LabError> {
        let namespace = Namespace::create().map_err(LabError::Namespace)?;
        let space = Self { name: name.to_owned(), namespace };
        for (key, value) in SETTINGS {
            space.set(key, value)?;
        }
        space.ip("link set lo up")?;
        Ok(space)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A path by which `ip` can name it.
    pub(crate) fn path(&self) -> PathBuf {
        self.namespace.path()
    }

    pub(crate) fn inside<T>(&self, work: impl FnOnce() -> T) -> Result<T, LabError> {
        self.namespace.inside(work).map_err(LabError::Namespace)
    }

    /// Moves the calling thread in for good.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.namespace.enter()
    }

    /// Runs these lines of `ip` commands; the first that fails ends it.
    pub(crate) fn ip(&self, lines: &str) -> Result<(), LabError> {
        self.tell("ip", &["-batch", "-"], lines)
    }

    /// Loads this ruleset, all of it or nothing.
    pub(crate) fn nft(&self, ruleset: &str) -> Result<(), LabError> {
        self.tell("nft", &["-f", "-"], ruleset)
    }

    /// Writes a setting below `/proc/sys/net`.
    pub(crate) fn set(&self, key: &str, value: &str) -> Result<(), LabError> {
        let path = PathBuf::from("/proc/sys/net").join(key);
        let written = self.inside(|| fs::write(&path, value))?;
        written.map_err(|source| LabError::Setting { path, space: self.name.clone(), source })
    }

    /// The same for a setting that not every kernel has.
    pub(crate) fn set_if_there(&self, key: &str, value: &str) -> Result<(), LabError> {
        let there = self.inside(|| PathBuf::from("/proc/sys/net").join(key).exists())?;
        if there { self.set(key, value) } else { Ok(()) }
    }

    /// Flows that the kernel tracks in it.
    pub(crate) fn conntrack_count(&self) -> Result<usize, LabError> {
        let text = self.read("/proc/sys/net/netfilter/nf_conntrack_count")?;
        Ok(text.trim().parse().unwrap_or(0))
    }

    /// What its interfaces but the loopback have carried.
    pub(crate) fn carried(&self) -> Result<Carried, LabError> {
        Ok(carried(&self.read("/proc/thread-self/net/dev")?))
    }

    fn read(&self, path: &str) -> Result<String, LabError> {
        let read = self.inside(|| fs::read_to_string(path))?;
        read.map_err(|source| LabError::Count { path: path.into(), space: self.name.clone(), source })
    }

    /// Makes a TUN device in it.
    pub(crate) fn tun(&self, name: &str) -> Result<Tun, LabError> {
        self.inside(|| Tun::create(name))?.map_err(|source| LabError::Tun { device: tun::DEVICE, source })
    }

    fn tell(&self, program: &'static str, args: &[&str], text: &str) -> Result<(), LabError> {
        let input = memory_file(text).map_err(|source| LabError::Program { program, source })?;
        let run = || {
            let mut command = Command::new(program);
            command.args(args).env("PATH", path()).stdin(Stdio::from(input)).output()
        };
        let output = self.inside(run)?.map_err(|source| LabError::Program { program, source })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(LabError::Refused { program, space: self.name.clone(), told: text.to_owned(), said })
    }
}

fn path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(SYSTEM_PROGRAMS);
    path
}

/// Reads the kernel's table: two lines of heads, then `name: bytes packets …`, eight columns for each direction.
fn carried(table: &str) -> Carried {
    let mut sum = Carried::default();
    for (name, counts) in table.lines().filter_map(|line| line.split_once(':')) {
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        if let ([bytes_received, received, _, _, _, _, _, _, bytes_sent, sent, ..], false) =
            (counts.as_slice(), name.trim() == "lo")
        {
            sum.received += received;
            sum.bytes_received += bytes_received;
            sum.sent += sent;
            sum.bytes_sent += bytes_sent;
        }
    }
    sum
}
