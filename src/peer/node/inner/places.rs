//! Waits: the places where a node is, and is met.

use std::sync::Arc;

use crate::key::ServerUrl;
use crate::peer::node::meeting::{Meet, MeetError, Meeting};
use crate::rendezvous::{Client, ClientBuilder, ConnectError};

use super::Inner;

impl Inner {
    /// Our presence at a place; made when there is none.
    pub(in crate::peer::node) async fn meeting(&self, place: &Meet) -> Result<Meeting, MeetError> {
        match place {
            Meet::Server(url) => Ok(Meeting::Server(self.client(url).await?)),
            Meet::Brokers(_) => self.brokers(place).await,
        }
    }

    /// Whether strangers may begin conversations there.
    pub(in crate::peer::node) fn serves(&self, meeting: &Meeting) -> bool {
        self.places.get().is_some_and(|places| places.iter().any(|place| meeting.is_at(place)))
    }

    /// Our registration at a server; made when there is none.
    async fn client(&self, url: &ServerUrl) -> Result<Client, ConnectError> {
        // One at a time: a second registration with our key would replace the first.
        let turn = self.lock().registering.entry(url.clone()).or_default().clone();
        let _turn = turn.lock().await;
        if let Some(Meeting::Server(client)) = self.present(&Meet::Server(url.clone())) {
            return Ok(client);
        }
        let builder = Client::builder(url, &self.me);
        let builder = self.proxy.iter().cloned().fold(builder, ClientBuilder::proxy);
        let client = self.tls.iter().cloned().fold(builder, ClientBuilder::web_tls).connect().await?;
        self.enter(Meeting::Server(client.clone()));
        Ok(client)
    }

    #[cfg(feature = "mqtt")]
    async fn brokers(&self, place: &Meet) -> Result<Meeting, MeetError> {
        use crate::rendezvous::{MqttBuilder, MqttClient};
        let found = self.present(place);
        let meeting = match (found, place) {
            (Some(meeting), _) => meeting,
            (None, Meet::Brokers(urls)) => {
                let builder = urls.iter().cloned().fold(MqttClient::builder(&self.me), MqttBuilder::broker);
                let builder = self.proxy.iter().cloned().fold(builder, MqttBuilder::proxy);
                let client = self.tls.iter().cloned().fold(builder, MqttBuilder::tls).start()?;
                let meeting = Meeting::Brokers(client);
                self.enter(meeting.clone());
                meeting
            }
            (None, Meet::Server(_)) => return Err(crate::rendezvous::BrokerError::NoBroker.into()),
        };
        Ok(meeting)
    }

    /// Has all places looked at: are we still there?
    pub(in crate::peer::node) fn check_meetings(&self) {
        self.lock().meetings.iter().filter(|meeting| meeting.lives()).for_each(Meeting::check);
    }

    #[cfg(not(feature = "mqtt"))]
    async fn brokers(&self, _: &Meet) -> Result<Meeting, MeetError> {
        Err(MeetError::NoMqtt)
    }

    fn enter(&self, meeting: Meeting) {
        let mut state = self.lock();
        state.meetings.retain(Meeting::lives);
        state.meetings.push(meeting.clone());
        drop(state);
        if self.entered.try_send(meeting).is_err() {
            tracing::debug!("the node is closed, or has too many places: nobody is heard at this one");
        }
    }

    /// Where we are now.
    pub(in crate::peer::node) fn meetings(&self) -> Vec<Meeting> {
        self.lock().meetings.iter().filter(|meeting| meeting.lives()).cloned().collect()
    }

    /// Where we are now, if who is wanted there can be met.
    fn present(&self, place: &Meet) -> Option<Meeting> {
        let state = self.lock();
        let fits = |meeting: &&Meeting| meeting.lives() && meeting.is_at(place);
        state.meetings.iter().find(fits).cloned()
    }

    /// The servers where we are registered.
    pub(in crate::peer::node) fn servers(&self) -> Vec<ServerUrl> {
        let state = self.lock();
        state.meetings.iter().filter(|meeting| meeting.lives()).filter_map(Meeting::server).cloned().collect()
    }

    /// Leaves the places where we are not to be met, and where nobody is whom we have called. A call has to be remembered before it
    /// goes to a place.
    pub(in crate::peer::node) async fn leave_unwanted(&self) {
        let unwanted = {
            let mut state = self.lock();
            state.called.retain(|_, call| call.goes_on());
            let called: Vec<Meet> = state.called.values().flat_map(|call| call.places.iter().cloned()).collect();
            let is_wanted = |meeting: &Meeting| self.serves(meeting) || called.iter().any(|place| meeting.is_at(place));
            let (wanted, unwanted) = std::mem::take(&mut state.meetings).into_iter().partition::<Vec<_>, _>(is_wanted);
            state.meetings = wanted;
            state.registering.retain(|_, turn| Arc::strong_count(turn) > 1);
            unwanted
        };
        for meeting in unwanted {
            meeting.close().await;
        }
    }

    /// Leaves all places.
    pub(in crate::peer::node) fn take_meetings(&self) -> Vec<Meeting> {
        std::mem::take(&mut self.lock().meetings)
    }
}
