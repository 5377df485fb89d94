//! The way to an open document: what may be asked of its actor, and the mailbox where that waits.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::Instant,
};

use super::{
    member::{MemberOutbox, Terms},
    vitals::{Figures, Vitals},
};
use crate::{
    document::{Document, UpdateError, edit::given::Unfit},
    end::End,
    outbox::Outbox,
    presence::{SessionId, State},
    protocol::Message,
    saver::LogSize,
    trace::Edit as Trace,
};

/// Messages that may wait for a document; more make their senders wait.
const MAILBOX_MESSAGES: usize = 1_024;
/// Bytes of messages that may wait for a document: a few of the largest frames.
const MAILBOX_BYTES: usize = 64 * 1024 * 1024;

/// From this size on a message may keep its actor busy for longer than others should wait for the thread.
const LARGE_BYTES: usize = 64 * 1024;

/// What waits for an actor. Its large kinds are on the heap: the mailbox of each document has room for some dozens.
pub(super) enum Mail {
    Join {
        session: SessionId,
        outbox: MemberOutbox,
        terms: Terms,
    },
    Receive(Box<Received>),
    ChangeTerms {
        session: SessionId,
        terms: Terms,
    },
    CatchUp {
        session: SessionId,
    },
    Leave {
        session: SessionId,
    },
    Read(Look),
    /// Takes in an edit from no session, and answers when it is saved.
    Write(Box<Written>),
    /// Answers whether the document exists; with `make`, it does from then on, and is answered when that is saved.
    Exists {
        make: bool,
        answer: Answering<bool>,
    },
    /// Tells everybody a text of an application.
    Tell(Bytes),
    /// Keeps a version of what is here now, and answers when it is kept.
    KeepVersion {
        answer: oneshot::Sender<()>,
    },
    /// Answers what there is beside the document itself.
    Describe {
        answer: Answering<Described>,
    },
    /// Ends the sessions of this user, or of everybody, and answers how many they were.
    EndSessions {
        user: Option<String>,
        answer: oneshot::Sender<usize>,
    },
    Rest,
    Stop,
}

/// A message of a session.
pub(super) struct Received {
    pub(super) from: SessionId,
    pub(super) message: Message,
    /// When the frame came that it was in.
    pub(super) came: Instant,
    pub(super) trace: Trace,
    _space: OwnedSemaphorePermit,
}

/// An edit from no session.
pub(super) struct Written {
    pub(super) edit: Edit,
    /// Whether making its update may take long.
    is_large: bool,
    /// Whether it is to make the document, so that there must be none.
    pub(super) makes: bool,
    /// Whose it is, where somebody was asked.
    pub(super) user: Option<Arc<str>>,
    pub(super) answer: Answering<Result<(), WriteError>>,
    _space: OwnedSemaphorePermit,
}

impl Mail {
    /// Whether taking it in may take long: a large update, or a look at the whole document.
    pub(super) fn is_large(&self) -> bool {
        match self {
            Self::Receive(received) => received.message.size() > LARGE_BYTES,
            Self::Write(written) => written.is_large,
            Self::Read(_) => true,
            Self::Join { .. }
            | Self::ChangeTerms { .. }
            | Self::CatchUp { .. }
            | Self::Leave { .. }
            | Self::Exists { .. }
            | Self::Tell(_)
            | Self::KeepVersion { .. }
            | Self::Describe { .. }
            | Self::EndSessions { .. }
            | Self::Rest
            | Self::Stop => false,
        }
    }
}

/// Where something is answered, or why the document cannot be opened.
pub(super) type Answering<T> = oneshot::Sender<Result<T, End>>;

/// A look at the document, or the reason why it cannot be read.
type Look = Box<dyn FnOnce(Result<&Document, &End>) + Send>;

/// An open document, beside its content.
#[derive(Debug, Clone)]
pub struct Described {
    /// Whether there is such a document, if only an empty one that was made.
    pub exists: bool,
    /// What the sessions of this node may do, and whose they are.
    pub sessions: Vec<Terms>,
    /// Who is here, on all nodes.
    pub presence: Vec<State>,
    /// What the store has of it.
    pub log: LogSize,
}

/// Makes an update of the document as it is at that moment; none, where there is nothing to change.
pub type Edit = Box<dyn FnOnce(&Document) -> Result<Result<Option<Bytes>, WriteError>, UpdateError> + Send>;

/// The way to an open document; the document stays open while somebody besides the hub holds one.
#[derive(Debug, Clone)]
pub struct DocumentHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    mailbox: mpsc::Sender<Mail>,
    space: Arc<Semaphore>,
    vitals: Arc<Vitals>,
}

/// The document is no longer open here; opening it again brings a new handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the document was closed meanwhile")]
pub struct Gone;

/// Why a document could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is no longer open here.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// It cannot be opened: a session that wants to join it would end like this.
    #[error("the document cannot be read: {}", .0.reason())]
    Refused(End),
}

/// Why an update from no session is not taken. Nothing of it is in the document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// It breaks a rule.
    #[error("update refused: {0}; it must be a Yjs update of version 1")]
    Refused(String),
    /// It is too large.
    #[error("the update has {bytes} bytes; the limit is {limit} (--max-update)")]
    TooLarge {
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The document has no space for it.
    #[error("the document has reached {0} bytes and takes only deletions (--max-document)")]
    Full(usize),
    /// It is to make the document, and there is one.
    #[error("the document is there already")]
    Exists,
    /// It was made for the document as it was before.
    #[error("the document has changed since it had the ETag of If-Match: read it again")]
    Changed,
    /// What is to be changed is not as the edit says.
    #[error("{0}")]
    Unfit(String),
    /// It builds on edits that are not here.
    #[error("the update builds on edits that the document does not have: send those first, or with it")]
    Lacks,
}

impl From<Unfit> for WriteError {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit.0)
    }
}

impl DocumentHandle {
    /// The way to a document, and the mailbox to which it leads.
    pub(super) fn new(vitals: Arc<Vitals>) -> (Self, mpsc::Receiver<Mail>) {
        let (mailbox, mail) = mpsc::channel(MAILBOX_MESSAGES);
        let space = Arc::new(Semaphore::new(MAILBOX_BYTES));
        (Self(Arc::new(Shared { mailbox, space, vitals })), mail)
    }

    /// A new session hears the greeting in its outbox.
    pub async fn join(&self, session: SessionId, outbox: Arc<Outbox>, terms: Terms) -> Result<(), Gone> {
        self.send(Mail::Join { session, outbox: MemberOutbox(outbox), terms }).await
    }

    /// Gives a session's message to the document; waits while too much waits there already.
    pub async fn receive(&self, from: SessionId, message: Message, trace: Trace) -> Result<(), Gone> {
        let came = Instant::now();
        let bytes = message.size().min(MAILBOX_BYTES) as u32;
        let space = self.0.space.clone().acquire_many_owned(bytes).await.map_err(|_| Gone)?;
        self.send(Mail::Receive(Box::new(Received { from, message, came, trace, _space: space }))).await
    }

    /// A session goes on with other terms.
    pub async fn change_terms(&self, session: SessionId, terms: Terms) -> Result<(), Gone> {
        self.send(Mail::ChangeTerms { session, terms }).await
    }

    /// A session that has fallen behind is ready for what it missed.
    pub async fn catch_up(&self, session: SessionId) -> Result<(), Gone> {
        self.send(Mail::CatchUp { session }).await
    }

    /// A session is over. Needs no waiting in the usual case; where the mailbox is full, a task waits.
    pub fn leave(&self, session: SessionId) {
        if let Err(mpsc::error::TrySendError::Full(mail)) = self.0.mailbox.try_send(Mail::Leave { session }) {
            let mailbox = self.0.mailbox.clone();
            tokio::spawn(async move { mailbox.send(mail).await });
        }
    }

    /// Looks at the document, between two changes.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Document) -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let (answer, answered) = oneshot::channel();
        let look = move |document: Result<&Document, &End>| {
            let found = document.map(look).map_err(|end| ReadError::Refused(end.clone()));
            // An error: nobody waits for the answer any more.
            let _ = answer.send(found);
        };
        self.send(Mail::Read(Box::new(look))).await?;
        answered.await.map_err(|_| ReadError::Gone(Gone))?
    }

    /// Gives the document an update of this user from no session; answers when it is saved, or why it is not taken.
    pub async fn write(
        &self,
        update: Bytes,
        user: Option<Arc<str>>,
    ) -> Result<Result<(), WriteError>, ReadError> {
        let is_large = update.len() > LARGE_BYTES;
        self.send_edit(update.len(), is_large, false, user, Box::new(|_| Ok(Ok(Some(update))))).await
    }

    /// Makes the document with this content where there is none; answers like [`Self::write`].
    pub async fn make_with(
        &self,
        update: Bytes,
        user: Option<Arc<str>>,
    ) -> Result<Result<(), WriteError>, ReadError> {
        let is_large = update.len() > LARGE_BYTES;
        self.send_edit(update.len(), is_large, true, user, Box::new(|_| Ok(Ok(Some(update))))).await
    }

    /// Edits the document: nothing comes between the look at it and the update that is made of what was seen. `bytes`
    /// says how much the edit holds while it waits; answers like [`Self::write`].
    pub async fn edit(
        &self,
        bytes: usize,
        user: Option<Arc<str>>,
        edit: Edit,
    ) -> Result<Result<(), WriteError>, ReadError> {
        self.send_edit(bytes, true, false, user, edit).await
    }

    async fn send_edit(
        &self,
        bytes: usize,
        is_large: bool,
        makes: bool,
        user: Option<Arc<str>>,
        edit: Edit,
    ) -> Result<Result<(), WriteError>, ReadError> {
        let space = bytes.min(MAILBOX_BYTES) as u32;
        let space = self.0.space.clone().acquire_many_owned(space).await.map_err(|_| Gone)?;
        let written = |answer| Written { edit, is_large, makes, user, answer, _space: space };
        self.ask(|answer| Mail::Write(Box::new(written(answer)))).await
    }

    /// Whether there is such a document, if only an empty one that was made.
    pub async fn exists(&self) -> Result<bool, ReadError> {
        self.ask(|answer| Mail::Exists { make: false, answer }).await
    }

    /// Makes the document where there is none; answers whether there was one, when it is saved.
    pub async fn make(&self) -> Result<bool, ReadError> {
        self.ask(|answer| Mail::Exists { make: true, answer }).await
    }

    /// What there is beside the document itself.
    pub async fn describe(&self) -> Result<Described, ReadError> {
        self.ask(|answer| Mail::Describe { answer }).await
    }

    /// What can be seen of it without asking.
    pub fn figures(&self) -> Figures {
        self.0.vitals.figures()
    }

    /// Keeps a version of what is here now, if there is something new in it; answers when it is kept.
    pub async fn keep_version(&self) -> Result<(), Gone> {
        let (answer, answered) = oneshot::channel();
        self.send(Mail::KeepVersion { answer }).await?;
        answered.await.map_err(|_| Gone)
    }

    /// Tells everybody in the document a text of an application, on all nodes. It may get lost.
    pub async fn tell(&self, text: Bytes) -> Result<(), Gone> {
        self.send(Mail::Tell(text)).await
    }

    async fn ask<T>(&self, question: impl FnOnce(Answering<T>) -> Mail) -> Result<T, ReadError> {
        let (answer, answered) = oneshot::channel();
        self.send(question(answer)).await?;
        answered.await.map_err(|_| Gone)?.map_err(ReadError::Refused)
    }

    /// Ends the sessions of this user, or of everybody, on all nodes, and answers how many they were on this one.
    pub async fn end_sessions(&self, user: Option<String>) -> Result<usize, Gone> {
        let (answer, answered) = oneshot::channel();
        self.send(Mail::EndSessions { user, answer }).await?;
        answered.await.map_err(|_| Gone)
    }

    /// Lets the document leave memory now, if nobody is in it. Where the mailbox is full, somebody is.
    pub fn rest(&self) {
        // An error: it is full, or the document has left.
        let _ = self.0.mailbox.try_send(Mail::Rest);
    }

    /// Ends all sessions and saves everything.
    pub async fn stop(&self) {
        // An error: it has stopped already.
        let _ = self.send(Mail::Stop).await;
    }

    /// Whether the document is no longer open here.
    pub fn is_closed(&self) -> bool {
        self.0.mailbox.is_closed()
    }

    /// Waits until the document is no longer open here.
    pub async fn closed(&self) {
        self.0.mailbox.closed().await;
    }

    /// Whether nobody but the hub holds a handle, and nothing waits.
    pub fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1 && self.0.mailbox.capacity() == MAILBOX_MESSAGES
    }

    async fn send(&self, mail: Mail) -> Result<(), Gone> {
        self.0.mailbox.send(mail).await.map_err(|_| Gone)
    }
}
