//! Decides: tickets: a peer and where to meet it, as text that survives being pasted.
//!
//! The format is in `docs/protocols/peer.md`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ring::digest::{SHA256, digest};

use super::id::{alphabet, encode};
use super::once;
use super::url::Carrier;
use super::{BrokerUrl, PeerId, Place, Secret, ServerUrl, UrlError};

/// What tickets of this version begin with; others begin with `np` and another number.
const PREFIX: &str = "np1";
const FAMILY: &str = "np";
/// Bytes of the length and its check, and of the checksum at the end.
const HEAD: usize = 3;
const CHECKSUM: usize = 4;
/// Characters that hold the head, and a little more, as base32 has 5 bytes in 8 characters.
const HEAD_TEXT: usize = 8;
/// The longest content, and the longest text that is looked at, with room for white space in it.
const MAX_BODY: usize = 1024;
const MAX_TEXT: usize = 8 * 1024;

/// The most servers, brokers and addresses of a ticket.
const MAX_SERVERS: usize = 4;
const MAX_BROKERS: usize = 4;
const MAX_ADDRESSES: usize = 16;

/// Kinds of entries. Those that a reader does not know it leaves out.
mod entry {
    pub(super) const SECRET: u8 = 1;
    pub(super) const SERVER: u8 = 2;
    pub(super) const ADDRESS: u8 = 3;
    pub(super) const BROKER: u8 = 4;
    pub(super) const LAN: u8 = 5;
}

/// An address where the peer may be reached straight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TicketAddress {
    /// The address, without zone or flow.
    pub addr: SocketAddr,
    /// Whether UDP packets reach it there.
    pub udp: bool,
    /// Whether it accepts TCP connections there.
    pub tcp: bool,
}

/// Who a peer is and where to meet it: what one person gives another so that they get a pipe.
///
/// As text it is one word of lower-case letters and digits that can be pasted, dictated, or wrapped over lines, with a
/// checksum. `Debug` shows neither its secret nor its addresses; [`Display`](fmt::Display) is the ticket itself, and
/// belongs into no log.
///
/// ```
/// use natpipe::{Identity, Ticket};
///
/// let ticket = Ticket::new(Identity::generate()?.peer_id());
/// assert_eq!(ticket.to_string().parse::<Ticket>()?, ticket);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    peer: PeerId,
    secret: Option<Secret>,
    servers: Vec<ServerUrl>,
    brokers: Vec<BrokerUrl>,
    addresses: Vec<TicketAddress>,
    lan: bool,
}

/// Why a text is no ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It does not look like one.
    #[error("this is no ticket: tickets begin with {PREFIX}")]
    NotATicket,
    /// A part at its end is missing. Copy all of it.
    #[error("the ticket was cut: {missing} of its characters are missing; copy all of it")]
    Cut {
        /// How many characters are missing.
        missing: usize,
    },
    /// It is not as it was made: a typing error, or something pasted into it. Copy it again.
    #[error("the ticket was changed on the way; copy it again")]
    Changed,
    /// It was made by a newer natpipe. Update this one.
    #[error("the ticket is of version {version}, and this natpipe knows version 1; update it")]
    Newer {
        /// The ticket's version.
        version: u32,
    },
    /// It arrived as it was made, but what made it made it wrong.
    #[error("the ticket was made wrong: {0}")]
    Contents(&'static str),
}

impl Ticket {
    /// A ticket that names a peer, and yet nowhere to meet it.
    pub fn new(peer: PeerId) -> Self {
        Self { peer, secret: None, servers: Vec::new(), brokers: Vec::new(), addresses: Vec::new(), lan: false }
    }

    /// The peer.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Adds a rendezvous server. The first four count.
    pub fn with_server(mut self, server: ServerUrl) -> Self {
        self.servers.push(server);
        self.servers.truncate(MAX_SERVERS);
        self
    }

    /// Adds an MQTT broker. The first four count. Its user and password become part of the ticket: whoever has the ticket has them.
    pub fn with_broker(mut self, url: BrokerUrl) -> Self {
        self.brokers.push(url);
        self.brokers.truncate(MAX_BROKERS);
        self
    }

    /// Adds a place to meet, whichever it is.
    pub fn with_place(self, place: Place) -> Self {
        match place {
            Place::Server(url) => self.with_server(url),
            Place::Broker(url) => self.with_broker(url),
        }
    }

    /// Adds an address. The first sixteen count.
    pub fn with_address(mut self, address: TicketAddress) -> Self {
        let addr = SocketAddr::new(address.addr.ip().to_canonical(), address.addr.port());
        self.addresses.push(TicketAddress { addr, ..address });
        self.addresses.truncate(MAX_ADDRESSES);
        self
    }

    /// Tells that the peer announces itself on its network, so that who is there looks for it.
    pub fn with_lan(self) -> Self {
        Self { lan: true, ..self }
    }

    /// Whether the peer announces itself on its network.
    pub fn is_on_lan(&self) -> bool {
        self.lan
    }

    /// Makes it good for one connection only: the listener knows the secret and uses it up.
    pub fn with_secret(self, secret: Secret) -> Self {
        Self { secret: Some(secret), ..self }
    }

    /// The rendezvous servers where the peer is to be met.
    pub fn servers(&self) -> &[ServerUrl] {
        &self.servers
    }

    /// The MQTT brokers where the peer is to be met.
    pub fn brokers(&self) -> &[BrokerUrl] {
        &self.brokers
    }

    /// Addresses where the peer may be reached straight.
    pub fn addresses(&self) -> &[TicketAddress] {
        &self.addresses
    }

    /// The secret of a one-time ticket.
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// What stands inside of a ticket's text, read: so that the fuzz target gets past the checksum.
    ///
    /// # Errors
    /// [`TicketError::Contents`]; [`TicketError::NotATicket`] for what no text can hold.
    #[doc(hidden)]
    pub fn from_body(body: &[u8]) -> Result<Self, TicketError> {
        if body.len() > MAX_BODY { Err(TicketError::NotATicket) } else { read_body(body) }
    }

    fn body(&self) -> Vec<u8> {
        let mut body = self.peer.as_bytes().to_vec();
        if let Some(secret) = &self.secret {
            push(&mut body, entry::SECRET, secret.as_bytes());
        }
        for server in &self.servers {
            push(&mut body, entry::SERVER, &write_server(server));
        }
        for broker in &self.brokers {
            push(&mut body, entry::BROKER, broker.with_secrets().as_bytes());
        }
        for address in &self.addresses {
            push(&mut body, entry::ADDRESS, &write_address(address));
        }
        if self.lan {
            push(&mut body, entry::LAN, &[]);
        }
        body
    }
}

/// An entry: kind, length, bytes. All values are shorter than 256 bytes by their own limits, except a URL whose host and path
/// are both near their longest, which does not fit and is left out.
fn push(body: &mut Vec<u8>, kind: u8, value: &[u8]) {
    if let Ok(len) = u8::try_from(value.len())
        && body.len() + 2 + value.len() <= MAX_BODY
    {
        body.extend_from_slice(&[kind, len]);
        body.extend_from_slice(value);
    }
}

/// Carrier, port, key, host and path; the path left out where it is `/`.
fn write_server(server: &ServerUrl) -> Vec<u8> {
    let carrier = match server.carrier() {
        Carrier::Natpipe => 0,
        Carrier::Ws => 1,
        Carrier::Wss => 2,
    };
    let mut value = vec![carrier];
    value.extend_from_slice(&server.port().to_be_bytes());
    value.extend_from_slice(server.key().as_bytes());
    value.extend_from_slice(server.host().as_bytes());
    if server.path() != "/" {
        value.extend_from_slice(server.path().as_bytes());
    }
    value
}

/// `None` for a carrier that this version does not know.
fn read_server(value: &[u8]) -> Result<Option<ServerUrl>, TicketError> {
    const WRONG: TicketError = TicketError::Contents("a server's URL can not be read");
    let (&[carrier, high, low], rest) = value.split_first_chunk().ok_or(WRONG)?;
    let carrier = match carrier {
        0 => Carrier::Natpipe,
        1 => Carrier::Ws,
        2 => Carrier::Wss,
        _ => return Ok(None),
    };
    let (key, rest) = rest.split_first_chunk().ok_or(WRONG)?;
    let key = PeerId::from_bytes(*key).map_err(|_| WRONG)?;
    let place = std::str::from_utf8(rest).map_err(|_| WRONG)?;
    let (host, path) = place.find('/').map_or((place, "/"), |at| place.split_at(at));
    let url = ServerUrl::new(carrier, host, u16::from_be_bytes([high, low]), key).map_err(|_| WRONG)?;
    url.with_path(path).map(Some).map_err(|_| WRONG)
}

/// Flags (1: UDP, 2: TCP), port, 4 or 16 bytes of address.
fn write_address(address: &TicketAddress) -> Vec<u8> {
    let mut value = vec![u8::from(address.udp) | u8::from(address.tcp) << 1];
    value.extend_from_slice(&address.addr.port().to_be_bytes());
    match address.addr.ip() {
        IpAddr::V4(ip) => value.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => value.extend_from_slice(&ip.octets()),
    }
    value
}

fn read_address(value: &[u8]) -> Result<TicketAddress, TicketError> {
    const WRONG: TicketError = TicketError::Contents("an address can not be read");
    let (&[flags, high, low], rest) = value.split_first_chunk().ok_or(WRONG)?;
    let ip = match rest.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(rest).map_err(|_| WRONG)?),
        16 => IpAddr::from(<[u8; 16]>::try_from(rest).map_err(|_| WRONG)?).to_canonical(),
        _ => return Err(WRONG),
    };
    let addr = SocketAddr::new(ip, u16::from_be_bytes([high, low]));
    Ok(TicketAddress { addr, udp: flags & 1 != 0, tcp: flags & 2 != 0 })
}

fn read_body(body: &[u8]) -> Result<Ticket, TicketError> {
    let (peer, mut rest) = body.split_first_chunk().ok_or(TicketError::Contents("it names no peer"))?;
    let peer = PeerId::from_bytes(*peer).map_err(|_| TicketError::Contents("its peer is no valid key"))?;
    let mut ticket = Ticket::new(peer);
    while let [kind, len, after @ ..] = rest {
        let (value, after) =
            after.split_at_checked(usize::from(*len)).ok_or(TicketError::Contents("an entry is cut"))?;
        rest = after;
        ticket = match *kind {
            entry::SECRET => ticket.with_secret(read_secret(value)?),
            entry::SERVER => read_server(value)?.into_iter().fold(ticket, Ticket::with_server),
            entry::ADDRESS => ticket.with_address(read_address(value)?),
            entry::LAN => ticket.with_lan(),
            entry::BROKER => read_broker(value)?.into_iter().fold(ticket, Ticket::with_broker),
            _ => ticket,
        };
    }
    if rest.is_empty() { Ok(ticket) } else { Err(TicketError::Contents("an entry is cut")) }
}

fn read_secret(value: &[u8]) -> Result<Secret, TicketError> {
    let bytes: [u8; once::LEN] =
        value.try_into().map_err(|_| TicketError::Contents("its secret has a wrong length"))?;
    Ok(Secret::from_bytes(bytes))
}

/// `None` for a scheme that this version does not know.
fn read_broker(value: &[u8]) -> Result<Option<BrokerUrl>, TicketError> {
    const WRONG: TicketError = TicketError::Contents("a broker's URL can not be read");
    let text = std::str::from_utf8(value).map_err(|_| WRONG)?;
    match text.parse() {
        Ok(url) => Ok(Some(url)),
        Err(UrlError::BrokerScheme) if text.contains("://") => Ok(None),
        Err(_) => Err(WRONG),
    }
}

/// The length and one byte that tells whether the length itself has been changed: else a changed one would
/// be taken for a ticket that was cut.
fn head(len: usize) -> [u8; HEAD] {
    // MAX_BODY is far below the limit of u16.
    let [high, low] = (len as u16).to_be_bytes();
    [high, low, digest(&SHA256, &[high, low]).as_ref()[0]]
}

fn checksum(head_and_body: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&digest(&SHA256, &[PREFIX.as_bytes(), head_and_body].concat()).as_ref()[..CHECKSUM]);
    sum
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        let mut bytes = head(body.len()).to_vec();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&checksum(&bytes));
        write!(f, "{PREFIX}{}", encode(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// White space in it does not matter, nor does the case of letters.
    fn from_str(text: &str) -> Result<Self, TicketError> {
        if text.len() > MAX_TEXT {
            return Err(TicketError::NotATicket);
        }
        let text: String = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect();
        let Some(coded) = text.strip_prefix(PREFIX) else { return Err(other_version(&text)) };
        let start = coded
            .as_bytes()
            .get(..HEAD_TEXT)
            .ok_or(TicketError::Cut { missing: HEAD_TEXT - coded.len().min(HEAD_TEXT - 1) })?;
        let start = alphabet().decode(start).map_err(|_| TicketError::Changed)?;
        let len = usize::from(u16::from_be_bytes([start[0], start[1]]));
        if start[..HEAD] != head(len) || len > MAX_BODY {
            return Err(TicketError::Changed);
        }
        let whole = alphabet().encode_len(HEAD + len + CHECKSUM);
        if coded.len() < whole {
            return Err(TicketError::Cut { missing: whole - coded.len() });
        }
        let bytes = alphabet().decode(coded.as_bytes()).map_err(|_| TicketError::Changed)?;
        let (covered, sum) = bytes.split_at_checked(HEAD + len).ok_or(TicketError::Changed)?;
        if sum != checksum(covered) {
            return Err(TicketError::Changed);
        }
        read_body(&covered[HEAD..])
    }
}

fn other_version(text: &str) -> TicketError {
    let digits =
        text.strip_prefix(FAMILY).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(version) if version > 1 => TicketError::Newer { version },
        _ if !text.is_empty() && PREFIX.starts_with(text) => TicketError::Cut { missing: PREFIX.len() - text.len() },
        _ => TicketError::NotATicket,
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket(of {:?}, {} servers, ", self.peer, self.servers.len())?;
        write!(f, "{} brokers, {} addresses", self.brokers.len(), self.addresses.len())?;
        f.write_str(if self.secret.is_some() { ", for once)" } else { ")" })
    }
}

#[cfg(test)]
mod tests;
