//! Waits: moves packets between the TUN devices and the core, each when it is due.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;

use super::backbone::{Backbone, Port, Prefix};
use super::device::Device;
use super::gate::Gate;
use crate::base::task;
use crate::lab::sim::Link;

/// The largest packet: what an IP header can declare.
const MAX_PACKET: usize = 1 << 16;
/// Packets read from one device before the others have their turn.
const MAX_AT_ONCE: usize = 64;

/// The core at work. Dropping it ends it and removes every device that it read.
pub(crate) struct Pump {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    state: Mutex<State>,
    /// The next due time has moved.
    moved: Notify,
    begun: Instant,
}

struct State {
    backbone: Backbone,
    devices: HashMap<Port, Arc<AsyncFd<Device>>>,
    /// What the timer waits for.
    armed: Option<Duration>,
}

impl Pump {
    /// Starts the core on a thread of its own.
    pub(crate) fn start(own: [IpAddr; 2], link: Link, seed: u64) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("lab-core").enable_all().build()?;
        let backbone = Backbone::new(own, link, seed);
        let state = State { backbone, devices: HashMap::new(), armed: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), moved: Notify::new(), begun: Instant::now() });
        task::drive(runtime.handle(), keep_time(shared.clone()));
        Ok(Self { shared, runtime: Some(runtime) })
    }

    /// Reads and writes a device, which has these addresses, from now on.
    pub(crate) fn attach(&self, device: Device, prefixes: Vec<Prefix>, gate: Option<Gate>) -> io::Result<Port> {
        let Some(handle) = self.runtime.as_ref().map(Runtime::handle) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let device = {
            let _inside = Handle::enter(handle);
            #[allow(deprecated, reason = "its successor `register` is newer than the oldest tokio that we work with")]
            Arc::new(AsyncFd::new(device)?)
        };
        let port = {
            let mut state = self.shared.lock();
            let port = state.backbone.attach(prefixes, gate);
            state.devices.insert(port, device.clone());
            port
        };
        task::drive(handle, read(self.shared.clone(), port, device));
        Ok(port)
    }

    /// Looks at the core or changes it, between two packets.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Backbone) -> T) -> T {
        change(&mut self.shared.lock().backbone)
    }

    /// The core's time now: since it was started.
    pub(crate) fn now(&self) -> Duration {
        self.shared.begun.elapsed()
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.shared.lock().devices.clear();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the core these packets, and the devices all that is due.
    fn turn(&self, from: Port, packets: Vec<Vec<u8>>) {
        let mut state = self.lock();
        for packet in packets {
            state.backbone.handle(self.begun.elapsed(), from, packet);
        }
        state.deliver(self.begun.elapsed());
        let next = state.backbone.next_due();
        if next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed)) {
            self.moved.notify_one();
        }
    }
}

impl State {
    fn deliver(&mut self, now: Duration) {
        while let Some((port, packet)) = self.backbone.poll(now) {
            let Some(device) = self.devices.get(&port) else { continue };
            if let Err(error) = device.get_ref().send(&packet) {
                self.backbone.not_taken();
                tracing::trace!(%error, "a device did not take a packet");
            }
        }
    }
}

/// Delivers what becomes due while nothing is read.
async fn keep_time(shared: Arc<Shared>) {
    loop {
        let next = {
            let mut state = shared.lock();
            state.deliver(shared.begun.elapsed());
            state.armed = state.backbone.next_due();
            state.armed
        };
        match next {
            None => shared.moved.notified().await,
            Some(at) => {
                let due = tokio::time::sleep_until((shared.begun + at).into());
                tokio::select! {
                    () = due => {}
                    () = shared.moved.notified() => {}
                }
            }
        }
    }
}

/// Reads one device until it is gone.
async fn read(shared: Arc<Shared>, port: Port, device: Arc<AsyncFd<Device>>) {
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let mut packets = Vec::new();
        let Ok(mut ready) = device.readable().await else { break };
        let mut gone = false;
        while packets.len() < MAX_AT_ONCE {
            match ready.try_io(|device| device.get_ref().recv(&mut buffer)) {
                Ok(Ok(length)) => packets.push(buffer[..length].to_vec()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, fd = device.as_raw_fd(), "a device is gone");
                    gone = true;
                    break;
                }
                Err(_would_block) => break,
            }
        }
        shared.turn(port, packets);
        if gone {
            break;
        }
    }
    let mut state = shared.lock();
    state.devices.remove(&port);
    state.backbone.detach(port);
}
