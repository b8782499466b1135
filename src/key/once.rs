//! Decides: secrets that open a door once.

use std::collections::VecDeque;
use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::identity::{NoRandomness, random};

/// Bytes of a secret: nobody guesses 128 bits.
pub(super) const LEN: usize = 16;

/// A secret in a ticket that is good for one connection. It never shows in logs.
#[derive(Clone)]
pub struct Secret([u8; LEN]);

impl Secret {
    /// The secret that these bytes are.
    pub fn from_bytes(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be shown to the peer that made them, sealed, and to nobody else.
    pub fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

/// In constant time.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The secrets that are still good, at most so many: a new one over that drops the oldest.
///
/// An end that may be shown a replay uses a secret up only when the other end has proved to be there now
/// ([`Conversation::is_live`](super::seal::Conversation::is_live), or a finished TLS handshake).
#[derive(Debug)]
pub struct OneTime {
    good: VecDeque<Secret>,
    most: usize,
}

impl OneTime {
    /// Keeps at most so many secrets, at least one.
    pub fn new(most: usize) -> Self {
        Self { good: VecDeque::new(), most: most.max(1) }
    }

    /// A new secret, good for one connection.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn issue(&mut self) -> Result<Secret, NoRandomness> {
        let secret = Secret(random()?);
        if self.good.len() >= self.most {
            self.good.pop_front();
        }
        self.good.push_back(secret.clone());
        Ok(secret)
    }

    /// Whether the secret is good, without using it up.
    pub fn knows(&self, secret: &Secret) -> bool {
        self.place(secret).is_some()
    }

    /// Uses a secret up. False when it is not good, or no longer.
    pub fn use_up(&mut self, secret: &Secret) -> bool {
        let place = self.place(secret);
        place.and_then(|place| self.good.remove(place)).is_some()
    }

    /// Looks at all of them, so that the time tells nothing.
    fn place(&self, secret: &Secret) -> Option<usize> {
        self.good.iter().enumerate().fold(None, |found, (at, good)| if good == secret { Some(at) } else { found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_once() {
        let mut door = OneTime::new(4);
        let (first, second) = (door.issue().unwrap(), door.issue().unwrap());
        assert!(door.knows(&first) && door.use_up(&first));
        assert!(!door.knows(&first) && !door.use_up(&first));
        assert!(door.use_up(&second));
        assert!(!door.use_up(&Secret::from_bytes([0; LEN])));
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut door = OneTime::new(2);
        let secrets: Vec<_> = (0..3).map(|_| door.issue().unwrap()).collect();
        assert!(!door.knows(&secrets[0]) && door.knows(&secrets[1]) && door.knows(&secrets[2]));
    }
}
