//! Waits: the task behind a mapping: it obtains, renews, moves with the gateway, and takes back.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::announce::Ear;
use super::handle::{Asking, Mapped, State};
use super::held::{Asked, Held, obtain};
use super::place::Place;
use super::{Failure, MapError, lease};

/// How often the gateway's address is looked up; nothing is sent for it.
const LOOK: Duration = Duration::from_secs(5);

/// A renewal is not followed by another for an announcement sooner than this, whoever sends them.
const QUIET: Duration = Duration::from_secs(4);

/// How long taking back may take when the mapping is over.
const PARTING: Duration = Duration::from_secs(3);

/// A mapping's task.
pub(super) struct Keeper {
    pub(super) asking: Asking,
    pub(super) asked: Asked,
    pub(super) state: watch::Sender<State>,
    /// Resolved, or its sender gone, when nobody wants the mapping any more.
    pub(super) over: oneshot::Receiver<()>,
}

/// Why a mapping is not held any more.
enum Gone {
    /// Nobody wants it.
    Over(Box<Held>),
    /// We are elsewhere: its gateway is out of reach, or it is our address that is another.
    Moved,
    /// It ran out unrenewed.
    Lost,
}

impl Keeper {
    pub(super) async fn keep(mut self) {
        let mut tried = 0;
        loop {
            let Some(obtained) = self.obtain().await else { return };
            match obtained {
                Ok((place, held)) => {
                    tried = 0;
                    self.state.send_replace(State::Mapped(mapped(&held)));
                    match self.hold(&place, held).await {
                        Gone::Over(held) => return part(*held).await,
                        Gone::Moved | Gone::Lost => self.state.send_replace(State::Asking),
                    };
                }
                Err((place, error)) => {
                    tracing::debug!(%error, "no mapping");
                    self.state.send_replace(State::Failed(error));
                    let again = Instant::now() + lease::retry(tried);
                    tried = tried.saturating_add(1);
                    if !self.wait(&place, again).await {
                        return;
                    }
                }
            }
        }
    }

    /// Once through all protocols. `None` when nobody wants it any more; what was granted until then is taken back.
    async fn obtain(&mut self) -> Option<Result<(Place, Held), (Option<Place>, MapError)>> {
        let Some(place) = Place::now(&self.asking.route) else {
            return Some(Err((None, MapError { gateway: None, failures: Vec::new() })));
        };
        let obtained = {
            let obtaining = obtain(&place, &self.asking.protocols, &self.asked);
            tokio::pin!(obtaining);
            tokio::select! {
                obtained = &mut obtaining => obtained,
                _ = &mut self.over => {
                    if let Ok(Ok(held)) = timeout(PARTING, obtaining).await {
                        part(held).await;
                    }
                    return None;
                }
            }
        };
        Some(match obtained {
            Ok(held) => {
                // The same again, should it have to be asked for anew.
                self.asked.liked = Some(held.external);
                Ok((place, held))
            }
            Err(error) => Err((Some(place), error)),
        })
    }

    /// Waits, or until the place is another one. False when nobody wants the mapping any more.
    async fn wait(&mut self, place: &Option<Place>, until: Instant) -> bool {
        loop {
            tokio::select! {
                _ = &mut self.over => return false,
                () = sleep_until(until) => return true,
                () = sleep(LOOK) => {}
                _ = self.asking.again.changed() => {}
            }
            if Place::now(&self.asking.route) != *place {
                return true;
            }
        }
    }

    async fn hold(&mut self, place: &Place, mut held: Held) -> Gone {
        let (mut granted, mut failed, ear) = (Instant::now(), 0, Ear::open(place));
        // Drawn once for each renewal: of many draws the shortest would win, and clients would come together.
        let mut chance = rand::random();
        self.asking.again.mark_unchanged();
        loop {
            let Some(renewal) = lease::renewal(held.lifetime, failed, chance) else { return Gone::Lost };
            let due = tokio::select! {
                _ = &mut self.over => return Gone::Over(Box::new(held)),
                () = sleep_until(granted + renewal) => true,
                changed = self.asking.again.changed() => changed.is_ok(),
                () = ear.heard(), if granted.elapsed() > QUIET => true,
                () = sleep(LOOK) => false,
            };
            if Place::now(&self.asking.route).as_ref() != Some(place) {
                tracing::debug!("the gateway is another: the mapping is asked for anew");
                return Gone::Moved;
            }
            if !due {
                continue;
            }
            chance = rand::random();
            match self.renew(&mut held).await {
                Some(Ok(())) => (granted, failed) = (Instant::now(), 0),
                Some(Err(failure)) => {
                    tracing::debug!(%failure, "a mapping was not renewed");
                    failed += 1;
                }
                None => return Gone::Over(Box::new(held)),
            }
        }
    }

    /// `None` when nobody wants it any more.
    async fn renew(&mut self, held: &mut Held) -> Option<Result<(), Failure>> {
        let renewed = tokio::select! {
            renewed = held.renew() => renewed,
            _ = &mut self.over => return None,
        };
        Some(renewed.map(|restarted| {
            self.asked.liked = Some(held.external);
            let now = State::Mapped(mapped(held));
            self.state.send_if_modified(|state| {
                let changed = *state != now;
                *state = now;
                changed
            });
            if restarted {
                tracing::debug!("the gateway has restarted: every mapping is asked for again");
                self.asking.tell_again();
                self.asking.again.mark_unchanged();
            }
        }))
    }
}

fn mapped(held: &Held) -> Mapped {
    Mapped {
        external: held.external,
        inside: held.place().inside(),
        protocol: held.protocol(),
        gateway: held.place().gateway,
        lifetime: lease::counted(held.lifetime),
    }
}

async fn part(held: Held) {
    match timeout(PARTING, held.remove()).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => tracing::debug!(%failure, "a mapping was not taken back"),
        Err(_) => tracing::debug!("a mapping was not taken back in time"),
    }
}
