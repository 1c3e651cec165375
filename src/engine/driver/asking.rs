//! What the driver asks the service for; the answers come back as events.

use std::time::Instant;

use super::Driver;
use crate::engine::active::Active;
use crate::engine::calls::{persistently, received};
use crate::engine::creation;
use crate::engine::event::Event;
use crate::engine::record::MarkJournal;
use crate::engine::restart::Restart;
use crate::engine::worker::SessionId;
use crate::error::{Error, ErrorKind};

impl Driver {
    pub(super) fn create(&mut self, id: SessionId) {
        let Some(active) = self.active.get_mut(&id) else { return };
        let marks = MarkJournal::new(&self.logbook, &self.settings.endpoint_url);
        let creation = match active.creation(marks) {
            Ok(creation) => creation,
            Err(error) => return active.created(Err(error)),
        };
        let (api, policy, herald) = (self.api.clone(), self.settings.retry.clone(), active.herald().clone());
        let halted = active.halted.clone();
        self.tasks.push(Box::pin(async move {
            let created = creation::create_until_halted(&api, &policy, creation, &herald, halted).await;
            Event::Created(id, created)
        }));
    }

    pub(super) fn ask_status(&mut self, id: SessionId) {
        let Some(video_id) = self.active.get(&id).and_then(|active| active.session.video_id()) else {
            return;
        };
        let (api, video_id) = (self.api.clone(), video_id.to_owned());
        self.tasks.push(Box::pin(async move {
            let status = api.videos(Instant::now()).status(&video_id).await;
            Event::Status(id, status.map(|status| received(&status)))
        }));
    }

    pub(super) fn renew(&mut self, id: SessionId) {
        let Some(active) = self.active.get(&id) else { return };
        let (api, used) = (self.api.clone(), active.used_authorization.clone());
        let policy = self.settings.retry.clone();
        self.tasks.push(Box::pin(async move {
            let fresh = match used {
                Some(used) => {
                    persistently(&policy, async || api.renew_after_401(&used, Instant::now()).await).await
                }
                None => Ok(None),
            };
            let final_refusal = || Error::new(ErrorKind::NotAuthorized, "renew the credentials");
            Event::Renewed(id, fresh.and_then(|fresh| fresh.map(Some).ok_or_else(final_refusal)))
        }));
    }

    /// Fetches what orders prove themselves with, ahead of its expiry.
    pub(super) fn authorize(&mut self, now: Instant) {
        if !self.authorization.is_stale(now) || !self.active.values().any(Active::needs_key) {
            return;
        }
        self.authorization.asked = true;
        let (api, policy) = (self.api.clone(), self.settings.retry.clone());
        self.tasks.push(Box::pin(async move {
            let authorized = persistently(&policy, async || api.authorization(Instant::now()).await).await;
            Event::Authorized(authorized)
        }));
    }

    /// Deletes what the file as it was had been sent to.
    pub(super) fn clear(&mut self, restart: Box<Restart>) {
        let (api, policy) = (self.api.clone(), self.settings.retry.clone());
        self.tasks.push(Box::pin(async move {
            let deleted = match &restart.video_id {
                Some(id) => persistently(&policy, async || api.videos(Instant::now()).delete(id).await).await,
                None => Ok(()),
            };
            Event::Cleared(restart, deleted)
        }));
    }
}
