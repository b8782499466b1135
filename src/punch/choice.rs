//! Waits: the one connection of several that both ends take: each proves itself, and the end that controls chooses.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, Mac};
use is::IceCreds;
use sha2::Sha256;
use socket2::SockRef;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the other end has to prove itself on a connection.
pub(super) const PROOF: Duration = Duration::from_secs(3);

/// The byte by which the controlling end chooses.
const CHOSEN: u8 = 0xC5;

/// Both ends' secrets, as what each says to prove itself.
pub(super) struct Proofs {
    ours: [u8; 32],
    theirs: [u8; 32],
}

/// Which end says which connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// This one, and it says so before the peer has proved itself: no other is chosen while that may still come.
    Chosen,
    /// This one, if the one that is chosen already comes to nothing.
    Perhaps,
    /// The other.
    Peer,
}

/// A connection on which the peer has proved itself, or none; and what was said on it.
pub(super) type Proved = (Says, io::Result<TcpStream>);

/// The connections of the end that chooses.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// One is chosen, and the peer has not yet proved itself there.
    made: bool,
    /// Those on which it has.
    others: Vec<TcpStream>,
}

impl Choice {
    /// The one that comes out, if it is decided.
    pub(super) async fn handle(&mut self, (says, stream): Proved) -> Option<TcpStream> {
        match (says, stream) {
            (Says::Chosen | Says::Peer, Ok(stream)) => return Some(stream),
            (Says::Chosen, Err(_)) => self.made = false,
            (Says::Perhaps, Ok(stream)) => self.others.push(stream),
            // It is closed by now.
            (Says::Perhaps | Says::Peer, Err(_)) => {}
        }
        while !self.made
            && let Some(stream) = self.others.pop()
        {
            if let Ok(Ok(stream)) = timeout(PROOF, tell_chosen(stream)).await {
                return Some(stream);
            }
        }
        None
    }

    /// What is said on one more.
    pub(super) fn says(&mut self, controlling: bool) -> Says {
        match (controlling, self.made) {
            (true, false) => {
                self.made = true;
                Says::Chosen
            }
            (true, true) => Says::Perhaps,
            (false, _) => Says::Peer,
        }
    }
}

impl Proofs {
    pub(super) fn new(ours: &IceCreds, theirs: &IceCreds) -> Self {
        Self { ours: proof(ours, theirs), theirs: proof(theirs, ours) }
    }
}

/// Who knows both passwords can say this, and by it means the end whose name fragment comes first.
fn proof(sayer: &IceCreds, hearer: &IceCreds) -> [u8; 32] {
    let key = [sayer.pass.as_bytes(), b":", hearer.pass.as_bytes()].concat();
    let mut mac = match Hmac::<Sha256>::new_from_slice(&key) {
        Ok(mac) => mac,
        // HMAC takes keys of every length.
        Err(_) => return [0; 32],
    };
    mac.update(b"natpipe tcp punch:");
    mac.update(sayer.ufrag.as_bytes());
    mac.finalize().into_bytes().into()
}

/// Each end proves that it is the peer; the end that does not choose then waits for being chosen.
pub(super) async fn prove(stream: TcpStream, proofs: Arc<Proofs>, says: Says) -> Proved {
    let proved = async {
        let mut stream =
            timeout(PROOF, introduce(stream, &proofs, says)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        match says {
            Says::Chosen => kept(&stream)?,
            Says::Perhaps => {}
            Says::Peer => expect_chosen(&mut stream).await?,
        }
        Ok(stream)
    };
    (says, proved.await)
}

/// The other end takes it: on this connection it has proved itself, and it waits for this.
async fn tell_chosen(mut stream: TcpStream) -> io::Result<TcpStream> {
    stream.write_all(&[CHOSEN]).await?;
    kept(&stream)?;
    Ok(stream)
}

async fn introduce(mut stream: TcpStream, proofs: &Proofs, says: Says) -> io::Result<TcpStream> {
    // A loser that is dropped leaves no address waiting that a later attempt would need.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let chosen: &[u8] = if says == Says::Chosen { &[CHOSEN] } else { &[] };
    stream.write_all(&[&proofs.ours, chosen].concat()).await?;
    let mut said = [0; 32];
    stream.read_exact(&mut said).await?;
    if !bool::from(said.ct_eq(&proofs.theirs)) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(stream)
}

async fn expect_chosen(stream: &mut TcpStream) -> io::Result<()> {
    if stream.read_u8().await? != CHOSEN {
        return Err(io::ErrorKind::InvalidData.into());
    }
    kept(stream)
}

/// It is a connection like any other from now on.
fn kept(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(None)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::net::TcpListener;

    use super::*;

    /// Both ends of a connection on loopback.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    fn both() -> [Arc<Proofs>; 2] {
        let (a, b) = (IceCreds::new(), IceCreds::new());
        [Proofs::new(&a, &b), Proofs::new(&b, &a)].map(Arc::new)
    }

    #[tokio::test]
    async fn the_first_connection_is_chosen_at_once_and_the_next_one_when_the_peer_is_not_there() {
        let (mut choice, [ours, theirs]) = (Choice::default(), both());
        let [(stranger, strange), (one, other)] = [connection().await, connection().await];
        let first = prove(stranger, ours.clone(), choice.says(true));
        let second = prove(one, ours.clone(), choice.says(true));
        let mut answers = pin!(prove(other, theirs, Choice::default().says(false)));
        let (second, answered) = tokio::join!(second, async { timeout(PROOF / 10, &mut answers).await });
        assert!(choice.handle(second).await.is_none(), "the first may still be the peer");
        assert!(answered.is_err(), "nobody was told");
        drop(strange);
        let (chosen, answered) = tokio::join!(async { choice.handle(first.await).await }, answers);
        assert!(chosen.is_some() && answered.1.is_ok(), "the second is, when the first was not");
    }

    #[tokio::test]
    async fn both_ends_have_the_one_connection_after_one_message_each_way() {
        let (mut choice, [ours, theirs]) = (Choice::default(), both());
        let (one, other) = connection().await;
        let chooses = prove(one, ours, choice.says(true));
        let answers = prove(other, theirs, Choice::default().says(false));
        let (chosen, answered) = tokio::join!(chooses, answers);
        assert!(choice.handle(chosen).await.is_some());
        assert!(Choice::default().handle(answered).await.is_some());
    }
}
