//! Decides: who may become a member: the path, the origin, a token.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, Request};
use subtle::ConstantTimeEq;

use crate::frame::ws::Refusal;
use crate::pipe::Addr;

/// Somebody who asks to become a member, as an authentication hook sees it.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// The request: path, query, headers.
    pub request: Request<()>,
    /// Its address, where it has one. Behind a proxy that is the proxy's.
    pub peer: Option<Addr>,
    /// The certificate (DER) that it has shown, where TLS asked for one; it is verified.
    pub certificate: Option<Bytes>,
}

impl Visitor {
    /// The page that a browser acts for (RFC 6454); other programs send none.
    pub fn origin(&self) -> Option<&str> {
        self.request.headers().get(ORIGIN)?.to_str().ok()
    }

    /// The bearer token (RFC 6750 section 2.1), if one was sent.
    pub fn bearer(&self) -> Option<&str> {
        let value = self.request.headers().get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }
}

pub(super) type Verdict = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;
pub(super) type Hook = Arc<dyn Fn(Visitor) -> Verdict + Send + Sync>;

/// Which pages may connect from a browser: what sends no `Origin` is no browser and is let in. Without such a list any page that
/// somebody visits could talk to the pool with that person's rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    allowed: Vec<String>,
}

impl Origins {
    /// Pages of the very host and port that is connected to, and no others: the default.
    pub fn same() -> Self {
        Self::default()
    }

    /// Any page.
    pub fn any() -> Self {
        Self { any: true, allowed: Vec::new() }
    }

    /// Pages of this origin too (`https://example.org`, without a path; `null` for files).
    pub fn allow(mut self, origin: impl Into<String>) -> Self {
        self.allowed.push(origin.into());
        self
    }

    /// Whether a request with these headers may come in.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return true };
        if self.any {
            return true;
        }
        let Some(origin) = origin.to_str().ok().filter(|_| origins.next().is_none()) else { return false };
        self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) || is_same(origin, headers)
    }
}

fn is_same(origin: &str, headers: &HeaderMap) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let plain = |text: &str| text.strip_suffix(default).unwrap_or(text).to_ascii_lowercase();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.is_some_and(|host| plain(host) == plain(authority))
}

/// Whether two secrets are equal, in a time that tells only their length.
pub(super) fn same_secret(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

/// Who is asked before a connection becomes a member, besides the limits.
#[derive(Clone)]
pub(super) struct Admission {
    pub(super) path: Option<String>,
    pub(super) origins: Origins,
    pub(super) hook: Option<Hook>,
}

impl Admission {
    /// What can be said at once.
    pub(super) fn judge(&self, request: &Request<()>) -> Result<(), Refusal> {
        if self.path.as_deref().is_some_and(|path| path != request.uri().path()) {
            return Err(Refusal::not_found());
        }
        if !self.origins.admit(request.headers()) {
            return Err(Refusal::forbidden("pages of this origin may not connect"));
        }
        Ok(())
    }
}

/// A hook that wants this bearer token.
pub(super) fn bearer(token: String) -> Hook {
    Arc::new(move |visitor| {
        let right = visitor.bearer().is_some_and(|given| same_secret(given.as_bytes(), token.as_bytes()));
        Box::pin(std::future::ready(if right { Ok(()) } else { Err(Refusal::unauthorized("Bearer")) }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(host: &'static str, origin: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        headers.insert(ORIGIN, HeaderValue::from_static(origin));
        headers
    }

    #[test]
    fn a_page_of_the_same_host_may_and_others_only_when_allowed() {
        let same = Origins::same();
        assert!(same.admit(&HeaderMap::new()), "no browser");
        assert!(same.admit(&headers("x.example:8080", "http://x.example:8080")));
        assert!(same.admit(&headers("X.example", "https://x.example:443")));
        for origin in
            ["http://y.example", "http://x.example:8081", "null", "x.example:8080", "http://x.example:8080.evil"]
        {
            assert!(!same.admit(&headers("x.example:8080", origin)), "{origin}");
        }
        assert!(Origins::any().admit(&headers("x", "http://y")));
        let allowed = Origins::same().allow("https://y.example").allow("null");
        assert!(allowed.admit(&headers("x", "https://y.example")));
        assert!(allowed.admit(&headers("x", "null")));
        assert!(!allowed.admit(&headers("x", "http://y.example")));
    }

    #[test]
    fn two_origins_are_none() {
        let mut two = headers("x", "http://x");
        two.append(ORIGIN, HeaderValue::from_static("http://x"));
        assert!(!Origins::same().admit(&two));
    }

    #[test]
    fn secrets_are_equal_or_not() {
        assert!(same_secret(b"abc", b"abc"));
        assert!(!same_secret(b"abc", b"abd"));
        assert!(!same_secret(b"abc", b"ab"));
    }

    #[test]
    fn a_bearer_token_is_read_as_rfc_6750_says() {
        let visitor = |value: &'static str| Visitor {
            request: Request::builder().header(AUTHORIZATION, value).body(()).unwrap(),
            peer: None,
            certificate: None,
        };
        assert_eq!(visitor("Bearer abc").bearer(), Some("abc"));
        assert_eq!(visitor("bearer abc").bearer(), Some("abc"));
        assert_eq!(visitor("Basic abc").bearer(), None);
    }
}
