//! Waits: hands the packets that a NAT64 router sends into a device back to it, in the other family.

use std::io;

use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};

use super::nat64::Nat64;
use crate::base::task;
use crate::net::sys::tun::Tun;

/// The largest packet: what an IP header can declare.
const MAX_PACKET: usize = 1 << 16;

/// A translator at work. Dropping it ends it and removes its device.
pub(crate) struct Translator(Option<Runtime>);

impl Translator {
    pub(crate) fn start(tun: Tun, nat64: Nat64) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("lab-nat64").enable_io().build()?;
        let device = {
            let _inside = runtime.enter();
            #[allow(deprecated, reason = "its successor `register` is newer than the oldest tokio that we work with")]
            AsyncFd::new(tun)?
        };
        task::drive(runtime.handle(), translate(device, nat64));
        Ok(Self(Some(runtime)))
    }
}

impl Drop for Translator {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Until the device is gone.
async fn translate(device: AsyncFd<Tun>, nat64: Nat64) {
    let mut buffer = vec![0; MAX_PACKET];
    while let Ok(mut ready) = device.readable().await {
        let length = match ready.try_io(|device| device.get_ref().recv(&mut buffer)) {
            Ok(Ok(length)) => length,
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(Err(error)) => return tracing::debug!(%error, "a device is gone"),
            Err(_would_block) => continue,
        };
        if let Some(packet) = nat64.translate(&buffer[..length])
            && let Err(error) = device.get_ref().send(&packet)
        {
            tracing::trace!(%error, "a device did not take a packet");
        }
    }
}
