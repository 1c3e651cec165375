//! The driver's calls of the service; their results return as events.

use std::time::Instant;

use futures_util::future::LocalBoxFuture;

use super::Driver;
use crate::engine::calls::{received, with_logged_retries};
use crate::engine::creation::{self, CreationFailure};
use crate::engine::event::EngineEvent;
use crate::engine::journal_entry::MarkJournal;
use crate::engine::restart::PendingRestart;
use crate::engine::worker::SessionId;
use crate::error::{Error, ErrorKind};

impl Driver {
    /// Creates the videos of uploads, after the journal has the marks of all of them on the disk.
    pub(super) fn create_all(&mut self, ids: Vec<SessionId>) {
        self.journal_handle.begin_batch();
        let creations: Vec<_> = ids.into_iter().filter_map(|id| self.creation(id)).collect();
        // A task that is dropped has made no request.
        if self.commit_batch() {
            self.tasks.extend(creations);
        }
    }

    /// Records the mark of an upload's video. Returns the task that creates the video; `None` if the journal does not take
    /// the mark.
    fn creation(&mut self, id: SessionId) -> Option<LocalBoxFuture<'static, EngineEvent>> {
        let transfer = self.transfers.get_mut(&id)?;
        let marks = MarkJournal::new(&self.journal_handle, &self.settings.endpoint_url);
        let creation = match transfer.creation(marks) {
            Ok(creation) => creation,
            // Nothing was requested yet.
            Err(error) => {
                transfer.created(Err(CreationFailure { error, may_exist: false }), Instant::now());
                return None;
            }
        };
        let (api, policy, event_sink) =
            (self.api.clone(), self.settings.retry.clone(), transfer.event_sink().clone());
        let halted = transfer.halted.clone();
        Some(Box::pin(async move {
            let created = creation::create_until_halted(&api, &policy, creation, &event_sink, halted).await;
            EngineEvent::Created(id, created)
        }))
    }

    pub(super) fn ask_status(&mut self, id: SessionId) {
        let Some(video_id) = self.transfers.get(&id).and_then(|transfer| transfer.session.video_id()) else {
            return;
        };
        let (api, video_id) = (self.api.clone(), video_id.to_owned());
        self.tasks.push(Box::pin(async move {
            // Without retries: the session decides when to ask again.
            let status = api.videos(Instant::now()).status(&video_id).await;
            EngineEvent::Status(id, status.map(|status| received(&status)))
        }));
    }

    pub(super) fn renew(&mut self, id: SessionId) {
        let Some(transfer) = self.transfers.get(&id) else { return };
        let (api, used) = (self.api.clone(), transfer.used_authorization.clone());
        let policy = self.settings.retry.clone();
        self.tasks.push(Box::pin(async move {
            let fresh = match used {
                // Renews only if this header is still the current one: many lanes get the same 401.
                Some(used) => {
                    with_logged_retries(&policy, async || api.renew_after_401(&used, Instant::now()).await)
                        .await
                }
                None => Ok(None),
            };
            // `None` means that no newer header is to be had, which makes the 401 final.
            let final_refusal = || Error::new(ErrorKind::NotAuthorized, "renew the credentials");
            EngineEvent::Renewed(id, fresh.and_then(|fresh| fresh.map(Some).ok_or_else(final_refusal)))
        }));
    }

    /// Requests a fresh `Authorization` header ahead of its expiry.
    pub(super) fn authorize(&mut self, now: Instant) {
        // An upload token is part of the path (`/upload?token=`) and needs no header.
        if !self.authorization.is_stale(now) || !self.transfers.values().any(|transfer| transfer.needs_key())
        {
            return;
        }
        self.authorization.is_requested = true;
        let (api, policy) = (self.api.clone(), self.settings.retry.clone());
        self.tasks.push(Box::pin(async move {
            let authorized =
                with_logged_retries(&policy, async || api.authorization(Instant::now()).await).await;
            EngineEvent::Authorized(authorized)
        }));
    }

    /// Deletes the container of an upload that begins anew.
    pub(super) fn delete_container(&mut self, restart: Box<PendingRestart>) {
        let (api, policy) = (self.api.clone(), self.settings.retry.clone());
        self.tasks.push(Box::pin(async move {
            let deleted = match &restart.video_id {
                Some(id) => {
                    with_logged_retries(&policy, async || api.videos(Instant::now()).delete(id).await).await
                }
                None => Ok(()),
            };
            EngineEvent::RestartCleaned(restart, deleted)
        }));
    }
}
