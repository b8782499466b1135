//! Touches: what leads from a namespace into the core: a TUN device, or a cable where there may be none.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::LabError;
use super::backbone::Port;
use super::space::Space;
use crate::net::sys::cable::{Cable, NEAR, without_offload};
use crate::net::sys::tun::Tun;

/// Packets of one interface.
pub(crate) enum Device {
    Tun(Tun),
    /// With the name of its far end.
    Cable(Cable, String),
}

impl Device {
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tun(tun) => tun.recv(buffer),
            Self::Cable(cable, _) => cable.recv(buffer),
        }
    }

    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tun(tun) => tun.send(packet),
            Self::Cable(cable, _) => cable.send(packet),
        }
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tun(tun) => tun.as_raw_fd(),
            Self::Cable(cable, _) => cable.as_raw_fd(),
        }
    }
}

/// Makes devices of one internet.
#[derive(Default)]
pub(crate) struct Workshop {
    /// Never a TUN device.
    only_cables: bool,
    /// Where the far ends of cables are; nothing answers there.
    far: OnceLock<Space>,
    /// Which cable leads to which port.
    cables: Mutex<HashMap<Port, String>>,
    made: Mutex<u32>,
}

impl Workshop {
    /// One that makes cables even where TUN devices are allowed.
    pub(crate) fn of_cables() -> Self {
        Self { only_cables: true, ..Self::default() }
    }

    /// An interface in this namespace. Where TUN devices are not allowed it is a cable.
    pub(crate) fn make(&self, space: &Space, interface: &str) -> Result<Device, LabError> {
        if self.only_cables {
            return self.cable(space, interface);
        }
        match space.tun(interface) {
            Ok(tun) => Ok(Device::Tun(tun)),
            Err(LabError::Tun { device, source }) => {
                tracing::debug!(%source, device, "no TUN device here, so a cable");
                self.cable(space, interface)
            }
            Err(error) => Err(error),
        }
    }

    fn cable(&self, space: &Space, interface: &str) -> Result<Device, LabError> {
        let far = self.far()?;
        let name = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            *made += 1;
            format!("far{made}")
        };
        let near = NEAR.map(|byte| format!("{byte:02x}")).join(":");
        let there = space.path();
        let near = format!("name {interface} address {near} netns {}", there.display());
        far.ip(&format!("link add {name} type veth peer {near}\nlink set {name} up\n"))?;
        // It asks nobody for hardware addresses: all that it sends is for the core.
        space.ip(&format!("link set {interface} arp off\n"))?;
        let refused = |source| LabError::Cable { interface: interface.to_owned(), source };
        space.inside(|| without_offload(interface))?.map_err(refused)?;
        let cable = far.inside(|| Cable::open(&name))?.map_err(refused)?;
        Ok(Device::Cable(cable, name))
    }

    fn far(&self) -> Result<&Space, LabError> {
        if self.far.get().is_none() {
            let space = Space::new("far")?;
            space.set("ipv6/conf/default/disable_ipv6", "1")?;
            // Another thread may have been first; its namespace is as good.
            let _ = self.far.set(space);
        }
        self.far.get().ok_or_else(|| LabError::Stuck { space: "far".to_owned(), what: "a namespace".to_owned() })
    }

    /// Remembers where the device is attached.
    pub(crate) fn attached(&self, port: Port, cable: Option<String>) {
        if let Some(name) = cable {
            self.cables.lock().unwrap_or_else(PoisonError::into_inner).insert(port, name);
        }
    }

    /// Waits until an interface that was set up carries packets; a TUN device does at once.
    pub(crate) fn wait(&self, port: Port, space: &Space, interface: &str) -> Result<(), LabError> {
        let name = self.cables.lock().unwrap_or_else(PoisonError::into_inner).get(&port).cloned();
        let Some(name) = name else { return Ok(()) };
        space.wait_for_carrier(interface)?;
        self.far()?.wait_for_carrier(&name)
    }
}
