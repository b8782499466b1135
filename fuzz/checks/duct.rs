//! What must hold of any bytes that come over a duct: what is received is what a plain reading of the bytes says, in
//! order, up to the first fault, however the stream is cut.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use natpipe::duct::blocking::Duct;
use natpipe::duct::{DuctOptions, Json, RecvError};
use serde_json::Value;

const LIMIT: usize = 2000;
/// What a socket pair holds without a reader.
const MOST: usize = 60_000;

/// What one `recv` says.
#[derive(Debug, PartialEq)]
enum Said {
    Object(Value),
    NoObject(usize),
    Magic(u8),
    TooLong(usize),
    End(bool),
}

/// The first byte of the input says how the rest is cut. Returns how many objects came.
pub fn stream(input: &[u8]) -> usize {
    let Some((cut, bytes)) = input.split_first() else { return 0 };
    let bytes = &bytes[..bytes.len().min(MOST)];
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let duct = Duct::<Value>::from_socket(ours, DuctOptions::new().max_message(LIMIT), Json).unwrap();
    let mut said = Vec::new();
    for part in bytes.chunks(1 + usize::from(*cut) * 16) {
        if matches!(said.last(), Some(Said::Magic(_) | Said::TooLong(_))) {
            // Nothing is read any more, so the other end could not write for ever.
            break;
        }
        theirs.write_all(part).unwrap();
        while !matches!(said.last(), Some(Said::Magic(_) | Said::TooLong(_)))
            && duct.poll(std::time::Duration::ZERO).unwrap()
        {
            said.push(say(&duct));
        }
    }
    theirs.shutdown(Shutdown::Write).unwrap();
    while !matches!(said.last(), Some(Said::Magic(_) | Said::TooLong(_) | Said::End(_))) {
        said.push(say(&duct));
    }
    assert_eq!(said, expected(bytes));
    said.iter().filter(|said| matches!(said, Said::Object(_))).count()
}

fn say(duct: &Duct<Value>) -> Said {
    match duct.recv() {
        Ok(object) => Said::Object(object),
        Err(RecvError::Decode { len, .. }) => Said::NoObject(len),
        Err(RecvError::MessageProtocol { found }) => Said::Magic(found),
        Err(RecvError::TooLong { len, .. }) => Said::TooLong(len),
        Err(RecvError::RemoteDuctClosed { inside }) => Said::End(inside),
        Err(error) => panic!("{error}"),
    }
}

/// The bytes read in the plainest way.
fn expected(mut bytes: &[u8]) -> Vec<Said> {
    let mut said = Vec::new();
    loop {
        match *bytes {
            [] => said.push(Said::End(false)),
            [first, ..] if first != 0x54 => said.push(Said::Magic(first)),
            [_, a, b, c, d, ref rest @ ..] => {
                let len = u32::from_be_bytes([a, b, c, d]) as usize;
                if len > LIMIT {
                    said.push(Said::TooLong(len));
                } else if rest.len() < len {
                    said.push(Said::End(true));
                } else {
                    said.push(serde_json::from_slice(&rest[..len]).map_or(Said::NoObject(len), Said::Object));
                    bytes = &rest[len..];
                    continue;
                }
            }
            _ => said.push(Said::End(true)),
        }
        return said;
    }
}
