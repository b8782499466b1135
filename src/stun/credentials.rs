//! Decides: how requests are signed and answers believed: short-term and long-term credentials (RFC 8489 section 9).

use std::fmt;

use super::attribute::{Class, kind};
use super::build::{NoRoom, Writer};
use super::integrity::{Key, KeyError, PasswordAlgorithm};
use super::message::Message;

/// The longest REALM or NONCE that a server may send, in bytes (RFC 8489 sections 14.9 and 14.10).
const LONGEST_TEXT: usize = 763;
/// What a nonce begins with if the server says in it what it can (RFC 8489 section 9.2).
const NONCE_COOKIE: &[u8] = b"obMatJos2";
/// How often a server may ask for other proof in one exchange: once for the realm, and for nonces that grow stale.
const MOST_CHALLENGES: u32 = 4;

/// A user name and a password. Printing them does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    long_term: bool,
    username: String,
    password: String,
}

impl Credentials {
    /// For one session, agreed beforehand, as ICE does (RFC 8489 section 9.1).
    pub fn short_term(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { long_term: false, username: username.into(), password: password.into() }
    }

    /// Of an account at the server, as TURN has it: the server names a realm and a nonce first (RFC 8489 section 9.2).
    pub fn long_term(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { long_term: true, username: username.into(), password: password.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.long_term { "long_term" } else { "short_term" };
        write!(f, "Credentials::{kind}({:?}, …)", self.username)
    }
}

/// What to do after an error answer that [`Proof::challenge`] looked at.
#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Send the request again, in a new transaction, signed anew.
    Retry,
    /// The server does not accept these credentials, or there are none.
    Rejected,
    /// The answer has nothing to do with credentials.
    None,
}

/// One exchange's side of the credentials: signs requests, checks answers, takes up challenges. For any method, so
/// TURN uses it as well.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    credentials: Option<Credentials>,
    key: Option<Key>,
    session: Option<Session>,
    challenges: u32,
}

/// What the server gave in its challenge.
#[derive(Debug, Clone)]
struct Session {
    realm: String,
    nonce: Vec<u8>,
    algorithms: Option<Algorithms>,
}

#[derive(Debug, Clone)]
struct Algorithms {
    /// PASSWORD-ALGORITHMS as it came, to be sent back.
    offered: Vec<u8>,
    chosen: PasswordAlgorithm,
}

impl Proof {
    /// With no credentials nothing is signed and each answer believed.
    ///
    /// # Errors
    /// [`KeyError`] if a short-term password can not be one.
    pub fn new(credentials: Option<Credentials>) -> Result<Self, KeyError> {
        let short = credentials.as_ref().filter(|c| !c.long_term);
        let key = short.map(|c| Key::short_term(&c.password)).transpose()?;
        Ok(Self { credentials, key, ..Self::default() })
    }

    /// Adds user name, realm, nonce and integrity, as far as they are known; only FINGERPRINT may follow.
    ///
    /// # Errors
    /// [`NoRoom`] if they do not fit.
    pub fn sign(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        let (Some(credentials), Some(key)) = (&self.credentials, &self.key) else { return Ok(()) };
        writer.attribute(kind::USERNAME, credentials.username.as_bytes())?;
        let Some(session) = &self.session else {
            writer.integrity(key)?.integrity_sha256(key)?;
            return Ok(());
        };
        writer.attribute(kind::REALM, session.realm.as_bytes())?.attribute(kind::NONCE, &session.nonce)?;
        match &session.algorithms {
            None => writer.integrity(key)?,
            Some(algorithms) => writer
                .attribute(kind::PASSWORD_ALGORITHMS, &algorithms.offered)?
                .attribute(kind::PASSWORD_ALGORITHM, &number(algorithms.chosen))?
                .integrity_sha256(key)?,
        };
        Ok(())
    }

    /// Whether to believe `answer`. One that fails is dropped as if it had never come (RFC 8489 sections 9.1.4, 9.2.5).
    pub fn accepts(&self, answer: &Message<'_>) -> bool {
        let Some(key) = &self.key else { return true };
        if self.session.is_some() && is_challenge(answer) {
            return true;
        }
        let sha256 = self.session.as_ref().is_some_and(|s| s.algorithms.is_some());
        let strong_enough = !sha256 || answer.get(kind::MESSAGE_INTEGRITY_SHA256).is_some();
        strong_enough && answer.integrity(key) == Some(true)
    }

    /// Takes up what an error answer asks for: realm and nonce of a 401, the new nonce of a 438.
    ///
    /// # Errors
    /// [`KeyError`] if the server's realm can not be used.
    pub fn challenge(&mut self, answer: &Message<'_>) -> Result<Challenge, KeyError> {
        if !is_challenge(answer) {
            return Ok(Challenge::None);
        }
        let Some(credentials) = self.credentials.as_ref().filter(|c| c.long_term) else {
            return Ok(Challenge::Rejected);
        };
        let refused = self.session.is_some() && code(answer) == Some(401);
        self.challenges += 1;
        if refused || self.challenges > MOST_CHALLENGES {
            return Ok(Challenge::Rejected);
        }
        let Some(session) = Session::read(answer) else { return Ok(Challenge::Rejected) };
        let chosen = session.algorithms.as_ref().map(|a| a.chosen).unwrap_or_default();
        self.key = Some(Key::long_term(&credentials.username, &session.realm, &credentials.password, chosen)?);
        self.session = Some(session);
        Ok(Challenge::Retry)
    }

    /// After an answer that was believed: how often the server asked for other proof is counted anew, as it may for as long as a
    /// session lasts.
    #[cfg(feature = "turn")]
    pub(crate) fn settle(&mut self) {
        self.challenges = 0;
    }

    /// Forgets realm and nonce, for another server.
    pub fn forget_server(&mut self) {
        if self.session.take().is_some() {
            self.key = None;
        }
    }
}

impl Session {
    fn read(answer: &Message<'_>) -> Option<Self> {
        let realm = answer.text(kind::REALM).filter(|realm| realm.len() <= LONGEST_TEXT)?;
        let nonce = answer.get(kind::NONCE).filter(|nonce| nonce.len() <= LONGEST_TEXT)?;
        let algorithms = match answer.get(kind::PASSWORD_ALGORITHMS) {
            Some(offered) => Some(Algorithms { offered: offered.to_vec(), chosen: choose(offered)? }),
            // Someone on the way took them out to have a weaker hash used.
            None if promises_algorithms(nonce) => return None,
            None => None,
        };
        Some(Self { realm: realm.to_owned(), nonce: nonce.to_vec(), algorithms })
    }
}

fn code(answer: &Message<'_>) -> Option<u16> {
    answer.error().map(|error| error.code)
}

fn is_challenge(answer: &Message<'_>) -> bool {
    answer.class() == Class::Error && matches!(code(answer), Some(401 | 438))
}

/// The first algorithm in the server's list that is known here (RFC 8489 section 14.11).
fn choose(mut offered: &[u8]) -> Option<PasswordAlgorithm> {
    while let Some((head, rest)) = offered.split_first_chunk::<4>() {
        match u16::from_be_bytes([head[0], head[1]]) {
            1 => return Some(PasswordAlgorithm::Md5),
            2 => return Some(PasswordAlgorithm::Sha256),
            _ => {}
        }
        let parameters = usize::from(u16::from_be_bytes([head[2], head[3]])).next_multiple_of(4);
        offered = rest.get(parameters..)?;
    }
    None
}

fn number(algorithm: PasswordAlgorithm) -> [u8; 4] {
    match algorithm {
        PasswordAlgorithm::Md5 => [0, 1, 0, 0],
        PasswordAlgorithm::Sha256 => [0, 2, 0, 0],
    }
}

/// Whether the nonce's security features, 24 bits in base64, have bit 0. RFC 8489 section 18.1 counts from the left, the
/// example in its appendix B.1 from the right: either will do.
fn promises_algorithms(nonce: &[u8]) -> bool {
    let features = nonce.strip_prefix(NONCE_COOKIE).and_then(|rest| rest.first_chunk::<4>());
    features.is_some_and(|bits| sextet(bits[0]) & 0x20 != 0 || sextet(bits[3]) & 1 != 0)
}

fn sextet(digit: u8) -> u8 {
    match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => 0,
    }
}
