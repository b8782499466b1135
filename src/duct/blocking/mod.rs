//! Ducts for threads that have no runtime: the same API as [`duct`](super), with plain system calls.
//!
//! `send` is one call to the kernel and `recv` another; messages in quick succession share them (see
//! [`DuctOptions::gather`](super::DuctOptions::gather)). A duct over a [`Pipe`](crate::Pipe) runs its waiting on the pipe's runtime.

mod child;
mod duct;
mod exit;
mod flusher;
mod link;
mod parent;
mod receiving;
mod sending;

pub use child::DuctChild;
pub use duct::{Duct, DuctReceiver, DuctSender, Pair, pair, pair_with, start, start_with};
pub use parent::DuctParent;
