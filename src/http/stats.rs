//! `/api/documents/{name}/stats`: how large a document is, and what the store has of it.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Shared,
    asking::{Named, ask, not_there},
    authorize::Caller,
    error::{Problem, Refusals},
};
use crate::{actor::DocumentHandle, document::Document, history, level::Level};

/// How large a document is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    /// The bytes of the update that holds all of it.
    bytes: usize,
    /// How many Yjs clients have ever written in it.
    clients: usize,
    /// How much was ever inserted, in Yjs's units: a character of text is one.
    inserted: u64,
    /// How much of that was deleted: what is left of it are tombstones.
    deleted: u64,
    /// About how many blocks the document engine keeps in memory.
    blocks: usize,
    /// Records in the log since the last snapshot.
    log_records: usize,
    /// Bytes of these records.
    log_bytes: usize,
    /// Sessions on the node that answers.
    sessions: usize,
    /// Clients that say that they are here, on all nodes.
    presences: usize,
    /// When it was changed last, in milliseconds since 1970; none where the store does not know.
    changed: Option<u64>,
    /// Who changed it last: the `sub` of a token; none where that is not known.
    changed_by: Option<String>,
}

/// How large a document is
#[utoipa::path(
    get, path = "/api/documents/{name}/stats", operation_id = "stats", tag = "documents",
    params(("name" = String, Path, description = "The document's name.")),
    responses((status = 200, description = "Its figures.", body = Stats), Refusals),
)]
pub(crate) async fn stats(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
) -> Result<Json<Stats>, Problem> {
    access.require(&name, Level::Read)?;
    let look = |document: DocumentHandle| async move {
        let described = document.describe().await?;
        let look = |document: &Document| {
            let (inserted, deleted) = document.inserted_and_deleted()?;
            Ok((
                document.measure()?,
                document.state_vector().iter().count(),
                inserted,
                deleted,
                document.blocks(),
            ))
        };
        Ok((described, document.read(look).await?))
    };
    let (described, found) = ask(&shared, &name, look).await?;
    if !described.exists {
        return Err(not_there(&name));
    }
    let broken = |error: crate::document::UpdateError| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error);
    let (bytes, clients, inserted, deleted, blocks) = found.map_err(broken)?;
    let listed = shared.backend.list(name.as_str(), "", 1).await.map_err(Problem::unavailable)?;
    let changed = listed.into_iter().find(|listed| listed.name == name).and_then(|listed| listed.changed);
    Ok(Json(Stats {
        bytes,
        clients,
        inserted,
        deleted,
        blocks,
        log_records: described.log.records,
        log_bytes: described.log.bytes,
        sessions: described.sessions.len(),
        presences: described.presence.len(),
        changed,
        changed_by: history::last_author(&*shared.backend, &name).await?,
    }))
}
