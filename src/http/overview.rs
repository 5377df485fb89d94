//! `/api/nodes`, `/api/open-documents` and `/api/errors`: how the node that answers is doing, for whoever looks after the
//! server. The page at `/admin` shows it.

use std::cmp::Reverse;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Shared,
    authorize::Caller,
    error::{Problem, Refusals},
};
use crate::{
    actor::Figures,
    backend::{NodeId, OtherNode},
    level::Level,
    name::DocumentName,
    troubles::Trouble,
};

/// Documents of the list, unless it is told otherwise, and the most that it may have.
const LISTED: usize = 50;
const MAX_LISTED: usize = 1_000;

/// The nodes that share the store.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Nodes {
    /// The node that answers.
    node: Node,
    /// The others that it takes for alive. What they do, only they can say.
    others: Vec<Other>,
}

/// How a node is doing. What is counted is counted since its start: the rates of it are differences over time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Node {
    /// Its number for the other nodes, which may change while it runs; none where there can be no others.
    id: Option<String>,
    /// Its version.
    version: &'static str,
    /// For how many milliseconds it has been running.
    uptime: u64,
    /// Whether it empties, because it will stop.
    draining: bool,
    /// The limits that keep it from taking more, named as their flags are.
    over: Vec<&'static str>,
    /// Why the store cannot be reached; nothing where it can.
    store_away: Option<String>,
    /// Clients in documents.
    sessions: u64,
    /// Open documents.
    documents: usize,
    /// The bytes of memory that these take, as estimated.
    memory: usize,
    /// Updates of clients that brought something new.
    edits: u64,
    /// Bytes that came over WebSockets.
    received: u64,
    /// Bytes that went out over WebSockets.
    sent: u64,
}

/// Another node.
#[derive(Debug, Serialize, ToSchema)]
struct Other {
    /// Its number.
    id: String,
    /// Whether its lease has run out: if that is so at the next look, it is taken for dead.
    late: bool,
}

fn in_hex(NodeId(id): NodeId) -> String {
    format!("{id:016x}")
}

/// How the nodes are doing
///
/// The node that answers, and which others there are. The token must allow `admin` for all names (`*`).
#[utoipa::path(
    get, path = "/api/nodes", operation_id = "nodes", tag = "server",
    responses((status = 200, description = "The nodes.", body = Nodes), Refusals),
)]
pub(crate) async fn nodes(
    State(shared): State<Shared>,
    Caller(access): Caller,
) -> Result<Json<Nodes>, Problem> {
    access.require_prefix("", Level::Admin)?;
    let known = shared.backend.nodes();
    let counts = shared.metrics.counts();
    let node = Node {
        id: known.own.map(in_hex),
        version: env!("CARGO_PKG_VERSION"),
        uptime: counts.during.as_millis() as u64,
        draining: shared.drain.has_begun(),
        over: shared.over(),
        store_away: shared.backend.away(),
        sessions: counts.sessions,
        documents: shared.hub.open_documents(),
        memory: shared.hub.document_bytes(),
        edits: counts.edits,
        received: counts.received_bytes,
        sent: counts.sent_bytes,
    };
    let others = known.others.into_iter().map(|OtherNode { id, late }| Other { id: in_hex(id), late });
    Ok(Json(Nodes { node, others: others.collect() }))
}

/// Which of the open documents come first.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum By {
    /// Those in which most is edited.
    #[default]
    Activity,
    /// The largest.
    Size,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Which ones come first.
    #[serde(default)]
    #[param(required = false, inline)]
    by: By,
    /// How many at most.
    #[serde(default = "listed")]
    #[param(required = false, minimum = 1, maximum = 1000)]
    limit: usize,
    /// Looked at elsewhere.
    #[serde(rename = "token")]
    #[param(ignore)]
    _token: Option<String>,
}

fn listed() -> usize {
    LISTED
}

/// The documents that are open on the node that answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenDocuments {
    documents: Vec<OpenDocument>,
    /// How many are open, also where not all are listed.
    open: usize,
}

/// An open document.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OpenDocument {
    name: String,
    /// About how many bytes it has, as an update.
    bytes: usize,
    /// Its sessions on this node.
    sessions: usize,
    /// Edits since it was opened here, those from other nodes too.
    edits: u64,
    /// About how many of them came within the last minute.
    edits_per_minute: f64,
    /// When the last one came, in milliseconds since 1970; nothing where there was none since it was opened.
    changed: Option<u64>,
    /// Whether something in it is not saved yet.
    unsaved: bool,
    /// What went wrong last.
    last_error: Option<LastError>,
}

/// Something that went wrong.
#[derive(Debug, Serialize, ToSchema)]
struct LastError {
    /// When, in milliseconds since 1970.
    time: u64,
    /// What.
    reason: String,
}

impl From<Trouble> for LastError {
    fn from(Trouble { time, reason }: Trouble) -> Self {
        Self { time, reason }
    }
}

/// Lists open documents
///
/// Those that are open on the node that answers, by activity or size. The token must allow `admin` for all names (`*`).
#[utoipa::path(
    get, path = "/api/open-documents", operation_id = "open_documents", tag = "server",
    params(Which),
    responses((status = 200, description = "The first of them.", body = OpenDocuments), Refusals),
)]
pub(crate) async fn open_documents(
    State(shared): State<Shared>,
    Caller(access): Caller,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<OpenDocuments>, Problem> {
    let Query(Which { by, limit, .. }) = which.map_err(|error| Problem::bad_request(error.body_text()))?;
    if !(1..=MAX_LISTED).contains(&limit) {
        return Err(Problem::bad_request(format!("limit={limit} must be from 1 to {MAX_LISTED}")));
    }
    access.require_prefix("", Level::Admin)?;
    let mut all = shared.hub.figures();
    let open = all.len();
    sort(&mut all, by);
    all.truncate(limit);
    let documents = all.into_iter().map(|(name, figures)| OpenDocument {
        last_error: shared.hub.troubles().of(&name).map(Into::into),
        name: name.as_str().to_owned(),
        bytes: figures.bytes,
        sessions: figures.sessions,
        edits: figures.edits,
        edits_per_minute: (figures.lately * 10.0).round() / 10.0,
        changed: figures.changed,
        unsaved: figures.unsaved,
    });
    Ok(Json(OpenDocuments { documents: documents.collect(), open }))
}

fn sort(documents: &mut [(DocumentName, Figures)], by: By) {
    documents.sort_by(|(a, one), (b, other)| {
        let order = match by {
            By::Activity => other.lately.total_cmp(&one.lately).then(other.changed.cmp(&one.changed)),
            By::Size => Reverse(one.bytes).cmp(&Reverse(other.bytes)),
        };
        order.then_with(|| a.cmp(b))
    });
}

/// What went wrong with documents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Errors {
    /// The newest of each document, newest first.
    errors: Vec<DocumentError>,
}

/// What went wrong with a document.
#[derive(Debug, Serialize, ToSchema)]
struct DocumentError {
    name: String,
    #[serde(flatten)]
    error: LastError,
}

/// What went wrong with documents
///
/// The last error of each document, open or not, on the node that answers, since its start; of a few hundred at most. The
/// token must allow `admin` for all names (`*`).
#[utoipa::path(
    get, path = "/api/errors", operation_id = "errors", tag = "server",
    responses((status = 200, description = "The errors.", body = Errors), Refusals),
)]
pub(crate) async fn errors(
    State(shared): State<Shared>,
    Caller(access): Caller,
) -> Result<Json<Errors>, Problem> {
    access.require_prefix("", Level::Admin)?;
    let all = shared.hub.troubles().all().into_iter();
    let errors =
        all.map(|(name, trouble)| DocumentError { name: name.as_str().to_owned(), error: trouble.into() });
    Ok(Json(Errors { errors: errors.collect() }))
}
