//! Decides: what an answer says, and how it looks on the wire.

use bytes::Bytes;

use super::yaml::Tags;
use super::{ApplicationError, BodyError, Format, Value};

/// The tag with which Python's programs mark an answer.
const TAG: &str = "!!python/object:occo.util.communication.comm.Response";
const EXCEPTION_TAG: &str = "!!python/object:occo.util.communication.comm.ExceptionResponse";

/// What a processor answers: a code as in HTTP, and data.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// 2xx: done, the data is the result. 4xx: a critical error, the same call will fail again. 5xx: a
    /// transient one.
    pub http_code: u16,
    /// The result, or what is said about the error.
    pub data: Value,
    /// False leaves the message with the consumer, unsettled: it goes back to its queue when the consumer ends. Until
    /// then it takes one place of `prefetch`.
    pub finalize: bool,
}

impl Response {
    /// An answer with a code.
    pub fn new(http_code: u16, data: impl Into<Value>) -> Self {
        Self { http_code, data: data.into(), finalize: true }
    }

    /// 200 and the result.
    pub fn ok(data: impl Into<Value>) -> Self {
        Self::new(200, data)
    }

    /// The same answer, with the message left unsettled.
    pub fn not_final(self) -> Self {
        Self { finalize: false, ..self }
    }

    /// The result; or the error; or `None` for a code that has no meaning.
    pub fn check(self) -> Option<Result<Value, ApplicationError>> {
        let (code, data) = (self.http_code, self.data);
        match code {
            200..=299 => Some(Ok(data)),
            400..=499 => Some(Err(ApplicationError::Critical { code, data })),
            500..=599 => Some(Err(ApplicationError::Transient { code, data })),
            _ => None,
        }
    }

    /// The body of the answer. A raw body is the data alone; its code travels beside it.
    pub(crate) fn encode(&self, format: Format) -> Result<Bytes, BodyError> {
        if format == Format::Raw {
            return format.encode(&self.data);
        }
        let mapping = Value::from([
            ("data", self.data.clone()),
            ("finalize", self.finalize.into()),
            ("http_code", u32::from(self.http_code).into()),
        ]);
        match format {
            Format::Yaml => format.encode(&Value::Tagged(TAG.into(), Box::new(mapping))),
            _ => format.encode(&mapping),
        }
    }

    /// Reads an answer; `code` is the one that came beside a raw body.
    pub(crate) fn decode(format: Format, code: Option<u16>, body: &[u8]) -> Result<Self, BodyError> {
        if format == Format::Raw {
            return Ok(Self::new(code.unwrap_or(200), Value::Bytes(body.to_vec())));
        }
        match format.decode_with(body, Tags::Keep)? {
            Value::Tagged(tag, mapping) if tag == TAG => from_mapping(&mapping, Tags::Refuse),
            Value::Tagged(tag, mapping) if tag == EXCEPTION_TAG => from_mapping(&mapping, Tags::Keep),
            Value::Tagged(tag, _) => Err(BodyError::Tag { tag }),
            mapping => from_mapping(&mapping, Tags::Refuse),
        }
    }
}

fn from_mapping(mapping: &Value, tags: Tags) -> Result<Response, BodyError> {
    let wrong = |why: &str| BodyError::Unfit(format!("it is no answer: {why}"));
    let code = mapping.get("http_code").ok_or_else(|| wrong("it has no http_code"))?;
    let code =
        code.as_i64().and_then(|code| u16::try_from(code).ok()).ok_or_else(|| wrong("its http_code is no code"))?;
    let data = mapping.get("data").cloned().unwrap_or_default();
    let finalize = mapping.get("finalize").is_none_or(|value| value.as_bool() != Some(false));
    match tags {
        Tags::Refuse => match tag_in(&data) {
            Some(tag) => Err(BodyError::Tag { tag: tag.to_owned() }),
            None => Ok(Response { http_code: code, data, finalize }),
        },
        // What Python raises is an error whatever code it carries.
        Tags::Keep => Ok(Response { http_code: code_of_exception(code), data: raised(data), finalize }),
    }
}

fn code_of_exception(code: u16) -> u16 {
    if (400..=599).contains(&code) { code } else { 500 }
}

/// An exception as text: `builtins.ValueError: what it said`.
fn raised(data: Value) -> Value {
    let Value::Tagged(tag, inside) = data else { return data };
    let name = tag.rsplit(':').next().unwrap_or(&tag);
    let said = match *inside {
        Value::Seq(items) => items.iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    Value::Str(format!("{name}: {said}"))
}

fn tag_in(value: &Value) -> Option<&str> {
    match value {
        Value::Tagged(tag, _) => Some(tag),
        Value::Seq(items) => items.iter().find_map(tag_in),
        Value::Map(pairs) => pairs.iter().find_map(|(key, value)| tag_in(key).or_else(|| tag_in(value))),
        _ => None,
    }
}

/// What a processor may give back.
pub trait IntoResponse {
    /// The answer that it stands for.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl<V: Into<Value>> IntoResponse for V {
    fn into_response(self) -> Response {
        Response::ok(self)
    }
}

impl<T: IntoResponse> IntoResponse for Result<T, ApplicationError> {
    fn into_response(self) -> Response {
        match self {
            Ok(answer) => answer.into_response(),
            Err(error) => Response::new(error.code(), error.data().clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> Result<Response, BodyError> {
        Response::decode(Format::Yaml, None, text.as_bytes())
    }

    #[test]
    fn an_answer_looks_as_python_expects_it() {
        let text = Response::ok([("a", 1.into())]).encode(Format::Yaml).unwrap();
        let expected =
            "!!python/object:occo.util.communication.comm.Response {data: {a: 1}, finalize: true, http_code: 200}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_answer_as_python_writes_it_is_read() {
        let block = "!!python/object:occo.util.communication.comm.Response\ndata: x\nfinalize: true\nhttp_code: 200\n";
        assert_eq!(yaml(block).unwrap(), Response::ok("x"));
        let flow =
            "!!python/object:occo.util.communication.comm.Response {data: x, finalize: false,\nhttp_code: 404}\n";
        assert_eq!(yaml(flow).unwrap(), Response::new(404, "x").not_final());
        assert_eq!(yaml("{http_code: 500, data: [1]}").unwrap(), Response::new(500, vec![1.into()]));
    }

    #[test]
    fn an_exception_is_text_and_is_not_raised_here() {
        let text = "!!python/object:occo.util.communication.comm.ExceptionResponse\ndata: !!python/object/apply:builtins.ValueError [bad, 3]\nfinalize: true\nhttp_code: 500\n";
        assert_eq!(yaml(text).unwrap(), Response::new(500, "builtins.ValueError: bad, 3"));
    }

    #[test]
    fn an_answer_that_would_build_an_object_is_refused() {
        let inside = "!!python/object:occo.util.communication.comm.Response\ndata: [!!python/object/apply:os.getpid []]\nhttp_code: 200\n";
        for text in [inside, "!!python/object/apply:os.getpid []"] {
            assert!(matches!(yaml(text), Err(BodyError::Tag { .. })));
        }
        for text in ["null", "42", "{data: 1}", "{http_code: 70000}", "{http_code: x}"] {
            assert!(matches!(yaml(text), Err(BodyError::Unfit(_))), "{text}");
        }
    }

    #[test]
    fn codes_tell_results_from_errors() {
        assert_eq!(Response::new(204, "x").check(), Some(Ok("x".into())));
        assert_eq!(
            Response::new(404, "x").check(),
            Some(Err(ApplicationError::Critical { code: 404, data: "x".into() }))
        );
        assert_eq!(
            Response::new(503, "x").check(),
            Some(Err(ApplicationError::Transient { code: 503, data: "x".into() }))
        );
        for code in [0, 199, 300, 399, 600] {
            assert_eq!(Response::new(code, "x").check(), None);
        }
    }

    #[test]
    fn every_format_carries_an_answer() {
        let answer = Response::new(418, Value::Bytes(vec![1]));
        for format in [Format::Yaml, Format::MessagePack, Format::Raw] {
            let body = answer.encode(format).unwrap();
            assert_eq!(Response::decode(format, Some(418), &body).unwrap(), answer);
        }
    }
}
