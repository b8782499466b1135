//! Decides: what a Binding request says, and how patiently and with whose credentials it is asked.

use std::net::SocketAddr;

use super::attribute::{BINDING, Change, Class, TransactionId};
use super::build::{NoRoom, Writer};
use super::credentials::{Credentials, Proof};
use super::transaction::Timing;

/// Room for all that a request carries besides PADDING: user name (509), realm and nonce (763 each), two HMACs,
/// PASSWORD-ALGORITHMS, SOFTWARE.
const ROOM: usize = 4096;
/// The most PADDING that a request may carry, in bytes: what fits into a UDP datagram with all else.
const MOST_PADDING: usize = 60_000;

/// In which words a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// RFC 8489, and RFC 3489 if the server calls that a bad request.
    #[default]
    Either,
    /// RFC 8489 alone.
    Modern,
    /// RFC 3489 alone: no cookie, no attribute besides CHANGE-REQUEST.
    Classic,
}

/// A Binding request and how it is asked. The default is a plain question over datagrams.
///
/// ```
/// use natpipe::stun::{Change, Credentials, Request};
///
/// let filtering = Request::new().change(Change { ip: true, port: true });
/// let account = Request::new().credentials(Credentials::long_term("ann", "secret")).over_stream();
/// ```
#[derive(Debug, Clone)]
pub struct Request {
    pub(super) form: Form,
    pub(super) change: Change,
    pub(super) answer_from: Option<SocketAddr>,
    pub(super) timing: Timing,
    pub(super) credentials: Option<Credentials>,
    pub(super) most_redirects: u32,
    pub(super) stream: bool,
    response_port: Option<u16>,
    padding: usize,
    software: bool,
}

impl Default for Request {
    fn default() -> Self {
        Self::new()
    }
}

impl Request {
    /// A plain question.
    pub fn new() -> Self {
        Self {
            form: Form::Either,
            change: Change::default(),
            answer_from: None,
            timing: Timing::default(),
            credentials: None,
            // A public server sends a client on once, if ever; more is a loop.
            most_redirects: 3,
            stream: false,
            response_port: None,
            padding: 0,
            software: true,
        }
    }

    /// The words. Default [`Form::Either`].
    pub fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// Ask for the answer from another address or port of the server (RFC 5780 section 4.4). Default: from the one asked.
    pub fn change(mut self, change: Change) -> Self {
        self.change = change;
        self
    }

    /// Take the answer from this address alone. Default: the one asked, or anywhere if a [`change`](Self::change) was
    /// asked for, since only the id says then that it is the answer.
    pub fn answer_from(mut self, address: SocketAddr) -> Self {
        self.answer_from = Some(address);
        self
    }

    /// Ask for the answer on this port of the address that the request seems to come from (RFC 5780 section 7.5): with the
    /// mapped port of another socket it tests whether that one's binding lives. The answer comes to that socket: give it
    /// to the attempt that asked.
    pub fn response_port(mut self, port: u16) -> Self {
        self.response_port = Some(port);
        self
    }

    /// Make request and answer longer by `bytes`, at most 60,000 (RFC 5780 section 7.6), which tests fragments. Default 0.
    pub fn padding(mut self, bytes: usize) -> Self {
        self.padding = bytes.min(MOST_PADDING);
        self
    }

    /// Whether to send `SOFTWARE: natpipe`. Default true: its twelve bytes also give a server that answers with no more
    /// than three times the request room for all its addresses in IPv6.
    pub fn software(mut self, yes: bool) -> Self {
        self.software = yes;
        self
    }

    /// When to ask again and when to give up. Default: RFC 8489's.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Sign with these, and believe only answers signed with them; long-term ones once the server has asked for them.
    /// Default: none.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// How often ALTERNATE-SERVER is followed (RFC 8489 section 10). Default 3; tests of a NAT's behaviour want 0, since
    /// they compare what known servers say (RFC 5780 section 5).
    pub fn most_redirects(mut self, times: u32) -> Self {
        self.most_redirects = times;
        self
    }

    /// Over TCP or TLS: ask once and wait ([`Timing::stream_timeout`]). Default: over datagrams.
    pub fn over_stream(mut self) -> Self {
        self.stream = true;
        self
    }

    /// The request's bytes under this id. A classic id makes a classic request.
    ///
    /// # Errors
    /// [`NoRoom`] if the credentials are longer than RFC 8489 allows.
    pub fn encode(&self, id: TransactionId, proof: &Proof) -> Result<Vec<u8>, NoRoom> {
        let mut out = vec![0; ROOM + self.padding];
        let mut writer = Writer::new(&mut out, Class::Request, BINDING, id)?;
        if self.change.is_any() {
            writer.change(self.change)?;
        }
        if !id.is_classic() {
            self.write_modern(&mut writer, proof)?;
        }
        let len = writer.finish();
        out.truncate(len);
        Ok(out)
    }

    fn write_modern(&self, writer: &mut Writer<'_>, proof: &Proof) -> Result<(), NoRoom> {
        if let Some(port) = self.response_port {
            writer.response_port(port)?;
        }
        if self.padding > 0 {
            writer.padding(self.padding)?;
        }
        if self.software {
            writer.attribute(super::kind::SOFTWARE, b"natpipe")?;
        }
        proof.sign(writer)?;
        writer.fingerprint()?;
        Ok(())
    }
}
