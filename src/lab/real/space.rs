//! Touches: a namespace with a name: what `ip`, `nft` and kernel settings do in it.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs, io, thread};

use super::LabError;
use crate::net::sys::netns::{Namespace, memory_file};
use crate::net::sys::tun::{self, Tun};

/// Where the programs are that an ordinary user's PATH leaves out.
const SYSTEM_PROGRAMS: &str = "/usr/sbin:/sbin";

/// How often and how long the kernel's work queue is waited for: it may be busy.
const TRIES: u32 = 5000;
const WAIT: Duration = Duration::from_millis(2);

/// Set in every namespace: addresses may be used at once, replies may come by any interface.
const SETTINGS: [(&str, &str); 6] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
];

/// Where the kernel says how many flows it tracks.
const TRACKED: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

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
        self.tell("ip", &["-batch", "-"], lines).map(drop)
    }

    /// Waits until a cable's interface carries packets. The kernel switches it on some time after the other end
    /// came up, and until then drops what it is given without a word.
    pub(crate) fn wait_for_carrier(&self, interface: &str) -> Result<(), LabError> {
        for _ in 0..TRIES {
            // Asking takes the lock under which it is switched on, so the answer is never early.
            let said = self.tell("ip", &["-oneline", "link", "show", "dev", interface], "")?;
            if said.contains(" state UP ") {
                return Ok(());
            }
            thread::sleep(WAIT);
        }
        Err(LabError::Stuck { space: self.name.clone(), what: interface.to_owned() })
    }

    /// Waits until the system takes packets to these addresses for its own. IPv6 addresses are there before
    /// the kernel's work queue has put them among the local routes, and until then it drops what comes for them.
    pub(crate) fn wait_for_local(&self, addresses: &[IpAddr]) -> Result<(), LabError> {
        let missing = |routes: &str| addresses.iter().find(|address| !is_local(routes, **address)).copied();
        for _ in 0..TRIES {
            if missing(&self.read("/proc/thread-self/net/ipv6_route")?).is_none() {
                return Ok(());
            }
            thread::sleep(WAIT);
        }
        Err(LabError::Stuck { space: self.name.clone(), what: "a new IPv6 address".to_owned() })
    }

    /// Loads this ruleset, all of it or nothing.
    pub(crate) fn nft(&self, ruleset: &str) -> Result<(), LabError> {
        self.tell("nft", &["-f", "-"], ruleset).map(drop)
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
        let text = self.read(TRACKED)?;
        text.trim().parse().map_err(|_| self.uncounted(TRACKED, io::ErrorKind::InvalidData.into()))
    }

    /// What its interfaces but the loopback have carried.
    pub(crate) fn carried(&self) -> Result<Carried, LabError> {
        Ok(carried(&self.read("/proc/thread-self/net/dev")?))
    }

    fn read(&self, path: &str) -> Result<String, LabError> {
        let read = self.inside(|| fs::read_to_string(path))?;
        read.map_err(|source| self.uncounted(path, source))
    }

    fn uncounted(&self, path: &str, source: io::Error) -> LabError {
        LabError::Count { path: path.into(), space: self.name.clone(), source }
    }

    /// Makes a TUN device in it.
    pub(crate) fn tun(&self, name: &str) -> Result<Tun, LabError> {
        self.inside(|| Tun::create(name))?.map_err(|source| LabError::Tun { device: tun::DEVICE, source })
    }

    fn tell(&self, program: &'static str, args: &[&str], text: &str) -> Result<String, LabError> {
        let input = memory_file(text).map_err(|source| LabError::Program { program, source })?;
        let run = || {
            let mut command = Command::new(program);
            command.args(args).env("PATH", path()).stdin(Stdio::from(input)).output()
        };
        let output = self.inside(run)?.map_err(|source| LabError::Program { program, source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
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

/// Whether the kernel's table of IPv6 routes has this address as its own: `address bits …`, flags in the
/// column before the last.
fn is_local(routes: &str, address: IpAddr) -> bool {
    let IpAddr::V6(address) = address else { return true };
    let head = format!("{:032x} 80 ", address.to_bits());
    let flags = |line: &str| line.split_whitespace().rev().nth(1).and_then(|flags| u32::from_str_radix(flags, 16).ok());
    routes.lines().any(|line| line.starts_with(&head) && flags(line).is_some_and(|flags| flags & RTF_LOCAL != 0))
}

/// A route to the system itself (linux/ipv6_route.h).
const RTF_LOCAL: u32 = 0x8000_0000;

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
