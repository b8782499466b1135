//! Waits: one path of a session: records written to it and read from it, until it ends.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::Notify;

use super::buffers::WORTH;
use super::drive::Shared;
use super::outlet::{Inlet, Outlet};
use super::path::PathId;
use super::record::{HEADER, Kind, Record, next_header, next_record};

/// What one read yields, at most: what a TLS record may hold.
const ROOM: usize = 16 << 10;

/// A part of a record shows that its path lives: so often it is told at most.
const SLOW: Duration = Duration::from_millis(50);

/// Anything that reads and writes, with both ends authenticated.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What a path's records travel in.
pub(crate) enum Carrier {
    /// TLS over TCP, or over a relay.
    Stream(Box<dyn Stream>),
    /// One stream of a QUIC connection, whose datagrams carry datagrams. An endpoint that is for this connection alone lives as
    /// long.
    Quic {
        connection: quinn::Connection,
        send: quinn::SendStream,
        recv: quinn::RecvStream,
        endpoint: Option<quinn::Endpoint>,
    },
}

impl Carrier {
    pub(super) fn connection(&self) -> Option<quinn::Connection> {
        match self {
            Self::Stream(_) => None,
            Self::Quic { connection, .. } => Some(connection.clone()),
        }
    }
}

/// Moves records both ways until the path ends, for whatever reason.
pub(super) async fn carry(shared: Arc<Shared>, id: PathId, carrier: Carrier) {
    let Some((bell, cut)) = shared.bells(id) else { return };
    let endpoint = if let Carrier::Quic { endpoint, .. } = &carrier { endpoint.clone() } else { None };
    let ended = tokio::select! {
        ended = both_ways(&shared, id, carrier, &bell) => ended,
        () = cut.notified() => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a path has ended");
    }
    shared.detach(id);
    // The goodbye is still to go out.
    if let Some(endpoint) = endpoint {
        endpoint.wait_idle().await;
    }
}

async fn both_ways(shared: &Shared, id: PathId, carrier: Carrier, bell: &Notify) -> io::Result<()> {
    match carrier {
        Carrier::Stream(stream) => {
            let outlet = Arc::new(Outlet::new(stream));
            shared.take_outlet(id, &outlet);
            tokio::select! {
                ended = read_stream(shared, id, Inlet(outlet.clone()), Some((&outlet, bell))) => ended,
                ended = write_stream(shared, id, &outlet, bell) => ended,
            }
        }
        Carrier::Quic { connection, send, recv, .. } => {
            let ended = tokio::select! {
                ended = read_stream(shared, id, recv, None) => ended,
                ended = write_quic(shared, id, send, bell) => ended,
                ended = read_datagrams(shared, id, &connection) => ended,
            };
            connection.close(0_u32.into(), &[]);
            ended
        }
    }
}

/// With an outlet what there is to say to what comes is written at once: to wake the own task would have another thread take it up.
async fn read_stream(
    shared: &Shared,
    id: PathId,
    mut read: impl AsyncRead + Unpin,
    outlet: Option<(&Outlet, &Notify)>,
) -> io::Result<()> {
    let (mut received, mut records, buffers) = (BytesMut::new(), Vec::new(), shared.buffers());
    let (mut room, mut heard) = (ROOM, Instant::now());
    loop {
        received.reserve(room);
        if read.read_buf(&mut (&mut received).limit(room)).await? == 0 {
            return Ok(());
        }
        hear(shared, id, &mut heard);
        room = ROOM;
        loop {
            match next_record(&mut received) {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(error) => return refused(shared, error),
            }
        }
        hand_on(shared, id, &mut records, outlet)?;
        // `next_record` has looked at it.
        if let Ok(Some((kind, channel, len))) = next_header(&received)
            && len >= WORTH
        {
            received.advance(HEADER);
            let mut payload = buffers.take();
            payload.extend_from_slice(&received.split());
            while payload.len() < len {
                let missing = len - payload.len();
                if read.read_buf(&mut (&mut payload).limit(missing)).await? == 0 {
                    return Ok(());
                }
                hear(shared, id, &mut heard);
            }
            records.push(Record { kind, channel, payload: buffers.lend(payload) });
            // Another one may follow; of that nothing should have to be moved.
            room = HEADER;
            hand_on(shared, id, &mut records, outlet)?;
        }
    }
}

/// Something came; it is told now and then.
fn hear(shared: &Shared, id: PathId, told: &mut Instant) {
    if told.elapsed() >= SLOW {
        *told = Instant::now();
        shared.handle_heard(id);
    }
}

/// What has come is not to wait for what is yet to come.
fn hand_on(
    shared: &Shared,
    id: PathId,
    records: &mut Vec<Record>,
    outlet: Option<(&Outlet, &Notify)>,
) -> io::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let Some((outlet, bell)) = outlet else {
        return shared.handle(id, records).or_else(|error| refused(shared, error));
    };
    let says = shared.handle_and_ask(id, records).or_else(|error| refused(shared, error))?;
    if says && !outlet.try_drain(shared, id) {
        bell.notify_one();
    }
    Ok(())
}

fn refused<T>(shared: &Shared, error: super::ProtocolError) -> io::Result<T> {
    shared.refuse(error);
    Err(io::Error::new(io::ErrorKind::InvalidData, error))
}

async fn write_stream(shared: &Shared, id: PathId, outlet: &Outlet, bell: &Notify) -> io::Result<()> {
    loop {
        // The last word says what was heard.
        let ended = shared.has_ended();
        outlet.drain(shared, id, ended).await?;
        if ended {
            return outlet.shut_down().await;
        }
        bell.notified().await;
    }
}

/// The payloads go as they are.
async fn write_quic(shared: &Shared, id: PathId, mut send: quinn::SendStream, bell: &Notify) -> io::Result<()> {
    let (mut records, mut chunks) = (Vec::<Record>::new(), Vec::<Bytes>::new());
    loop {
        // The last word says what was heard.
        let ended = shared.has_ended();
        shared.fill(id, ended, &mut records);
        if records.is_empty() {
            if ended {
                send.finish()?;
                // Until it has arrived.
                send.stopped().await?;
                return Ok(());
            }
            bell.notified().await;
            continue;
        }
        for record in records.drain(..) {
            chunks.push(Bytes::copy_from_slice(&record.header()));
            if !record.payload.is_empty() {
                chunks.push(record.payload);
            }
        }
        send.write_all_chunks(&mut chunks).await?;
        chunks.clear();
    }
}

async fn read_datagrams(shared: &Shared, id: PathId, connection: &quinn::Connection) -> io::Result<()> {
    loop {
        let mut packet = BytesMut::from(connection.read_datagram().await?);
        // One that is no record, or not of a channel, is nobody's.
        if let Ok(Some(record)) = next_record(&mut packet)
            && matches!(record.kind, Kind::Datagram | Kind::Twin)
            && let Err(error) = shared.handle(id, &mut vec![record])
        {
            tracing::trace!(%error, "a datagram out of place");
        }
    }
}
