//! Holds: why a lab could not be built.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::Kind;

/// Why a lab, or a part of it, could not be built or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LabError {
    /// The system makes no network namespace for this process. Run as root; or let ordinary users make user
    /// namespaces (sysctl `kernel.unprivileged_userns_clone=1`, and on Ubuntu
    /// `kernel.apparmor_restrict_unprivileged_userns=0`) and call [`enter`](super::enter) first of all.
    #[error(
        "cannot make a network namespace: be root, or allow unprivileged user namespaces and enter one before any thread"
    )]
    Namespace(#[source] io::Error),
    /// `/dev/net/tun` is missing or may not be opened, and NAT64 needs it: load the `tun` module, or give the user the right to it.
    #[error("cannot make a TUN device of {device}")]
    Tun {
        /// Where the kernel offers them.
        device: &'static str,
        /// What it answered.
        #[source]
        source: io::Error,
    },
    /// There was to be a cable in place of a TUN device, and the system did not let its packets be read.
    #[error("cannot read the packets of {interface} (tried because there is no TUN device)")]
    Cable {
        /// The interface.
        interface: String,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// A program that the lab needs did not start: install iproute2 and nftables.
    #[error("cannot run {program} (Debian packages iproute2, nftables)")]
    Program {
        /// `ip` or `nft`.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program refused what it was told: the kernel lacks a feature that this lab needs, or a name is taken.
    #[error("{program} refused in {space}: {said}\n{told}")]
    Refused {
        /// `ip` or `nft`.
        program: &'static str,
        /// In whose namespace.
        space: String,
        /// What it was told.
        told: String,
        /// What it said.
        said: String,
    },
    /// A kernel setting could not be written.
    #[error("cannot set {path:?} in {space}")]
    Setting {
        /// The setting's file.
        path: PathBuf,
        /// In whose namespace.
        space: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The thread that moves packets, or one in a namespace, did not start.
    #[error("cannot start a runtime")]
    Runtime(#[source] io::Error),
    /// Every address of this kind has been given out: a lab has 250 of each.
    #[error("no address is left for {0}")]
    Full(String),
    /// There is no interface of this name.
    #[error("{space} has no interface {name}")]
    NoInterface {
        /// In whose namespace.
        space: String,
        /// The name asked for.
        name: String,
    },
    /// This kind of router cannot be behind another: what is behind one has IPv4 alone, and models stand at the
    /// core. Put it on the internet itself.
    #[error("a {kind} router cannot be behind another one")]
    Nested {
        /// What was asked for.
        kind: Kind,
    },
    /// The kernel took what it was told and does not act on it: it is stuck, or very busy.
    #[error("{what} in {space} does not come up")]
    Stuck {
        /// In whose namespace.
        space: String,
        /// What was waited for.
        what: String,
    },
    /// The internet is [direct](super::Internet::direct): no link, no model. Use
    /// [`Internet::new`](super::Internet::new) or [`Internet::with_link`](super::Internet::with_link).
    #[error("an internet whose core is the kernel neither delays nor holds a NAT's model: use one with a link")]
    Direct,
    /// The kernel does not count what it was asked to count.
    #[error("cannot read {path:?} in {space}")]
    Count {
        /// Where it stands.
        path: PathBuf,
        /// In whose namespace.
        space: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
