//! Decides: the heads of HTTP/1.1 requests and responses, as bytes and as values (RFC 9112).

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

/// The most headers of a request or response: browsers send about 20.
const MAX_HEADERS: usize = 100;

/// Why bytes are no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// It is longer than the limit, or has too many headers.
    TooLong,
    /// It is no HTTP/1.x.
    NoHttp,
}

/// Where the head ends that `bytes` begin with, if all of it is there; `seen` bytes were looked at before.
pub(super) fn end(bytes: &[u8], seen: usize, limit: usize) -> Result<Option<usize>, HeadError> {
    let from = seen.saturating_sub(3);
    let found = bytes[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4);
    match found {
        Some(end) if end <= limit => Ok(Some(end)),
        None if bytes.len() < limit => Ok(None),
        _ => Err(HeadError::TooLong),
    }
}

/// Whether `bytes` can become a request: what never can need not be waited for.
pub(super) fn may_be_request(bytes: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    httparse::Request::new(&mut headers).parse(bytes).is_ok()
}

pub(super) fn request(head: &[u8]) -> Result<Request<()>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    whole(parsed.parse(head))?;
    let mut request = Request::new(());
    let method = parsed.method.ok_or(HeadError::NoHttp)?;
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::NoHttp)?;
    *request.uri_mut() = parsed.path.and_then(|path| path.parse::<Uri>().ok()).ok_or(HeadError::NoHttp)?;
    *request.version_mut() = version(parsed.version);
    *request.headers_mut() = map(parsed.headers)?;
    Ok(request)
}

pub(super) fn response(head: &[u8]) -> Result<Response<()>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    whole(parsed.parse(head))?;
    let mut response = Response::new(());
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(HeadError::NoHttp)?;
    *response.status_mut() = status;
    *response.version_mut() = version(parsed.version);
    *response.headers_mut() = map(parsed.headers)?;
    Ok(response)
}

fn whole(parsed: Result<httparse::Status<usize>, httparse::Error>) -> Result<(), HeadError> {
    match parsed {
        Ok(httparse::Status::Complete(_)) => Ok(()),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLong),
        Ok(httparse::Status::Partial) | Err(_) => Err(HeadError::NoHttp),
    }
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 }
}

fn map(headers: &[httparse::Header<'_>]) -> Result<HeaderMap, HeadError> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| HeadError::NoHttp)?;
        let value = HeaderValue::from_bytes(header.value).map_err(|_| HeadError::NoHttp)?;
        map.append(name, value);
    }
    Ok(map)
}

/// The bytes of a `GET` with these headers.
pub(super) fn encode_request(request: &Request<()>) -> Bytes {
    let mut out = BytesMut::with_capacity(512);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let line = format!("{} {} HTTP/1.1\r\n", request.method(), if path.is_empty() { "/" } else { path });
    out.put_slice(line.as_bytes());
    put_headers(request.headers(), &mut out);
    out.freeze()
}

/// The bytes of a response, with a body where there is one.
pub(super) fn encode_response(response: &Response<()>, body: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(256 + body.len());
    let status = response.status();
    let line = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("Unknown"));
    out.put_slice(line.as_bytes());
    put_headers(response.headers(), &mut out);
    out.put_slice(body.as_bytes());
    out.freeze()
}

fn put_headers(headers: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in headers {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
}
