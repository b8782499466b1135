//! Decides: TURN's methods and attributes (RFC 8656 sections 17 and 18), and the requests made of them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::net::Family;
use crate::stun::{Class, NoRoom, Proof, TransactionId, Writer};

pub(super) const ALLOCATE: u16 = 0x003;
pub(super) const REFRESH: u16 = 0x004;
pub(super) const SEND: u16 = 0x006;
pub(super) const DATA_INDICATION: u16 = 0x007;
pub(super) const CREATE_PERMISSION: u16 = 0x008;
pub(super) const CHANNEL_BIND: u16 = 0x009;
/// RFC 6062 section 6.
pub(super) const CONNECT: u16 = 0x00A;
pub(super) const CONNECTION_BIND: u16 = 0x00B;
pub(super) const CONNECTION_ATTEMPT: u16 = 0x00C;

const CHANNEL_NUMBER: u16 = 0x000C;
pub(super) const LIFETIME: u16 = 0x000D;
pub(super) const XOR_PEER_ADDRESS: u16 = 0x0012;
pub(super) const DATA: u16 = 0x0013;
pub(super) const XOR_RELAYED_ADDRESS: u16 = 0x0016;
const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
const REQUESTED_TRANSPORT: u16 = 0x0019;
/// RFC 6062 section 6.2.
pub(super) const CONNECTION_ID: u16 = 0x002A;

/// As IP numbers them.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Bytes of the longest request: user name, realm, nonce and all else at their longest.
const ROOM: usize = 4096;

/// What is asked of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Allocate { family: Family, lifetime: Duration, tcp: bool },
    Refresh { lifetime: Duration },
    Permit(IpAddr),
    Bind { channel: u16, peer: SocketAddr },
    Connect(SocketAddr),
    BindConnection(u32),
}

impl What {
    pub(super) fn method(self) -> u16 {
        match self {
            Self::Allocate { .. } => ALLOCATE,
            Self::Refresh { .. } => REFRESH,
            Self::Permit(_) => CREATE_PERMISSION,
            Self::Bind { .. } => CHANNEL_BIND,
            Self::Connect(_) => CONNECT,
            Self::BindConnection(_) => CONNECTION_BIND,
        }
    }

    pub(super) fn encode(self, id: TransactionId, proof: &Proof) -> Result<Bytes, NoRoom> {
        let mut out = vec![0; ROOM];
        let mut writer = Writer::new(&mut out, Class::Request, self.method(), id)?;
        match self {
            Self::Allocate { family, lifetime, tcp } => {
                let transport = if tcp { TCP } else { UDP };
                writer
                    .attribute(REQUESTED_TRANSPORT, &[transport, 0, 0, 0])?
                    .attribute(LIFETIME, &seconds(lifetime))?;
                // Without it the family is IPv4, and servers that know nothing else are not troubled.
                if family == Family::V6 {
                    writer.attribute(REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])?;
                }
            }
            Self::Refresh { lifetime } => {
                writer.attribute(LIFETIME, &seconds(lifetime))?;
            }
            Self::Permit(ip) => {
                writer.xor_address(XOR_PEER_ADDRESS, SocketAddr::new(ip, 0))?;
            }
            Self::Bind { channel, peer } => {
                let [high, low] = channel.to_be_bytes();
                writer.attribute(CHANNEL_NUMBER, &[high, low, 0, 0])?.xor_address(XOR_PEER_ADDRESS, peer)?;
            }
            Self::Connect(peer) => {
                writer.xor_address(XOR_PEER_ADDRESS, peer)?;
            }
            Self::BindConnection(connection) => {
                writer.attribute(CONNECTION_ID, &connection.to_be_bytes())?;
            }
        }
        proof.sign(&mut writer)?;
        let len = writer.fingerprint()?.len();
        out.truncate(len);
        Ok(out.into())
    }
}

/// A datagram for a peer to whom no channel leads.
pub(super) fn send_indication(id: TransactionId, peer: SocketAddr, data: &[u8]) -> Result<Bytes, NoRoom> {
    const AROUND: usize = 64;
    let mut out = vec![0; data.len() + AROUND];
    let mut writer = Writer::new(&mut out, Class::Indication, SEND, id)?;
    writer.xor_address(XOR_PEER_ADDRESS, peer)?.attribute(DATA, data)?;
    let len = writer.len();
    out.truncate(len);
    Ok(out.into())
}

fn seconds(lifetime: Duration) -> [u8; 4] {
    u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).to_be_bytes()
}
