//! Touches: handing a duct to a child process.

use std::os::fd::AsRawFd;
use std::process::{Child, Command};

use socket2::Socket;

use super::error::{AttachError, StartError};
use super::place::{Place, VARIABLE};
use crate::base::task;
use crate::net::{private, sys};

/// Starts a program with one end of a new pair as an open descriptor, named in its environment, and returns the other
/// end. The child's end is open in the child alone: when it goes, this end learns of it.
pub(crate) fn start(mut command: Command) -> Result<(Child, Socket), StartError> {
    let (ours, theirs) = private::pair().map_err(AttachError::Socket)?;
    sys::keep_open(&mut command, theirs.as_raw_fd());
    command.env(VARIABLE, Place::Inherited(theirs.as_raw_fd()).to_string());
    let program = command.get_program().to_string_lossy().into_owned();
    let child = task::process(&mut command).map_err(|source| StartError::Start { program, source })?;
    Ok((child, ours))
}
