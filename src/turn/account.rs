//! Decides: what a client proves itself with: an account, or a secret that it shares with the server, out of which it makes
//! accounts that end by themselves.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha1::Sha1;

use crate::stun::Credentials;

/// How long an account lives that is made out of a secret: what the draft suggests.
const LASTS: Duration = Duration::from_secs(86_400);

/// How a client proves itself. Printing it shows neither password nor secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Account(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    LongTerm { user: String, password: String },
    Shared { user: String, secret: String, lasts: Duration },
}

impl Account {
    /// An account at the server: long-term credentials (RFC 8489 section 9.2).
    pub fn long_term(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self(Kind::LongTerm { user: user.into(), password: password.into() })
    }

    /// A secret that the server knows as well (draft-uberti-behave-turn-rest; coturn's `static-auth-secret`): each allocation gets
    /// an account of its own, good for a day. `user` is for the server's records, and may be empty.
    pub fn shared_secret(user: impl Into<String>, secret: impl Into<String>) -> Self {
        Self(Kind::Shared { user: user.into(), secret: secret.into(), lasts: LASTS })
    }

    /// For how long accounts made out of a secret are good. Nothing else has such a limit.
    pub fn lasting(mut self, long: Duration) -> Self {
        if let Kind::Shared { lasts, .. } = &mut self.0 {
            *lasts = long;
        }
        self
    }

    /// User name and password at this time, counted since 1970.
    pub fn credentials(&self, now: Duration) -> Credentials {
        match &self.0 {
            Kind::LongTerm { user, password } => Credentials::long_term(user, password),
            Kind::Shared { user, secret, lasts } => {
                let ends = now.saturating_add(*lasts).as_secs();
                let user = if user.is_empty() { ends.to_string() } else { format!("{ends}:{user}") };
                let password = STANDARD.encode(mac(secret.as_bytes(), user.as_bytes()));
                Credentials::long_term(user, password)
            }
        }
    }
}

fn mac(secret: &[u8], text: &[u8]) -> Vec<u8> {
    // A key of any length is one.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret) else { return Vec::new() };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::LongTerm { user, .. } => write!(f, "Account::long_term({user:?}, …)"),
            Kind::Shared { user, .. } => write!(f, "Account::shared_secret({user:?}, …)"),
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_shared_secret_makes_the_password_that_servers_expect() {
        // echo -n 1433895918:ann | openssl dgst -sha1 -hmac north -binary | base64
        let account = Account::shared_secret("ann", "north").lasting(Duration::from_secs(18));
        let made = account.credentials(Duration::from_secs(1_433_895_900));
        assert_eq!(made, Credentials::long_term("1433895918:ann", "zAlhH20kpuDJR8ZKdq5vyQV+Ung="));
        let nobody = Account::shared_secret("", "north").credentials(Duration::MAX);
        assert!(format!("{nobody:?}").contains(&u64::MAX.to_string()), "no overflow: {nobody:?}");
    }

    #[test]
    fn neither_password_nor_secret_is_printed() {
        for account in [Account::long_term("ann", "hush"), Account::shared_secret("ann", "hush")] {
            let shown = format!("{account:?} {:?}", account.credentials(Duration::ZERO));
            assert!(shown.contains("ann") && !shown.contains("hush"), "{shown}");
        }
    }
}
