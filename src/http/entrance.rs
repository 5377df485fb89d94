//! The way into documents: a token, a place among the user's connections, and a session.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tracing::info;

use super::Shared;
use crate::{
    access::{Access, AccessError},
    actor::{TellSaved, Terms},
    backend::Counted,
    connection::{self, Admitted},
    end::End,
    level::Level,
    name::DocumentName,
    outbox::Carrier,
    presence::SessionId,
    session::Session,
    webhooks::event::What,
};

/// How often a session tries to join a document that is being closed at that moment.
const JOIN_TRIES: usize = 5;

/// The way in, for one connection.
pub(super) struct Entrance {
    shared: Shared,
    /// The client family, as metrics name it.
    dialect: &'static str,
    /// Why the page that connects may not, if so.
    refused: Option<String>,
    tell_saved: TellSaved,
    /// The users whose connection this is: it counts once for each, until it ends.
    counted: Mutex<HashMap<Arc<str>, Counted>>,
}

impl Entrance {
    pub(super) fn new(
        shared: Shared,
        dialect: &'static str,
        refused: Option<String>,
        tell_saved: TellSaved,
    ) -> Self {
        Self { shared, dialect, refused, tell_saved, counted: Mutex::default() }
    }

    /// What somebody may do in a document whose token allows this, and until when.
    pub(super) fn allow(
        &self,
        access: Result<Access, AccessError>,
        document: DocumentName,
    ) -> Result<Admitted, End> {
        if let Some(reason) = &self.refused {
            return Err(End::Forbidden(reason.clone()));
        }
        let allowed = access.and_then(|access| Ok((access.require(&document, Level::Read)?, access)));
        let (level, access) = allowed.map_err(|error| match error {
            AccessError::Missing | AccessError::Token(_) => End::Unauthorized(error.to_string()),
            AccessError::Level { .. } => End::Forbidden(error.to_string()),
        })?;
        let left = access.expires().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
        let terms = Terms {
            tell_saved: self.tell_saved,
            read_only: level < Level::Write,
            user: access.user().map(Into::into),
        };
        Ok(Admitted { document, terms, until: left.map(|left| Instant::now() + left) })
    }

    async fn admit_with(&self, document: &str, token: &str) -> Result<Admitted, End> {
        let document = DocumentName::new(document).map_err(|error| End::Refused(error.to_string()))?;
        let access = match &self.shared.tokens {
            None => Ok(Access::anonymous()),
            Some(_) if token.is_empty() => Err(AccessError::Missing),
            Some(tokens) => tokens.check(token).await,
        };
        self.allow(access, document)
    }

    /// Counts a user's connection, unless the user has too many.
    async fn count(&self, user: Option<&Arc<str>>) -> Result<(), End> {
        let Some(user) = user else { return Ok(()) };
        if self.counted.lock().unwrap_or_else(PoisonError::into_inner).contains_key(user) {
            return Ok(());
        }
        let limit = self.shared.limits.connections_per_user;
        let counted = match self.shared.backend.admit(user, limit).await {
            Ok(Some(counted)) => counted,
            Ok(None) => {
                return Err(End::Full(format!(
                    "{user:?} has {limit} connections already, and no more are allowed (--max-connections-per-user)"
                )));
            }
            Err(error) => return Err(End::Full(error.to_string())),
        };
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).insert(user.clone(), counted);
        Ok(())
    }

    /// Joins a document, which is opened where it is not open.
    async fn enter(&self, admitted: &Admitted, carrier: Arc<dyn Carrier>) -> Result<Session, End> {
        let Admitted { document, terms, until } = admitted;
        self.count(terms.user.as_ref()).await?;
        for _ in 0..JOIN_TRIES {
            let handle = self.shared.hub.open(document).map_err(|unopened| unopened.end())?;
            if let Ok(session) = Session::join(handle, terms.clone(), *until, carrier.clone()).await {
                self.shared.metrics.session_began(self.dialect);
                info!(%document, user = terms.user.as_deref(), session = session.id().0, "joined");
                let user = terms.user.as_deref().map(str::to_owned);
                self.shared.webhooks.tell(document, What::Began { user });
                return Ok(session);
            }
        }
        Err(End::Reopening)
    }
}

impl connection::Entrance for Entrance {
    fn needs_token(&self) -> bool {
        self.shared.tokens.is_some()
    }

    fn dialect(&self) -> &'static str {
        self.dialect
    }

    fn admit<'a>(&'a self, document: &'a str, token: &'a str) -> BoxFuture<'a, Result<Admitted, End>> {
        Box::pin(self.admit_with(document, token))
    }

    fn join<'a>(
        &'a self,
        admitted: &'a Admitted,
        carrier: Arc<dyn Carrier>,
    ) -> BoxFuture<'a, Result<Session, End>> {
        Box::pin(self.enter(admitted, carrier))
    }

    fn left(&self, document: &DocumentName, session: SessionId, user: Option<&str>, end: &End) {
        self.shared.metrics.session_ended(end);
        let user_told = user.map(str::to_owned);
        self.shared.metrics.session_left(self.dialect);
        let (code, reason) = (end.code(), end.label());
        self.shared.webhooks.tell(document, What::Ended { user: user_told, code, reason });
        let session = session.0;
        info!(%document, user, session, code, reason = end.reason(), "left");
    }

    fn refused(&self, document: &str, end: &End) {
        self.shared.metrics.session_ended(end);
        info!(document, code = end.code(), reason = end.reason(), "left");
    }
}
