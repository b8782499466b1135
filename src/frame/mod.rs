//! Bytes to messages, for all who talk in them.
//!
//! ```text
//! sniff     first byte of a connection ─► what it speaks, and the connection as if nothing had been read
//! lengths   u32 length + payload ◄─► messages, whatever cuts the stream
//! ws        stream ─HTTP upgrade─► WebSocket ─► messages, or a byte stream again
//! msgpack   where a MessagePack value ends, its nesting checked
//! ```
//!
//! `lengths`, `msgpack` and `ws::upgrade` decide, without I/O; `framed`, `sniff` and the rest of `ws` wait. A length
//! from the network is compared with its limit before anything is allocated, a nesting with its depth.

pub mod framed;
pub mod lengths;
pub mod msgpack;
pub mod sniff;
#[cfg(feature = "ws")]
pub mod ws;
