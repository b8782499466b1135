//! Decides: who may upgrade an HTTP request to a WebSocket, and what both sides say (RFC 6455 section 4).

use super::{Conf, Refusal, derive_accept_key};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Headers that the upgrade sets itself.
pub(super) fn is_own(name: &HeaderName) -> bool {
    *name == UPGRADE || *name == CONNECTION || name.as_str().starts_with("sec-websocket-")
}

/// Whether a comma-separated header has this token, whatever its case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Whether this is a request for a WebSocket that can be granted (RFC 6455 section 4.2.1), and if not, why.
///
/// # Errors
/// A [`Refusal`] with 400, 405, 426 or 505, ready to be answered.
pub fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    if request.method() != Method::GET {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(Refusal::new(status, "a websocket begins with GET")
            .header(http::header::ALLOW, HeaderValue::from_static("GET")));
    }
    if request.version() != Version::HTTP_11 {
        return Err(Refusal::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "a websocket needs HTTP/1.1"));
    }
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        let refusal = Refusal::new(StatusCode::UPGRADE_REQUIRED, "only websockets are served here");
        return Err(refusal.header(UPGRADE, WEBSOCKET));
    }
    if !headers.contains_key(HOST) {
        return Err(Refusal::bad("the Host header is missing"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let refusal = Refusal::new(StatusCode::UPGRADE_REQUIRED, "only version 13 of websockets is spoken here");
        return Err(refusal.header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    if !headers.get(SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        return Err(Refusal::bad("Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    Ok(())
}

/// 16 bytes in base64: 22 digits, of which the last says only two bits, and two signs of padding.
fn is_key(value: &HeaderValue) -> bool {
    let digit = |b: &u8| b.is_ascii_alphanumeric() || *b == b'+' || *b == b'/';
    let Some((digits, padding)) = value.as_bytes().split_at_checked(22) else { return false };
    padding == b"==" && digits.iter().all(digit) && digits.last().is_some_and(|b| b"AQgw".contains(b))
}

/// The response that grants a request, with the first of our subprotocols that the client offers.
///
/// # Errors
/// As [`check`].
pub fn response<B>(request: &Request<B>, conf: &Conf) -> Result<Response<()>, Refusal> {
    check(request)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, WEBSOCKET);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map_or(&b""[..], HeaderValue::as_bytes);
    let accept =
        HeaderValue::try_from(derive_accept_key(key)).map_err(|_| Refusal::bad("the key can not be answered"))?;
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    let offered = |ours: &&HeaderValue| {
        ours.to_str().is_ok_and(|name| has_token(request.headers(), &SEC_WEBSOCKET_PROTOCOL, name))
    };
    if let Some(spoken) = conf.subprotocols.iter().find(offered) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, spoken.clone());
    }
    conf.headers.iter().for_each(|(name, value)| {
        headers.append(name, value.clone());
    });
    Ok(response)
}

/// The response that says no, and its body.
pub fn refusal(refusal: &Refusal) -> (Response<()>, String) {
    let body = format!("{}\n", refusal.reason);
    let mut response = Response::new(());
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.extend(refusal.headers.iter().cloned());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    (response, body)
}

/// The request of a client with this key; `None` when the URL has no host.
pub(super) fn request(url: &Uri, key: &str, conf: &Conf) -> Option<Request<()>> {
    let authority = url.authority()?;
    let mut request = Request::new(());
    *request.uri_mut() = url.clone();
    let headers = request.headers_mut();
    let host = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
    headers.insert(HOST, HeaderValue::try_from(host).ok()?);
    headers.insert(UPGRADE, WEBSOCKET);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).ok()?);
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    conf.subprotocols.iter().for_each(|name| {
        headers.append(SEC_WEBSOCKET_PROTOCOL, name.clone());
    });
    for (name, value) in &conf.headers {
        if *name == HOST {
            headers.insert(name, value.clone());
        } else {
            headers.append(name, value.clone());
        }
    }
    Some(request)
}

/// Whether a response with 101 grants what was asked (RFC 6455 section 4.1), and if not, what is wrong.
pub(super) fn granted(response: &Response<()>, key: &str, conf: &Conf) -> Result<(), &'static str> {
    let headers = response.headers();
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        return Err("it upgrades to something else");
    }
    let expected = derive_accept_key(key.as_bytes());
    if headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| accept.as_bytes() != expected.as_bytes()) {
        return Err("its Sec-WebSocket-Accept is wrong");
    }
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err("it uses an extension that was not offered");
    }
    match headers.get(SEC_WEBSOCKET_PROTOCOL) {
        Some(spoken) if !conf.subprotocols.contains(spoken) => Err("it speaks a subprotocol that was not offered"),
        _ => Ok(()),
    }
}
