//! Decides: where a client leads.

use std::path::PathBuf;

use http::Uri;

/// The seed's path.
pub(super) const PATH: &str = "/ws";

/// A destination, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp {
        /// `host:port`.
        dest: String,
        tls: bool,
        /// For the request.
        url: String,
    },
    Unix(PathBuf),
}

/// `host:port`, `ws://host[:port][/path]`, `wss://…`, or `unix:PATH`; the path is `/ws` where none is given.
pub(super) fn parse(text: &str) -> Option<Place> {
    if let Some(path) = text.strip_prefix("unix:") {
        return (!path.is_empty()).then(|| Place::Unix(path.into()));
    }
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("ws://{text}") };
    let uri: Uri = with_scheme.parse().ok()?;
    let tls = match uri.scheme_str()? {
        "ws" => false,
        "wss" => true,
        _ => return None,
    };
    let host = uri.host().filter(|host| !host.is_empty())?;
    let authority = uri.authority()?;
    let place = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, place)| place);
    let port = match place.strip_prefix(host)? {
        // An address without a scheme is no URL, so that no port is meant by leaving it out.
        "" => text.contains("://").then_some(if tls { 443 } else { 80 })?,
        port => port.strip_prefix(':')?.parse::<u16>().ok()?,
    };
    let path = uri.path_and_query().map(|path| path.as_str()).filter(|path| *path != "/" && !path.is_empty());
    let url = format!("{}://{authority}{}", uri.scheme_str()?, path.unwrap_or(PATH));
    Some(Place::Tcp { dest: format!("{host}:{port}"), tls, url })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_urls_lead_where_they_say() {
        let tcp = |dest: &str, tls, url: &str| Some(Place::Tcp { dest: dest.into(), tls, url: url.into() });
        assert_eq!(parse("127.0.0.1:64444"), tcp("127.0.0.1:64444", false, "ws://127.0.0.1:64444/ws"));
        assert_eq!(parse("[::1]:9"), tcp("[::1]:9", false, "ws://[::1]:9/ws"));
        assert_eq!(parse("ws://x/"), tcp("x:80", false, "ws://x/ws"));
        assert_eq!(parse("wss://x.example/a/b?c=d"), tcp("x.example:443", true, "wss://x.example/a/b?c=d"));
        assert_eq!(parse("wss://x:8443"), tcp("x:8443", true, "wss://x:8443/ws"));
        assert_eq!(parse("unix:/run/pool"), Some(Place::Unix("/run/pool".into())));
        for wrong in ["", "host", "http://x", "ws://", "unix:", ":1", "ws://x:99999"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
