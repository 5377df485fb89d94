//! How an actor ends: because it is told to, because the document engine failed, because the document was deleted, or
//! because there was nothing to begin with.

use std::{mem, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};
use tracing::error;

use super::{Actor, STAY, Stopped, Suspect, batch::Batch, handle::Mail, member::Member};
use crate::{backend::BackendError, document::UpdateError, end::End};

/// How long a stopping actor tries to save what is not saved yet.
const SAVE_AT_END: Duration = Duration::from_secs(8);

impl Actor {
    /// In place of [`Actor::run`] where the document could not be loaded: tells everybody why who asks within
    /// a moment. Then it is worth another try.
    pub async fn refuse(&mut self, reason: &End) {
        let until = Instant::now() + STAY;
        while let Ok(mail) = timeout_at(until, self.mailbox.recv()).await {
            match mail {
                Some(Mail::Stop) | None => return,
                Some(mail) => refuse_mail(mail, reason),
            }
            if *reason == End::Deleted {
                // That costs little to find out again, and whoever begins it anew may open it at once.
                break;
            }
        }
        self.refuse_the_last(reason).await;
    }

    /// Who is in the mailbox by now is answered; who comes later opens the document anew.
    async fn refuse_the_last(&mut self, reason: &End) {
        self.mailbox.close();
        while let Some(mail) = self.mailbox.recv().await {
            refuse_mail(mail, reason);
        }
    }

    /// The document is no longer what is stored under its name. Nothing of it is saved.
    pub(super) async fn give_up(&mut self, over: &BackendError) -> Stopped {
        let end = match over {
            BackendError::Recreated => End::Recreated,
            _ => End::Deleted,
        };
        self.end_all(end.clone());
        self.refuse_the_last(&end).await;
        Stopped::Told
    }

    /// Ends the sessions of this user, or of everybody, because an administrator wants it; answers how many.
    pub(super) fn end_sessions(&mut self, user: Option<&str>) -> usize {
        let of_user = |member: &Member| user.is_none() || member.terms.user.as_deref() == user;
        let sessions = self.members.iter().filter(|(_, member)| of_user(member));
        let sessions: Vec<_> = sessions.map(|(session, _)| *session).collect();
        for session in &sessions {
            self.refuse_session(
                *session,
                End::Forbidden("an administrator has ended the session".to_owned()),
            );
        }
        sessions.len()
    }

    /// Ends all sessions, and saves what is not saved yet.
    pub(super) async fn stop(&mut self) -> Stopped {
        self.take_leave_of_nodes();
        self.end_all(End::Stopping);
        self.saver.hurry();
        let save = async {
            let mut broken = false;
            loop {
                if broken {
                    self.saver.start_without_document();
                } else if self.saver.start(&self.document, self.relay.is_complete()).is_err() {
                    mem::forget(mem::take(&mut self.document));
                    broken = true;
                    continue;
                }
                if self.saver.is_idle() {
                    return;
                }
                if let Some(theirs) = self.saver.progress().await {
                    broken |= self.compare(theirs, &mut Batch::default()).is_err();
                }
            }
        };
        if timeout(SAVE_AT_END, save).await.is_err() && !self.saver.is_saved() {
            error!("not everything could be saved before the deadline");
            return Stopped::Unsaved;
        }
        Stopped::Told
    }

    /// The document engine failed. What it accepted before is saved; the sessions come back to a new actor.
    pub(super) async fn fail(&mut self, broken: UpdateError) -> Stopped {
        error!(error = %broken, "the document is opened anew");
        self.around.troubles.note(&self.name, format!("the document was opened anew: {broken}"));
        mem::forget(mem::take(&mut self.document));
        self.end_all(End::Reopening);
        let save = async {
            self.saver.start_without_document();
            while !self.saver.is_idle() {
                self.saver.progress().await;
                self.saver.start_without_document();
            }
        };
        if timeout(SAVE_AT_END, save).await.is_err() {
            error!("not everything could be saved before the document is opened anew");
        }
        let suspect = self.suspect.take();
        Stopped::Failed(suspect.map(|update| Suspect { update, reason: broken.to_string() }))
    }

    fn end_all(&mut self, end: End) {
        for (_, member) in self.members.drain() {
            member.outbox.0.end(end.clone());
        }
    }
}

fn refuse_mail(mail: Mail, reason: &End) {
    match mail {
        Mail::Join { outbox, .. } => outbox.0.end(reason.clone()),
        Mail::Read(look) => look(Err(reason)),
        // An error: nobody waits for the answer any more.
        Mail::Write(written) => drop(written.answer.send(Err(reason.clone()))),
        Mail::Exists { answer, .. } => drop(answer.send(Err(reason.clone()))),
        Mail::Describe { answer } => drop(answer.send(Err(reason.clone()))),
        Mail::Receive(_)
        | Mail::ChangeTerms { .. }
        | Mail::CatchUp { .. }
        | Mail::Leave { .. }
        | Mail::Tell(_)
        | Mail::KeepVersion { .. }
        | Mail::EndSessions { .. }
        | Mail::Rest
        | Mail::Stop => {}
    }
}
