//! Decides: which messages a subscription takes.

use std::net::SocketAddr;

use regex::bytes::{Regex, RegexBuilder};

use super::{Addr, FilterError};

/// What a compiled expression may take, in bytes: patterns may come from outside.
const PATTERN_LIMIT: usize = 1 << 20;

/// Which messages a [`Subscription`](super::Subscription) takes: all, or those whose bytes match an
/// expression, or that come from an address, or both.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pattern: Option<Regex>,
    from: Option<SocketAddr>,
}

impl Filter {
    /// Every message.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only messages in which the expression matches somewhere. It works on bytes: `(?-u)` switches
    /// Unicode off, `^` and `$` anchor.
    ///
    /// # Errors
    /// [`FilterError::Pattern`] when it does not parse or is too large.
    pub fn matching(self, pattern: &str) -> Result<Self, FilterError> {
        let compiled = RegexBuilder::new(pattern).size_limit(PATTERN_LIMIT).build();
        let compiled = compiled.map_err(|source| FilterError::Pattern { pattern: pattern.to_owned(), source })?;
        Ok(Self { pattern: Some(compiled), ..self })
    }

    /// Only messages from this address. Port 0 stands for any port. IPv4-mapped addresses equal
    /// the IPv4 ones, and a zone is compared only where it is given.
    pub fn from(self, addr: SocketAddr) -> Self {
        Self { from: Some(addr), ..self }
    }

    pub(crate) fn takes(&self, data: &[u8], from: &Addr) -> bool {
        let by_address = self.from.is_none_or(|wanted| from.ip().is_some_and(|addr| same_sender(wanted, addr)));
        by_address && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(data))
    }
}

fn same_sender(wanted: SocketAddr, addr: SocketAddr) -> bool {
    let zone = |addr| match addr {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    wanted.ip().to_canonical() == addr.ip().to_canonical()
        && (wanted.port() == 0 || wanted.port() == addr.port())
        && (zone(wanted) == 0 || zone(wanted) == zone(addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Addr {
        Addr::Ip(text.parse().unwrap())
    }

    #[test]
    fn a_pattern_is_searched_in_bytes_that_need_not_be_text() {
        let filter = Filter::all().matching(r"(?-u)\xff\d+").unwrap();
        assert!(filter.takes(b"ab\xff42", &addr("10.0.0.1:1")));
        assert!(!filter.takes(b"ab\xfe42", &addr("10.0.0.1:1")));
    }

    #[test]
    fn port_zero_stands_for_any_port() {
        let filter = Filter::all().from("10.0.0.1:0".parse().unwrap());
        assert!(filter.takes(b"", &addr("10.0.0.1:7")));
        assert!(!filter.takes(b"", &addr("10.0.0.2:7")));
        let exact = Filter::all().from("10.0.0.1:7".parse().unwrap());
        assert!(exact.takes(b"", &addr("10.0.0.1:7")) && !exact.takes(b"", &addr("10.0.0.1:8")));
    }

    #[test]
    fn the_short_form_of_an_address_equals_the_long_one() {
        let filter = Filter::all().from("[0:0:0:0:0:0:0:1]:0".parse().unwrap());
        assert!(filter.takes(b"", &addr("[::1]:7")));
        let mapped = Filter::all().from("10.0.0.1:0".parse().unwrap());
        assert!(mapped.takes(b"", &addr("[::ffff:10.0.0.1]:9")));
    }

    #[test]
    fn an_expression_that_does_not_parse_or_explodes_is_an_error() {
        assert!(Filter::all().matching("(").unwrap_err().to_string().contains('('));
        assert!(Filter::all().matching(r"(\w{1000}){1000}").is_err());
    }
}
