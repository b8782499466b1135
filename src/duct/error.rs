//! Holds: how ducts fail, one type per operation, with the seed's names.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::codec::CodecError;
use super::wire::{Fault, Refused};
use crate::net::SocketError;

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The duct is not connected yet, or was closed here: `bind` and `listen`, or `connect`, come first.
    #[error("the duct is not connected: bind and listen, or connect, before sending")]
    NotConnected,
    /// The other end has closed.
    #[error("the other end of the duct is closed")]
    RemoteDuctClosed,
    /// The codec did not take the object. Nothing was sent.
    #[error("the object has no form on the wire: {source}")]
    Encode {
        /// The codec's word.
        #[source]
        source: CodecError,
    },
    /// The payload is longer than `max_message`. Nothing was sent.
    #[error("the message has {len} bytes, over the limit of {limit}: raise max_message on both ends")]
    TooLong {
        /// The payload's length.
        len: usize,
        /// The limit, `max_message`.
        limit: usize,
    },
    /// The other end takes no more within the limit.
    #[error("the other end took nothing for {limit:?}{}", if *.begun { "; the rest of the message goes before the next one" } else { "" })]
    TimedOut {
        /// The limit.
        limit: Duration,
        /// True when a part of the message has gone: the rest of it goes before the next one, and it must not be sent
        /// again. False: it was not sent at all.
        begun: bool,
    },
    /// Descriptors go over Unix sockets, at most 253 with one message.
    #[error("{count} descriptors cannot go with a message here: at most 253, over a Unix socket")]
    Descriptors {
        /// How many were given.
        count: usize,
    },
    /// The system's word.
    #[error("cannot send: {source}")]
    Io {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl SendError {
    pub(crate) fn from_refused(refused: Refused, limit: usize) -> Self {
        match refused {
            Refused::TooLong(len) => Self::TooLong { len, limit },
            Refused::Encode(source) => Self::Encode { source },
        }
    }

    pub(crate) fn from_kind(kind: io::ErrorKind) -> Self {
        if is_gone(kind) { Self::RemoteDuctClosed } else { Self::Io { source: kind.into() } }
    }

    /// The kind as `io::Error` has it.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::NotConnected => io::ErrorKind::NotConnected,
            Self::RemoteDuctClosed => io::ErrorKind::UnexpectedEof,
            Self::Encode { .. } | Self::TooLong { .. } | Self::Descriptors { .. } => io::ErrorKind::InvalidInput,
            Self::TimedOut { .. } => io::ErrorKind::TimedOut,
            Self::Io { source } => source.kind(),
        }
    }
}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Why no message was received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The duct is not connected yet, or was closed here: `bind` and `listen`, or `connect`, come first.
    #[error("the duct is not connected: bind and listen, or connect, before receiving")]
    NotConnected,
    /// The other end has closed, and everything was received.
    #[error("the other end of the duct is closed{}", if *.inside { ", in the middle of a message" } else { "" })]
    RemoteDuctClosed {
        /// True when it went in the middle of a message, which is lost.
        inside: bool,
    },
    /// What came is no message: another program, or a codec that writes its own frames. Nothing more can be received.
    #[error("a message begins with 0x54, not with {found:#04x}: the other end speaks another protocol")]
    MessageProtocol {
        /// The byte that came.
        found: u8,
    },
    /// A message is announced that is longer than `max_message`. Nothing more can be received.
    #[error("a message of {len} bytes is announced, over the limit of {limit}: raise max_message")]
    TooLong {
        /// The payload's length.
        len: usize,
        /// The limit, `max_message`.
        limit: usize,
    },
    /// The payload is not one of the type. The message is gone; the duct goes on.
    #[error("a message of {len} bytes is not of the expected type: {source}")]
    Decode {
        /// The payload's length.
        len: usize,
        /// The codec's word.
        #[source]
        source: CodecError,
    },
    /// More descriptors came with a message than `max_descriptors`, and were closed. The message is gone; the duct
    /// goes on.
    #[error("more than {limit} descriptors came with a message: raise max_descriptors")]
    Descriptors {
        /// The limit, `max_descriptors`.
        limit: usize,
    },
    /// No message came within the limit. What came of one stays for the next call.
    #[error("no message came within {limit:?}")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The system's word.
    #[error("cannot receive: {source}")]
    Io {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl RecvError {
    pub(crate) fn from_fault(fault: Fault, limit: usize) -> Self {
        match fault {
            Fault::Magic(found) => Self::MessageProtocol { found },
            Fault::TooLong(len) => Self::TooLong { len, limit },
            Fault::Ended { inside } => Self::RemoteDuctClosed { inside },
            Fault::Broken(kind) => Self::Io { source: kind.into() },
        }
    }

    /// The kind as `io::Error` has it: a remote duct that is closed is an end of file.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::NotConnected => io::ErrorKind::NotConnected,
            Self::RemoteDuctClosed { .. } => io::ErrorKind::UnexpectedEof,
            Self::MessageProtocol { .. } | Self::TooLong { .. } => io::ErrorKind::InvalidData,
            Self::Decode { .. } | Self::Descriptors { .. } => io::ErrorKind::InvalidData,
            Self::TimedOut { .. } => io::ErrorKind::TimedOut,
            Self::Io { source } => source.kind(),
        }
    }
}

impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// What an end that went away looks like to a stream socket.
pub(crate) fn is_gone(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as K;
    matches!(kind, K::BrokenPipe | K::ConnectionReset | K::ConnectionAborted | K::UnexpectedEof | K::NotConnected)
}

/// Why a parent could not bind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// It is bound, or has had its child.
    #[error("the duct is bound or connected already")]
    AlreadyConnected,
    /// The name of the interface is no address of this machine.
    #[error("cannot resolve `{host}`: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's word.
        #[source]
        source: io::Error,
    },
    /// The folder for the socket could not be made.
    #[error("cannot make a folder in {}: {source}", .place.display())]
    Folder {
        /// Where.
        place: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// Why a parent got no child.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// It has had its child, and takes no second one.
    #[error("the duct is connected already: it takes one child")]
    AlreadyConnected,
    /// `bind` comes first.
    #[error("the duct is not bound: call bind before listen")]
    NotBound,
    /// The kernel's word.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// The address.
        address: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The connection that came could not be made a duct.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// Why a child did not reach its parent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// It is connected, or was.
    #[error("the duct is connected already")]
    AlreadyConnected,
    /// The name did not become an address.
    #[error("cannot resolve `{host}`: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's word.
        #[source]
        source: io::Error,
    },
    /// Nobody listens there, after all tries; or it was refused for another reason, at the first.
    #[error("cannot connect to {address} ({tries} tries): {source}; is the parent bound, and has it no child yet?")]
    Refused {
        /// The parent's address.
        address: String,
        /// How often it was tried.
        tries: u32,
        /// What the kernel said to the last try.
        #[source]
        source: io::Error,
    },
    /// The descriptor or address in the environment is no duct.
    #[error(transparent)]
    Inherited(#[from] InheritError),
    /// The connection could not be made a duct.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// Why a connection could not be made a duct.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The pipe carries datagrams, which may be lost; a duct wants a stream.
    #[error("{pipe} carries datagrams: a duct wants a stream")]
    Datagrams {
        /// The pipe.
        pipe: String,
    },
    /// The async form was asked for outside a tokio runtime.
    #[error("no tokio runtime here: use duct::blocking, or call this inside a runtime")]
    NoRuntime,
    /// The kernel or the runtime refused the socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// Why a process got no duct from the one that started it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InheritError {
    /// The variable is not set: the process was not started with a duct.
    #[error("{variable} is not set: this process was not started with a duct")]
    NotSet {
        /// Its name.
        variable: &'static str,
    },
    /// The variable names no duct.
    #[error("{variable} is `{found}`; expected fd:NUMBER, unix:PATH or tcp:HOST:PORT")]
    NoDuct {
        /// Its name.
        variable: &'static str,
        /// What stands in it.
        found: String,
    },
    /// The descriptor was taken in this process before.
    #[error("descriptor {number} was taken already: a process has one duct from its parent; clone it")]
    AlreadyTaken {
        /// The descriptor.
        number: i32,
    },
    /// The descriptor is not open, or no connected stream socket.
    #[error("descriptor {number} is no duct: {source}")]
    Descriptor {
        /// The descriptor.
        number: i32,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
}

/// Why a child process was not started with a duct.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The pair of sockets could not be made.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}
