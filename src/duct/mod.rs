//! Message ducts: two ends, objects in, objects out; between threads, processes or machines. What Python's
//! `multiprocessing.Pipe` and `ductworks` are, with types, and with those at the other end if wanted.
//!
//! ```text
//! send     object ─codec─► payload ─wire: 54, length─► Outgoing ─► socket | Pipe
//! receive  socket | Pipe ─► Incoming ─wire─► payload ─codec─► object
//! ```
//!
//! A [`Duct`] is one end. [`pair`] makes both; [`DuctParent`] listens on a Unix path or a TCP port for the one
//! [`DuctChild`] that connects; [`Duct::over`] takes any open stream [`Pipe`](crate::Pipe), a peer's included. The same
//! names in [`blocking`] do the same on threads that have no runtime, with plain system calls.
//!
//! `wire`, `burst` and `codec` decide; `link`, `duct`, `parent`, `child` and all of `blocking` wait.
//!
//! ```
//! use natpipe::duct::blocking::{DuctChild, DuctParent, pair};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Both ends at once, as multiprocessing.Pipe gives them:
//! let (parent, child) = pair::<String>()?;
//! parent.send(&"hello!".into())?;
//! assert_eq!(child.recv()?, "hello!");
//!
//! // One end each, over TCP:
//! let mut parent = DuctParent::<(u32, String)>::tcp("127.0.0.1", 0);
//! parent.bind()?;
//! let address = parent.listener_address().expect("bound");
//! let mut child = DuctChild::<(u32, String)>::tcp("127.0.0.1", address.port().expect("TCP"));
//! child.connect()?;
//! assert!(parent.listen(Duration::from_secs(1))?);
//! parent.send(&(1, "test".into()))?;
//! assert!(child.poll(Duration::from_secs(1))?);
//! assert_eq!(child.recv()?, (1, "test".into()));
//! child.close();
//! assert_eq!(parent.recv().unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
//! # Ok(())
//! # }
//! ```

pub mod blocking;
mod burst;
mod child;
mod codec;
#[allow(clippy::module_inception, reason = "the room is called after its thing")]
mod duct;
mod error;
mod handover;
mod link;
mod listening;
mod options;
mod parent;
mod parting;
mod place;
mod receiving;
mod rights;
mod sending;
mod turns;
mod wire;

pub use child::DuctChild;
pub use codec::{Codec, CodecError, Json, MsgPack, Raw};
pub use duct::{Duct, DuctReceiver, DuctSender, Pair, pair, pair_with, start, start_with};
pub use error::{AttachError, BindError, ConnectError, InheritError, ListenError, RecvError, SendError, StartError};
pub use options::DuctOptions;
pub use parent::DuctParent;
pub use place::VARIABLE;
pub use rights::Received;
