//! Touches: a timer of Linux that also counts the time in which the machine slept (timerfd, CLOCK_BOOTTIME).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use tokio::io::unix::AsyncFd;

/// Rings after a time in which this program was not let run. It wakes the program once in each period.
pub(crate) struct SleepBell(AsyncFd<File>);

impl SleepBell {
    /// For sleeps of twice this period and longer.
    pub(crate) fn hang(period: Duration) -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and has no other owner.
        let timer = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let seconds = libc::timespec { tv_sec: period.as_secs() as libc::time_t, tv_nsec: 0 };
        let every = libc::itimerspec { it_interval: seconds, it_value: seconds };
        // SAFETY: the new setting lives through the call, and no old one is asked for.
        if unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const every, ptr::null_mut()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        #[allow(deprecated, reason = "its successor `register` is newer than the oldest tokio that we work with")]
        Ok(Self(AsyncFd::new(timer)?))
    }

    /// Until more than one period has passed at once. Cancel safe.
    pub(crate) async fn rung(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut passed = [0; 8];
            match ready.try_io(|timer| timer.get_ref().read_exact(&mut passed)) {
                Ok(read) => read?,
                Err(_would_block) => continue,
            }
            if u64::from_ne_bytes(passed) > 1 {
                return Ok(());
            }
        }
    }
}
